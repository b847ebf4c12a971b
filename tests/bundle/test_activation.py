"""The live version, the one before, and removal of old ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from recall._file_system import acquire, locked
from recall.bundle import activation, versions
from recall.bundle.manifest import Manifest
from recall.errors import BundleError, PublishBusyError, VersionMovedError
from tests.bundle.publisher import check, publish_random

ODD = ["", ".", "..", "../versions", "a/b", "/etc", "C:\\x", "x" * 65, "a\x00b", "a\nb", "-a", "é", "000001-00000000\n"]


@pytest.fixture
def template(published: Path) -> Manifest:
    return Manifest.read(versions.resolve(published))


@pytest.fixture
def five(tmp_path: Path, template: Manifest) -> list[str]:
    return [publish_random(tmp_path, template).name for _ in range(5)]


def live(root: Path) -> str:
    return versions.resolve(root).name


def test_versions_are_listed_newest_first(tmp_path: Path, five: list[str]) -> None:
    listed = activation.list_versions(tmp_path)
    assert [one.folder.name for one in listed] == five[::-1]
    assert [one.live for one in listed] == [True, False, False, False, False]
    assert all(
        one.manifest is not None and one.size == sum(file.bytes for file in one.manifest.files.values()) for one in listed
    )
    (tmp_path / "versions" / five[0] / "manifest.json").write_text("{}")
    assert "format_version must be an integer" in activation.list_versions(tmp_path)[-1].fault


def test_repeated_rollbacks_go_further_back(tmp_path: Path, template: Manifest) -> None:
    names = [publish_random(tmp_path, template).name for _ in range(4)]
    for expected in (names[2], names[1]):
        back = activation.previous(tmp_path).name
        assert back == expected
        activation.activate(tmp_path, back)
        assert live(tmp_path) == expected
    newer = publish_random(tmp_path, template).name
    assert activation.previous(tmp_path).name == names[1]  # not a version that was rolled back
    activation.activate(tmp_path, names[1])
    assert activation.previous(tmp_path).name == names[0]
    activation.activate(tmp_path, names[0])
    with pytest.raises(BundleError, match="no version to go back to"):
        activation.previous(tmp_path)
    activation.activate(tmp_path, newer)
    assert activation.previous(tmp_path).name == names[0]
    assert check(tmp_path) == 5


def test_an_activation_can_be_rolled_back(tmp_path: Path, five: list[str]) -> None:
    assert activation.activate(tmp_path, five[1], expected=five[4]) == five[4]
    assert live(tmp_path) == five[1]
    assert check(tmp_path) == 2
    for back in (4, 3, 2, 1, 0):
        assert activation.previous(tmp_path).name == five[back]
        activation.activate(tmp_path, five[back])


def test_a_root_without_history_rolls_back_by_number(tmp_path: Path, five: list[str]) -> None:
    (tmp_path / "HISTORY").unlink()
    assert activation.previous(tmp_path).name == five[3]
    (tmp_path / "CURRENT").write_text(five[2])
    assert activation.previous(tmp_path).name == five[1]


def test_a_crash_before_activation_changes_nothing(tmp_path: Path, five: list[str]) -> None:
    with (tmp_path / "HISTORY").open("a") as history:
        history.write("000006-00000000\n")
    assert activation.previous(tmp_path).name == five[3]


def test_only_the_expected_version_is_replaced(tmp_path: Path, five: list[str]) -> None:
    with pytest.raises(VersionMovedError, match=f"{five[4]} is live, and not {five[3]}"):
        activation.activate(tmp_path, five[0], expected=five[3])
    assert live(tmp_path) == five[4]


@pytest.mark.parametrize("name", ODD)
def test_a_name_cannot_leave_the_root(tmp_path: Path, five: list[str], name: str) -> None:
    with pytest.raises(BundleError, match="invalid name of a version"):
        activation.find(tmp_path, name)


def test_a_folder_without_versions_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no version 000009-00000000") as refused:
        activation.find(tmp_path, "000009-00000000")
    assert refused.value.hint == "Give the folder that bundles are published to"


def test_links_and_foreign_folders_are_not_versions(tmp_path: Path, five: list[str]) -> None:
    (tmp_path / "versions" / "000009-00000000").symlink_to(tmp_path / "versions" / five[0])
    (tmp_path / "versions" / "other").mkdir()
    for name in ("000009-00000000", "other", "000008-00000000", "manifest.json"):
        with pytest.raises(BundleError, match="there is no version"):
            activation.activate(tmp_path, name)
    assert live(tmp_path) == five[4]
    assert [one.folder.name for one in activation.list_versions(tmp_path)] == five[::-1]
    with pytest.raises(BundleError, match=f"Did you mean '{five[1]}'"):
        activation.find(tmp_path, five[1][:-1])


def test_activating_a_version_repairs_a_broken_current(tmp_path: Path, five: list[str]) -> None:
    for text in (b"", b"\xff\xfe", b"../../etc", b"000009-00000000"):
        (tmp_path / "CURRENT").write_bytes(text)
        assert [folder.name for folder in activation.candidates(tmp_path)][:2] == [five[4], five[3]]
        activation.activate(tmp_path, five[4])
        assert live(tmp_path) == five[4]


def test_fallback_never_uses_a_version_newer_than_the_live_one(tmp_path: Path, five: list[str]) -> None:
    (tmp_path / "CURRENT").write_text(five[2])
    assert [folder.name for folder in activation.candidates(tmp_path)] == [five[1], five[0]]


def test_activation_and_publication_exclude_each_other(tmp_path: Path, five: list[str]) -> None:
    with locked(tmp_path / versions.LOCK, 1.0, ""), pytest.raises(PublishBusyError):
        activation.activate(tmp_path, five[0], wait=0.05)
    assert live(tmp_path) == five[4]


def publish_keeping(root: Path, template: Manifest, keep: int) -> str:
    name = publish_random(root, template).name
    versions._prune(root, keep, keep_indexes=False)
    return name


def test_the_newest_and_the_last_live_versions_are_kept(tmp_path: Path, five: list[str], template: Manifest) -> None:
    for back in (3, 2, 1):
        activation.activate(tmp_path, five[back])
    newest = publish_keeping(tmp_path, template, 2)
    assert [one.name for one in versions.versions(tmp_path)] == [five[1], five[4], newest]  # 1 was live last, 4 is new
    assert list((tmp_path / "staging").iterdir()) == []
    again = publish_keeping(tmp_path, template, 1)
    assert [one.name for one in versions.versions(tmp_path)] == [again]
    assert check(tmp_path) == 7


HOLDER = """
import sys
from pathlib import Path
from recall._file_system import acquire
held = acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_version_in_use_is_kept(tmp_path: Path, five: list[str], template: Manifest) -> None:
    folder = tmp_path / "versions" / five[0]
    here = acquire(tmp_path / "versions" / five[1])
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        newest = publish_keeping(tmp_path, template, 1)
        assert [one.name for one in versions.versions(tmp_path)] == [five[0], five[1], newest]
        holder.kill()
        holder.communicate()
    assert here is not None
    here.close()
    newest = publish_keeping(tmp_path, template, 1)
    assert [one.name for one in versions.versions(tmp_path)] == [newest]
    with pytest.raises(BundleError, match="cannot be opened"):
        acquire(folder)
