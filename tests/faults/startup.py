"""Startup with a corrupt live version."""

import threading
import time
from contextlib import suppress
from functools import partial

from recall.bundle import files, versions
from recall.bundle.manifest import MANIFEST
from tests.faults.background import in_background
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import wait_for
from tests.faults.oracle import Oracle
from tests.faults.servers import Server


def at_cold_start(bench: Bench, score: Score) -> None:
    """Case 8."""
    restarts: list[int] = []
    took: list[float] = []
    for workers in ("1", "2"):
        for name in (files.INDEX, files.ITEM_VECTORS, MANIFEST, files.USERS, versions.CURRENT)[: bench.many(3, 5)]:
            _one_damaged(bench, score, name, workers, restarts, took)
        _none_good(bench, score, workers, restarts)
    most = max(restarts)
    score.require(most <= 1, f"a process was restarted {most} times")
    score.notes.append(
        f"ready after {min(took):.1f} to {max(took):.1f} s; at most {most} restarts of a process in each of "
        f"{len(restarts)} starts, with one process and with two workers"
    )


def _one_damaged(bench: Bench, score: Score, name: str, workers: str, restarts: list[int], took: list[float]) -> None:
    root = bench.root(2)
    good, bad = versions.versions(root)
    path = root / name if name == versions.CURRENT else bad / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    oracle = Oracle(root)
    counter = RestartCounter()
    with bench.serve(root, "--workers", workers) as server, in_background(partial(counter.watch, server)):
        ready = wait_for(server.port, "/health/ready", 200, 60)
        took.append(time.perf_counter() - server.started)
        score.recovered(took[-1])
        degraded = [one["part"] for one in ready.json["degraded"]]
        score.record(degraded == ["bundle"], f"{name} is corrupt, {workers} workers: readiness reports {ready.body[:300]!r}")
        answer = server.post("/v1/recommend", {"user_id": "3", "n": 20}).json
        if fault := oracle.fault(answer, "3", 20):
            score.wrong += 1
            score.unmet.append(f"wrong: {fault}")
        # if CURRENT itself is corrupt, the newest good version is served
        score.require(name == versions.CURRENT or answer["bundle"] == good.name, f"{answer['bundle']} is served")
        score.require(
            [one["part"] for one in answer["degraded"]] == ["bundle"],
            f"{name}: `degraded` of the answer does not name the bundle",
        )
        score.require("refused" in server.log.read_text(), "the log does not report the refused version")
        time.sleep(1)
    restarts.append(counter.restarts)
    oracle.close()


def _none_good(bench: Bench, score: Score, workers: str, restarts: list[int]) -> None:
    root = bench.root()
    path = versions.versions(root)[0] / files.INDEX
    path.write_bytes(b"")
    counter = RestartCounter()
    with bench.serve(root, "--workers", workers) as server, in_background(partial(counter.watch, server)):
        live = wait_for(server.port, "/health/live", 200, 60)
        time.sleep(bench.many(2, 30))  # long enough for repeated crashes
        ready = server.get("/health/ready")
        asked = server.post("/v1/recommend", {})
        seen = (live.status, ready.status, asked.status, asked.retry_later, counter.restarts)
        score.record(
            seen == (200, 503, 503, True, 0),
            f"no good version, {workers} workers: statuses of live, ready and recommend, Retry-After, restarts: {seen}",
        )
        bench.shop.publish(root, 1)
        began = time.perf_counter()
        wait_for(server.port, "/health/ready", 200, 30)
        score.recovered(time.perf_counter() - began)
    restarts.append(counter.restarts)


class RestartCounter:
    """Counts how often processes of a server end or are replaced.

    Attributes:
        restarts: number of processes that ended or were replaced.
        samples: how often the processes were listed.
    """

    def __init__(self) -> None:
        self.restarts = self.samples = 0

    def watch(self, server: Server, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        before: set[int] = set()
        while not stop.wait(0.02):
            if server.process.poll() is not None:
                self.restarts += 1
                return
            with suppress(OSError):
                now = set(server.children())
                self.restarts += len(before - now)
                before = now
                self.samples += 1


CASES = [
    Case(
        8,
        "the live version is corrupt at startup",
        "a file of the live version, or CURRENT, is truncated by half; no version is good; one process, and two workers",
        "the last good version is served, and `degraded` in readiness and answers reports it; with no good version "
        "liveness is 200 "
        "and readiness 503 until one is published; no process restarts more than once",
        at_cold_start,
    ),
]
