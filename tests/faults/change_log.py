"""Loss of the change log under a running service, copies of a root, and versions from another root."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from recall.publish.backup import backup
from recall.publish.derived import adopt, compact
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
        for fault in (removed, older_copy, _created_by_another_process, _emptied):
            root, named = bench.root(), fault.__name__.strip("_")
            with bench.serve(root, "--workers", str(workers), "--write-back", "2") as server:
                server.ready()
                acknowledged = change(server, "first", 5)
                copy = bench.place("copy")
                copy_of(root / JOURNAL, copy)
                acknowledged |= change(server, "second", 5)
                fault(root, copy)
                reported = until(partial(is_degraded, server), bench.within(_WITHIN))
                score.record(reported, f"{fault.__name__.strip('_')}, {workers} workers: `degraded` is empty")
                acknowledged |= change(server, "third", 1)
                recovered = until(partial(_recovered, server), bench.within(20))
                score.record(recovered, f"{fault.__name__.strip('_')}, {workers} workers: still degraded: {degraded(server)}")
                check_present(score, acknowledged, partial(served, server), named)
            check_present(score, acknowledged, partial(stored, root), f"{named}, after restart")


def root_copied(bench: Bench, score: Score) -> None:
    """Case 32."""
    for number in range(bench.many(2, 10)):
        root = bench.root()
        with bench.serve(root) as server:
            server.ready()
            acknowledged = change(server, f"copied {number}", 7)
            incomplete, complete = bench.place("incomplete"), bench.place("complete")
            shutil.copytree(root, incomplete, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
            backup(root, complete)
        with bench.serve(incomplete) as server:
            missing = not served(server.ready(), acknowledged)
            score.record(not missing or bool(degraded(server)), "a copy without the -wal file is not reported as incomplete")
        with bench.serve(complete) as server:
            score.record(not degraded(server.ready()), "a backup is reported as degraded")
            check_present(score, acknowledged, partial(served, server), "backup")


def from_elsewhere(bench: Bench, score: Score) -> None:
    """Case 33."""
    for by_hand in (False, True):
        for compacted in (False, True):
            root, other = bench.root(), bench.root()
            with bench.serve(root) as server:
                server.ready()
                acknowledged = change(server, "kept", 5)
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
                check_present(score, acknowledged, partial(served, server), version)


def removed(root: Path, _copy: Path) -> None:
    """Remove the log."""
    for file in root.glob(f"{JOURNAL}*"):
        file.unlink()


def older_copy(root: Path, copy: Path) -> None:
    """Replace the log by an older copy."""
    removed(root, copy)
    shutil.copy(copy, root / JOURNAL)


def _created_by_another_process(root: Path, copy: Path) -> None:
    removed(root, copy)
    (root / MARK).unlink()
    other = Recommender.load(root)
    other.items.upsert({"other": {}})
    other.close()


def _emptied(root: Path, copy: Path) -> None:
    removed(root, copy)
    (root / JOURNAL).touch()
    time.sleep(0.1)
    (root / JOURNAL).unlink()


def copy_of(source: Path, to: Path) -> None:
    """Copy a SQLite file, with what is in its -wal."""
    read, written = sqlite3.connect(source), sqlite3.connect(to)
    read.backup(written)
    written.close()
    read.close()


def change(server: Server, name: str, count: int) -> set[str]:
    """Upsert items one by one; return their ids."""
    ids = {f"{name} {number}" for number in range(count)}
    for one in sorted(ids):
        answer = server.post("/v1/items:upsert", {"items": [{"item_id": one, "features": {}}]})
        if answer.status != 200:
            raise RuntimeError(f"an upsert was answered {answer.status}: {answer.body[:200]!r}")
    return ids


def degraded(server: Server) -> list[str]:
    """Return the reasons that readiness reports."""
    return [one["reason"] for one in server.get("/health/ready").json["degraded"]]


def is_degraded(server: Server) -> bool:
    """Whether readiness reports a reason."""
    return bool(degraded(server))


def _recovered(server: Server) -> bool:
    """Whether no worker reports a reason: 20 requests reach all of them."""
    return not any(degraded(server) for _ in range(20))


def served(server: Server, ids: set[str]) -> bool:
    """Whether all items are served."""
    return all(server.get(f"/v1/items/{one.replace(' ', '%20')}").status == 200 for one in ids)


def stored(root: Path, ids: set[str]) -> bool:
    """Whether a new process serves all items of a root."""
    loaded = Recommender.load(root)
    try:
        return bool((loaded.items.current().rows(sorted(ids)) >= 0).all())
    finally:
        loaded.close()


def check_present(score: Score, ids: set[str], there: Callable[[set[str]], bool], where: str) -> None:
    """Count acknowledged items that are missing."""
    lost = {one for one in ids if not there({one})}
    score.lost_ack += len(lost)
    score.record(not lost, f"{where}: acknowledged changes are missing: {sorted(lost)[:3]}")


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; return whether it did."""
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
