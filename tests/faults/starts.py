"""What a service starts with when its live version is damaged."""

import threading
import time
from contextlib import suppress
from functools import partial

from recall.bundle import files, versions
from recall.bundle.manifest import MANIFEST
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import wait_for
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Oracle
from tests.faults.servers import Server


def at_cold_start(bench: Bench, score: Score) -> None:
    """Case 8."""
    begun: list[int] = []
    took: list[float] = []
    for workers in ("1", "2"):
        for name in (files.INDEX, files.ITEM_VECTORS, MANIFEST, files.USERS, versions.CURRENT)[: bench.many(3, 5)]:
            _one_damaged(bench, score, name, workers, begun, took)
        _none_good(bench, score, workers, begun)
    most = max(begun)
    score.ask(most <= 1, f"a process was started again {most} times")
    score.notes.append(
        f"ready within {max(took):.1f} s of the start, {min(took):.1f} s at best; processes that ended or were started again: "
        f"{most} at most in each of {len(begun)} starts, with one process and with two workers"
    )


def _one_damaged(bench: Bench, score: Score, name: str, workers: str, begun: list[int], took: list[float]) -> None:
    root = bench.root(2)
    good, bad = versions.versions(root)
    path = root / name if name == versions.CURRENT else bad / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    oracle = Oracle(root)
    counting = Counting()
    with bench.serve(root, "--workers", workers) as server, meanwhile(partial(counting.look, server)):
        ready = wait_for(server.port, "/health/ready", 200, 60)
        took.append(time.perf_counter() - server.started)
        score.recovered(took[-1])
        told = [one["part"] for one in ready.json["degraded"]]
        score.ran(told == ["bundle"], f"{name} is damaged, {workers} workers: ready says {ready.body[:300]!r}")
        answer = server.post("/v1/recommend", {"user_id": "3", "n": 20}).json
        if fault := oracle.fault(answer, "3", 20):
            score.wrong += 1
            score.missed.append(f"wrong: {fault}")
        # where CURRENT itself is damaged the newest good version is served
        score.ask(name == versions.CURRENT or answer["bundle"] == good.name, f"{answer['bundle']} is served")
        score.ask([one["part"] for one in answer["degraded"]] == ["bundle"], f"{name}: the answer does not say so")
        score.ask("refused" in server.log.read_text(), "the log does not say so")
        time.sleep(1)
    begun.append(counting.again)
    oracle.close()


def _none_good(bench: Bench, score: Score, workers: str, begun: list[int]) -> None:
    root = bench.root()
    path = versions.versions(root)[0] / files.INDEX
    path.write_bytes(b"")
    counting = Counting()
    with bench.serve(root, "--workers", workers) as server, meanwhile(partial(counting.look, server)):
        live = wait_for(server.port, "/health/live", 200, 60)
        time.sleep(bench.many(2, 30))  # long enough for a crash and another
        ready = server.get("/health/ready")
        asked = server.post("/v1/recommend", {})
        seen = (live.status, ready.status, asked.status, asked.come_back, counting.again)
        score.ran(seen == (200, 503, 503, True, 0), f"none is good, {workers} workers: live, ready, asked and restarts {seen}")
        bench.shop.publish(root, 1)
        began = time.perf_counter()
        wait_for(server.port, "/health/ready", 200, 30)
        score.recovered(time.perf_counter() - began)
    begun.append(counting.again)


class Counting:
    """Counts processes of a server that end, or are started in the place of others, as long as it looks.

    Attributes:
        again: how many there were.
        looks: how often it has looked.
    """

    def __init__(self) -> None:
        self.again = self.looks = 0

    def look(self, server: Server, stop: threading.Event) -> None:
        """Until it is told to stop."""
        before: set[int] = set()
        while not stop.wait(0.02):
            if server.process.poll() is not None:
                self.again += 1
                return
            with suppress(OSError):
                now = set(server.children())
                self.again += len(before - now)
                before = now
                self.looks += 1


CASES = [
    Case(
        8,
        "the live version is damaged when the service starts",
        "a file of it, or CURRENT, is cut in half; all versions are; with one process and with two workers",
        "the last good version is served, ready and answers say so; with none live is 200, ready 503, until one is published; "
        "no process is started again more than once",
        at_cold_start,
    ),
]
