"""A bundle that does not fit in memory is refused before it is read."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from recall.bundle import files
from recall.bundle.manifest import FileEntry, Manifest
from recall.bundle.versions import resolve
from recall.errors import BundleError


def larger(manifest: Manifest, size: int) -> Manifest:
    return manifest.model_copy(update={"files": {**manifest.files, "index.faiss": FileEntry(bytes=size, sha256="0" * 64)}})


def test_a_bundle_must_fit_in_memory(published: Path) -> None:
    folder = resolve(published)
    manifest = Manifest.read(folder)
    files.check_memory(folder, manifest)
    there = files.available()
    assert there is not None
    assert there > 0
    with pytest.raises(BundleError, match=r"needs [\d,]+ bytes of memory, and [\d,]+ are available"):
        files.check_memory(folder, larger(manifest, 10 * there + (1 << 40)))


def test_the_process_limit_applies() -> None:
    program = (
        "import resource, sys; from recall.bundle.files import available; before = available();"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); print(before, available())"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, after = map(int, shown.stdout.split())
    assert after < 2 << 30
    assert after <= before or before < 2 << 30


def test_the_container_limit_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 2000\nactive_file 1000\n")
    assert files.available() == 4000
    (tmp_path / "memory.max").write_text("100\n")
    assert files.available() == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert (files.available() or 0) > 5000


def test_without_a_known_limit_nothing_is_refused(tmp_path: Path, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        pytest.skip("this process already has a limit")
    monkeypatch.setattr(files, "_CGROUP", tmp_path)
    monkeypatch.setattr(files, "_MEMORY", tmp_path / "meminfo")
    assert files.available() is None
    folder = resolve(published)
    files.check_memory(folder, larger(Manifest.read(folder), 1 << 60))
