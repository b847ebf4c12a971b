import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recall.bundle import versions
from recall.bundle.manifest import Manifest
from recall.errors import BundleError, PublishBusyError, PublishError
from tests.bundle.publisher import check, publish_random


@pytest.fixture
def template(published: Path) -> Path:
    return versions.resolve(published)


def start(root: Path, template: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.bundle.publisher", str(root), str(template), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_version_numbers_increase(tmp_path: Path, template: Path) -> None:
    manifest = Manifest.read(template)
    for sequence in (1, 2, 3):
        folder = publish_random(tmp_path, manifest)
        assert folder.parent == tmp_path / "versions"
        assert check(tmp_path) == sequence
        assert versions.resolve(tmp_path) == folder == versions.resolve(folder)
    assert [int(one.name[:6]) for one in versions.versions(tmp_path)] == [1, 2, 3]
    assert [entry.name for entry in (tmp_path / "staging").iterdir()] == []


def test_published_files_are_readable_by_others(template: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert template.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.stat().st_mode & 0o777 for path in template.iterdir()} == {0o666 & ~umask}


def test_an_unpublished_bundle_leaves_no_files(tmp_path: Path) -> None:
    with versions.staging(tmp_path) as folder:
        (folder / "file").write_text("half")
    assert list((tmp_path / "staging").iterdir()) == []
    assert versions.versions(tmp_path) == []


@pytest.mark.parametrize("name", ["000001-0123abcd\n", "\u0660\u0660\u0660\u0660\u0660\u0661-0123abcd"])
def test_a_name_is_a_version_as_a_whole(tmp_path: Path, name: str) -> None:
    (tmp_path / versions.VERSIONS / name).mkdir(parents=True)
    assert versions.versions(tmp_path) == []


def test_a_killed_publisher_leaves_the_old_or_the_new_version(tmp_path: Path, template: Path) -> None:
    publish_random(tmp_path, Manifest.read(template))
    rng = random.Random(1)
    last = 1
    for _ in range(6):
        child = start(tmp_path, template, "loop", "10000")
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        lines = [child.stdout.readline() for _ in range(rng.randrange(4))]
        time.sleep(rng.uniform(0, 0.01))  # at some point within the next publication
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
        printed = [int(line[:6]) for line in lines if line.endswith("\n")]
        child.stdout.close()
        child.wait()
        now = check(tmp_path)
        assert now >= max(printed, default=last)  # a version reported as published stays published
        last = now
    folder = publish_random(tmp_path, Manifest.read(template))
    assert check(tmp_path) > last
    assert folder == versions.resolve(tmp_path)
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.slow
def test_a_publisher_can_crash_at_any_line(tmp_path: Path, template: Path) -> None:
    with start(tmp_path, template, "lines") as child:
        printed, _ = child.communicate(timeout=600)
    assert child.returncode == 0
    assert int(printed) > 30


def test_concurrent_publishers_lose_nothing(tmp_path: Path, template: Path) -> None:
    children = [start(tmp_path, template, "loop", "15") for _ in range(2)]
    printed = [child.communicate(timeout=120)[0].splitlines()[1:] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert [len(names) for names in printed] == [15, 15]
    sequences = [[int(name[:6]) for name in names] for names in printed]
    assert all(numbers == sorted(numbers) for numbers in sequences)
    assert sorted(sequences[0] + sequences[1]) == list(range(1, 31))
    assert sorted(printed[0] + printed[1]) == [one.name for one in versions.versions(tmp_path)]
    assert check(tmp_path) == 30


def test_a_staged_bundle_is_kept_until_its_writer_dies(tmp_path: Path, template: Path) -> None:
    child = start(tmp_path, template, "hold")
    assert child.stdout is not None
    assert child.stdout.readline() == "staged\n"
    (staged,) = (tmp_path / "staging").iterdir()
    publish_random(tmp_path, Manifest.read(template))
    assert staged.exists()
    child.kill()
    child.communicate()
    publish_random(tmp_path, Manifest.read(template))
    assert not staged.exists()


HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_stopped_publisher_holds_the_lock_and_a_dead_one_does_not(tmp_path: Path, template: Path) -> None:
    manifest = Manifest.read(template)
    with versions.staging(tmp_path) as staged:
        shutil.copytree(template, staged, dirs_exist_ok=True)
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(PublishBusyError, match="another process is publishing"):
            versions.publish(staged, tmp_path, wait=0.1)
        assert staged.exists()
        holder.kill()
        holder.communicate()
        assert versions.publish(staged, tmp_path, wait=1.0).name.startswith("000001-")
    assert Manifest.read(versions.resolve(tmp_path)).files == manifest.files


def test_a_bundle_based_on_an_outdated_version_is_not_published(tmp_path: Path, template: Path) -> None:
    for _ in range(2):
        publish_random(tmp_path, Manifest.read(template))
    with versions.staging(tmp_path) as staged:
        shutil.copytree(template, staged, dirs_exist_ok=True)
        with pytest.raises(PublishError, match="version 2 went live while a bundle was made from version 1"):
            versions.publish(staged, tmp_path, expected=1)
        assert check(tmp_path) == 2
        versions.publish(staged, tmp_path, expected=2)
    assert Manifest.read(versions.resolve(tmp_path)).sequence == 3


def test_a_full_disk_publishes_nothing_and_recovers(tmp_path: Path, template: Path) -> None:
    publish_random(tmp_path, Manifest.read(template))
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.argv[1:1] = [];"
        "from pathlib import Path; from tests.bundle.publisher import *;"
        "publish_random(Path(sys.argv[1]), Manifest.read(Path(sys.argv[2])))"
    )
    child = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path), str(template)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 1
    assert "File too large" in child.stderr
    assert check(tmp_path) == 1
    assert list((tmp_path / "staging").iterdir()) == []
    publish_random(tmp_path, Manifest.read(template))
    assert check(tmp_path) == 2


def test_an_unwritable_root_is_a_publish_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="no folder to write the bundle into"), versions.staging(tmp_path / "file" / "root"):
        raise AssertionError


@pytest.mark.parametrize("name", ["../../etc", "/etc", "1-abc", "", "000001-0000000g", "000001-00000000/..", "x" * 300, "\0"])
def test_current_must_name_a_version(tmp_path: Path, name: str) -> None:
    (tmp_path / "CURRENT").write_text(name)
    with pytest.raises(BundleError, match="is not a name of a version"):
        versions.resolve(tmp_path)


def test_current_must_name_a_version_that_exists(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "CURRENT").write_text("000001-00000000\n")
    with pytest.raises(BundleError, match="000001-00000000 does not exist"):
        versions.resolve(tmp_path)
    (tmp_path / "versions" / "000001-00000000").symlink_to("/tmp")
    with pytest.raises(BundleError, match="000001-00000000 does not exist"):
        versions.resolve(tmp_path)


def test_a_folder_that_is_neither_root_nor_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="neither a bundle nor a folder of published versions"):
        versions.resolve(tmp_path)
    with pytest.raises(BundleError, match="neither"):
        versions.resolve(tmp_path / "missing")
