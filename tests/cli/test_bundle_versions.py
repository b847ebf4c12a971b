"""Versions from the command line."""

import shutil
from pathlib import Path

import pytest

from recall.bundle.versions import live_name, publish, resolve, staging


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(published, tmp_path / "root"))
    for _ in range(2):
        with staging(root) as staged:
            shutil.copytree(resolve(root), staged, dirs_exist_ok=True)
            publish(staged, root)
    return root


def test_versions_are_listed_and_changed(run, root: Path) -> None:
    listed = run("versions", root, "--json").json
    assert [one["live"] for one in listed] == [True, False, False]
    third, second, first = (one["version"] for one in listed)
    shown = run("versions", root)
    live, name, *_, size = shown.out.splitlines()[1].split()[:6]
    assert (live, name, size) == ("live", third, f"{listed[0]['bytes'] / 1e6:.1f}")
    assert run("rollback", root, "--json").json == {"version": second, "previous": third}
    assert run("activate", root, third, "--expect", second, "--json").json == {"version": third, "previous": second}
    assert run("activate", root, first).code == 0
    assert live_name(root) == first
    ended = run("activate", root, third, "--expect", second)
    assert ended.code == 75
    assert f"{first} is live, and not {second}" in ended.err
    assert run("rollback", root, "--expect", third).code == 75


def test_invalid_requests_are_explained(run, root: Path, tmp_path: Path) -> None:
    first = run("versions", root, "--json").json[-1]["version"]
    live = live_name(root)
    path = root / "versions" / first / "item_vectors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    ended = run("activate", root, first)
    assert ended.code == 65
    assert "item_vectors.safetensors" in ended.err
    ended = run("activate", root, first[:-1])
    assert ended.code == 65
    assert f"Did you mean '{first}'" in ended.err
    assert run("activate", root, "../x").code == 65
    assert live_name(root) == live
    ended = run("versions", tmp_path / "none")
    assert ended.code == 65
    assert "there are no versions" in ended.err
    ended = run("versions", tmp_path / "none", "--json")
    assert (ended.code, ended.json) == (0, [])
    run("rollback", root)
    run("rollback", root)
    ended = run("rollback", root)
    assert ended.code == 65
