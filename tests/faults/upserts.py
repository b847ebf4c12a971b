"""Crashes of the service while items are changed: acknowledged changes must survive."""

import threading
import time
from urllib.parse import quote

from serving.processes import free_port

from tests.faults.background import in_background
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import Answer, ask, post
from tests.faults.oracle import Changes, Oracle
from tests.faults.servers import Server
from tests.faults.shop import GENRES

USERS = [str(number) for number in range(1, 150, 4)]
_FIRST = 60  # seconds within which a change must have been acknowledged


class Upserter:
    """Sends batches of changes at a constant rate, each with its own idempotency key.

    Attributes:
        acknowledged: sequence and items of every change answered with 200, by idempotency key.
        unanswered: the other changes, by idempotency key.
    """

    def __init__(self, port: int, prefix: str, rate: float) -> None:
        self.acknowledged: dict[str, tuple[int, Changes]] = {}
        self.unanswered: dict[str, Changes] = {}
        self.refused: list[Answer] = []
        self._port, self._prefix, self._rate = port, prefix, rate

    def change(self, stop: threading.Event) -> None:
        """Send changes until `stop` is set."""
        number = 0
        while not stop.is_set():
            began = time.perf_counter()
            key, changes = f"{self._prefix}-{number}", some_items(self._prefix, number)
            try:
                answer = ask(self._port, upsert(changes, key))
            except OSError:
                self.unanswered[key] = changes
                if stop.wait(0.01):
                    break
            else:
                if answer.status == 200:
                    self.acknowledged[key] = (answer.json["sequence"], changes)
                else:
                    self.unanswered[key] = changes
                    self.refused.append(answer)
            number += 1
            stop.wait(max(0.0, 1 / self._rate - (time.perf_counter() - began)))


def some_items(prefix: str, number: int) -> Changes:
    """Build a batch of two new items; every second batch also replaces an item of the catalogue."""
    genre = GENRES[number % len(GENRES)]
    items: dict[str, dict[str, object]] = {
        f"{prefix}/{number}/{at}": {"genre": genre, "price": float(number % 50 + at)} for at in range(2)
    }
    if number % 2:
        items[str(number % 1000)] = {"genre": genre, "price": float(number % 37)}
    return items


def upsert(changes: Changes, key: str) -> bytes:
    """Build the request that upserts items."""
    items = [{"item_id": item_id, "features": values} for item_id, values in changes.items()]
    return post("/v1/items:upsert", {"items": items}, idempotency_key=key)


def killed_while_changing(bench: Bench, score: Score) -> None:
    """Case 3."""
    root, port = bench.root(), free_port()
    oracle = Oracle(root)
    upserted: set[str] = set()
    upserter: Upserter | None = None
    loads = []
    for number in range(bench.many(5, 50)):
        with bench.serve(root, port=port) as server:
            server.ready()
            loads.append(time.perf_counter() - server.started)
            if upserter is not None:
                _check_after_kill(server, score, oracle, upserter, upserted, bench)
            upserter = Upserter(port, f"new-{number}", 1000)
            with in_background(upserter.change):
                deadline = time.monotonic() + _FIRST
                while not upserter.acknowledged and time.monotonic() < deadline:  # even on a busy machine
                    time.sleep(0.01)
                time.sleep(bench.random.uniform(0.0, 0.6) if bench.quick else bench.random.uniform(2, 5))
                server.kill()
        score.record(bool(upserter.acknowledged), "no change was acknowledged before the kill")
    assert upserter is not None
    with bench.serve(root, port=port) as server:
        server.ready()
        loads.append(time.perf_counter() - server.started)
        _check_after_kill(server, score, oracle, upserter, upserted, bench, sample=200)
    oracle.close()
    score.require(bool(upserted), "no item was upserted")
    for seconds in loads[1:]:
        score.recovered(seconds)
    score.require(
        score.recovery <= bench.within(2 + loads[0]),
        f"ready after {score.recovery:.1f} s; the first start, without changes, took {loads[0]:.1f} s",
    )
    score.notes.append(f"{len(upserted):,} items were upserted; the first start, without changes, took {loads[0]:.1f} s")


def _check_after_kill(
    server: Server,
    score: Score,
    oracle: Oracle,
    upserter: Upserter,
    upserted: set[str],
    bench: Bench,
    sample: int = 50,
) -> None:
    """Check that acknowledged changes are present and that retries, with the same key, are applied once."""
    for sequence, changes in upserter.acknowledged.values():
        oracle.changed(sequence, changes)
        upserted.update(changes)
    for item_id in bench.random.sample(sorted(upserted), min(sample, len(upserted))):
        if server.get(f"/v1/items/{quote(item_id, safe='')}").status != 200:
            score.lost_ack += 1
    for key, changes in list(upserter.unanswered.items())[:2]:
        first, second = (server.ask(upsert(changes, key)) for _ in range(2))
        same = first.status == second.status == 200 and first.json["sequence"] == second.json["sequence"]
        score.require(same, f"a retried change: {first.status} {second.status} {second.body[:200]!r}")
        if same:
            oracle.changed(first.json["sequence"], changes)
    for key, (sequence, changes) in list(upserter.acknowledged.items())[-2:]:
        again = server.ask(upsert(changes, key))
        score.require(
            again.status == 200 and again.json["sequence"] == sequence,
            f"an acknowledged change was applied twice: {again.body[:200]!r}",
        )
    unknown = list(upserter.unanswered)[2:]
    for user in USERS[:5] if not unknown else ():  # an unanswered change may have been applied with an unknown sequence
        answer = server.post("/v1/recommend", {"user_id": user, "n": 50}).json
        if fault := oracle.fault(answer, user, 50):
            score.wrong += 1
            score.unmet.append(f"wrong: {fault}")


CASES = [
    Case(
        3,
        "kill -9 during upserts",
        "SIGKILL, repeatedly, to a service that receives up to 1,000 upserts a second",
        "every acknowledged change is present after restart, and a retried one is applied once; "
        "ready within 2 s more than the first start",
        killed_while_changing,
        fast=True,
    ),
]
