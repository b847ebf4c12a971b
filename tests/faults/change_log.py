"""Loss of the change log under a running service, copies of a root, and versions from another root."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from recall.publish.adopt import adopt
from recall.publish.backup import backup
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.store.items.log import JOURNAL
from recall.store.items.log_position import MARK
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.servers import Server

_WITHIN = 1.0  # seconds within which `degraded` must report the fault


def log_lost(bench: Bench, score: Score) -> None:
    """Case 31."""
    for workers in (1, 2):
        for fault in (_removed, _older_copy, _created_by_another_process, _emptied):
            root = bench.root()
            with bench.serve(root, "--workers", str(workers), "--write-back", "2") as server:
                server.ready()
                acknowledged = _change(server, "first", 5)
                copy = bench.place("copy")
                _copy(root / JOURNAL, copy)
                acknowledged |= _change(server, "second", 5)
                fault(root, copy)
                reported = _until(lambda server=server: bool(_degraded(server)), bench.within(_WITHIN))  # type: ignore[misc]
                score.record(reported, f"{fault.__name__[1:]}, {workers} workers: `degraded` is empty")
                acknowledged |= _change(server, "third", 1)
                recovered = _until(lambda server=server: not any(_degraded(server) for _ in range(20)), bench.within(20))  # type: ignore[misc]
                score.record(recovered, f"{fault.__name__[1:]}, {workers} workers: still degraded: {_degraded(server)}")
                _check_present(score, acknowledged, lambda ids, server=server: _served(server, ids), fault.__name__[1:])  # type: ignore[misc]
            _check_present(
                score, acknowledged, lambda ids, root=root: _stored(root, ids), f"{fault.__name__[1:]}, after restart"
            )  # type: ignore[misc]


def root_copied(bench: Bench, score: Score) -> None:
    """Case 32."""
    for number in range(bench.many(2, 10)):
        root = bench.root()
        with bench.serve(root) as server:
            server.ready()
            acknowledged = _change(server, f"copied {number}", 7)
            incomplete, complete = bench.place("incomplete"), bench.place("complete")
            shutil.copytree(root, incomplete, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
            backup(root, complete)
        with bench.serve(incomplete) as server:
            missing = not _served(server.ready(), acknowledged)
            score.record(not missing or bool(_degraded(server)), "a copy without the -wal file is not reported as incomplete")
        with bench.serve(complete) as server:
            score.record(not _degraded(server.ready()), "a backup is reported as degraded")
            _check_present(score, acknowledged, lambda ids, server=server: _served(server, ids), "backup")  # type: ignore[misc]


def from_elsewhere(bench: Bench, score: Score) -> None:
    """Case 33."""
    for by_hand in (False, True):
        for compacted in (False, True):
            root, other = bench.root(), bench.root()
            with bench.serve(root) as server:
                server.ready()
                acknowledged = _change(server, "kept", 5)
                if compacted:
                    compact(root)
                if by_hand:
                    version = max((other / "versions").iterdir()).name
                    shutil.copytree(other / "versions" / version, root / "versions" / f"{version}", dirs_exist_ok=True)
                    answer = server.post(f"/v1/models/{version}:activate", b"")
                    score.record(answer.status == 200, f"activation: {answer.status} {answer.body[:200]!r}")
                else:
                    version = adopt(other, root).folder.name
                server.serves(version, bench.within(10))
                _check_present(score, acknowledged, lambda ids, server=server: _served(server, ids), version)  # type: ignore[misc]


def _removed(root: Path, _copy: Path) -> None:
    for file in root.glob(f"{JOURNAL}*"):
        file.unlink()


def _older_copy(root: Path, copy: Path) -> None:
    _removed(root, copy)
    shutil.copy(copy, root / JOURNAL)


def _created_by_another_process(root: Path, copy: Path) -> None:
    _removed(root, copy)
    (root / MARK).unlink()
    other = Recommender.load(root)
    other.items.upsert({"other": {}})
    other.close()


def _emptied(root: Path, copy: Path) -> None:
    _removed(root, copy)
    (root / JOURNAL).touch()
    time.sleep(0.1)
    (root / JOURNAL).unlink()


def _copy(source: Path, to: Path) -> None:
    read, written = sqlite3.connect(source), sqlite3.connect(to)
    read.backup(written)
    written.close()
    read.close()


def _change(server: Server, name: str, count: int) -> set[str]:
    ids = {f"{name} {number}" for number in range(count)}
    for one in sorted(ids):
        answer = server.post("/v1/items:upsert", {"items": [{"item_id": one, "features": {}}]})
        if answer.status != 200:
            raise RuntimeError(f"an upsert was answered {answer.status}: {answer.body[:200]!r}")
    return ids


def _degraded(server: Server) -> list[str]:
    return [one["reason"] for one in server.get("/health/ready").json["degraded"]]


def _served(server: Server, ids: set[str]) -> bool:
    return all(server.get(f"/v1/items/{one.replace(' ', '%20')}").status == 200 for one in ids)


def _stored(root: Path, ids: set[str]) -> bool:
    loaded = Recommender.load(root)
    try:
        return bool((loaded.items.current().rows(sorted(ids)) >= 0).all())
    finally:
        loaded.close()


def _check_present(score: Score, ids: set[str], there: Callable[[set[str]], bool], where: str) -> None:
    lost = {one for one in ids if not there({one})}
    score.lost_ack += len(lost)
    score.record(not lost, f"{where}: acknowledged changes are missing: {sorted(lost)[:3]}")


def _until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return true()


CASES = [
    Case(
        31,
        "the change log is lost under a running service",
        "the log is removed, replaced by an older copy or by one that another process created, or emptied; one process, and "
        "two workers",
        "`degraded` reports it within a second and clears again; no acknowledged change is lost, also after a restart",
        log_lost,
    ),
    Case(
        32,
        "a root is copied while it is served",
        "copies without the -wal files, and `recall backup`",
        "an incomplete copy is reported as degraded; a backup is complete and can be served",
        root_copied,
        fast=True,
    ),
    Case(
        33,
        "a version from another root",
        "`recall publish`, and a folder copied by hand and activated over HTTP; before and after compaction",
        "the version is served with every live change of this root on top",
        from_elsewhere,
        fast=True,
    ),
]
