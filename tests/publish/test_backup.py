"""Backups of a served root are complete, consistent and ready to be served."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve
from recall.errors import BundleError, PublishError
from recall.publish.backup import backup
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.users.profiles import User
from recall.store.users.sqlite import USERS_LIVE, USERS_MARK, SqliteLiveUsers

EVERYTHING = Request("u1", n=1000, exclude_seen=False)
WRITER = """
import itertools, sys
from recall import Recommender, User

live = Recommender.load(sys.argv[1])
for number in itertools.count(1):
    live.items.upsert({f"new {number % 5}": {"price": float(number)}})
    live.users.upsert([User("u1", history=[f"i{number % 9}"])])
    print(number, flush=True)
"""


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


def test_a_backup_is_complete_can_be_served_and_changed(root: Path, tmp_path: Path) -> None:
    live = Recommender.load(root)
    live.items.upsert({"fresh": {"price": 2.0}})
    live.items.delete(["i1"])
    compact(root)
    live.items.delete(["i2"])
    live.users.upsert([User("u1", history=["i7"])])
    expected = live.recommend(EVERYTHING)
    report = backup(root, tmp_path / "copies" / "today")
    live.items.delete(["i3"])
    assert (report.live, report.versions) == (resolve(root).name, 2)
    assert report.changes == 3
    assert report.users == 1
    version = resolve(report.folder)
    assert report.linked == sum(len(list(one.iterdir())) for one in version.parent.iterdir())
    assert os.path.samefile(version / "items.parquet", resolve(root) / "items.parquet")
    copy = Recommender.load(report.folder)
    answer = copy.recommend(EVERYTHING)
    assert sorted(answer.ids) == sorted(expected.ids)
    assert not answer.degraded
    record = copy.users.get("u1")
    assert record is not None
    assert record.history[0] == "i7"
    assert copy.items.delete(["i5"]).sequence == 4
    copy.close()
    assert "i5" in live.recommend(EVERYTHING).ids  # the root has its own log
    live.close()
    assert not list(report.folder.parent.glob(".*"))


def test_a_backup_has_the_scenarios_and_the_key_of_tokens(root: Path, tmp_path: Path) -> None:
    (root / "scenarios.toml").write_text("[home]\nn = 3\n")
    (root / ".token-key").touch(0o600)
    (root / ".token-key").write_text("0123456789abcdef")
    copy = backup(root, tmp_path / "copy").folder
    assert (copy / "scenarios.toml").read_text() == "[home]\nn = 3\n"
    assert (copy / ".token-key").read_text() == "0123456789abcdef"
    assert (copy / ".token-key").stat().st_mode & 0o777 == 0o600


def test_a_backup_is_consistent_during_writes(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as writer:
        assert writer.stdout is not None
        before = int(writer.stdout.readline())
        reports = [backup(root, tmp_path / f"copy {number}") for number in range(3)]
        writer.send_signal(signal.SIGKILL)
    for report in reports:
        assert min(report.users, report.changes) >= before  # everything acknowledged at its start
        state = SqliteChangeLog(report.folder / JOURNAL).state()
        assert state is not None
        assert state.last == report.changes
        copy = Recommender.load(report.folder)
        assert not copy.recommend(EVERYTHING).degraded
        copy.close()
        load_bundle(report.folder)


def test_nothing_is_overwritten_and_invalid_roots_are_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(PublishError, match="the target already exists"):
        backup(root, tmp_path / "there")
    for inside in (root / "copy", root / "versions" / "copy", tmp_path / "there" / ".." / root.name / "copy"):
        with pytest.raises(PublishError, match="in the folder that it is a copy of"):
            backup(root, inside)
        assert not inside.exists()
    with pytest.raises(BundleError, match="the folder has no published versions"):
        backup(tmp_path / "there", tmp_path / "copy")
    items = resolve(root) / "items.parquet"
    items.write_bytes(items.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="changed after it was written"):
        backup(root, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_a_backup_of_a_degraded_root_reports_its_losses(root: Path, tmp_path: Path) -> None:
    live = Recommender.load(root)
    live.items.upsert({"a": {}})
    live.users.upsert([User("u1", history=["i7"])])
    live.close()
    for file in root.glob(f"{JOURNAL}*"):
        file.unlink()
    (root / USERS_MARK).write_bytes(b"{")
    backup(root, tmp_path / "copy")
    copy = Recommender.load(tmp_path / "copy")
    (degraded,) = copy.recommend(EVERYTHING).degraded
    assert degraded.reason.startswith("the journal is gone, and acknowledged changes up to 1 with it")
    copy.close()
    users = SqliteLiveUsers(tmp_path / "copy" / USERS_LIVE)
    assert users.error().startswith(f"{USERS_MARK} was damaged")
    users.close()
