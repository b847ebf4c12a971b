"""Changes that were acknowledged stay, whatever happens to the process."""

import threading
import time
from urllib.parse import quote

from serving.processes import free_port

from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import Answer, ask, post
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Changes, Oracle
from tests.faults.servers import Server
from tests.faults.shop import GENRES

USERS = [str(number) for number in range(1, 150, 4)]


class Upserting:
    """Adds and deletes items all the while, each change under a key of its own.

    Attributes:
        acknowledged: sequence and items of every change that was answered 2xx, by its key.
        unanswered: those that were not, by their keys.
    """

    def __init__(self, port: int, prefix: str, rate: float) -> None:
        self.acknowledged: dict[str, tuple[int, Changes]] = {}
        self.unanswered: dict[str, Changes] = {}
        self.refused: list[Answer] = []
        self._port, self._prefix, self._rate = port, prefix, rate

    def change(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
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
    """A batch of changes: two new items, and every other time one of the catalogue replaced."""
    genre = GENRES[number % len(GENRES)]
    items: dict[str, dict[str, object]] = {
        f"{prefix}/{number}/{at}": {"genre": genre, "price": float(number % 50 + at)} for at in range(2)
    }
    if number % 2:
        items[str(number % 1000)] = {"genre": genre, "price": float(number % 37)}
    return items


def upsert(changes: Changes, key: str) -> bytes:
    """The request that makes changes."""
    items = [{"item_id": item_id, "features": values} for item_id, values in changes.items()]
    return post("/v1/items:upsert", {"items": items}, idempotency_key=key)


def killed_while_changing(bench: Bench, score: Score) -> None:
    """Case 3."""
    root, port = bench.root(), free_port()
    oracle = Oracle(root)
    everything: set[str] = set()
    upserting: Upserting | None = None
    loads = []
    for number in range(bench.many(5, 50)):
        with bench.serve(root, port=port) as server:
            server.ready()
            loads.append(time.perf_counter() - server.started)
            if upserting is not None:
                _after_the_kill(server, score, oracle, upserting, everything, bench)
            upserting = Upserting(port, f"new-{number}", 1000)
            with meanwhile(upserting.change):
                time.sleep(bench.random.uniform(0.2, 0.8) if bench.quick else bench.random.uniform(2, 5))
                server.kill()
        score.ran(bool(upserting.acknowledged), "nothing was acknowledged before the kill")
    assert upserting is not None
    with bench.serve(root, port=port) as server:
        server.ready()
        loads.append(time.perf_counter() - server.started)
        _after_the_kill(server, score, oracle, upserting, everything, bench, sample=200)
    oracle.close()
    score.ask(bool(everything), "nothing was given")
    for seconds in loads[1:]:
        score.recovered(seconds)
    score.ask(
        score.recovery <= bench.within(2 + loads[0]),
        f"ready after {score.recovery:.1f} s, {loads[0]:.1f} s before anything was changed",
    )
    score.notes.append(f"{len(everything):,} items were given; the first start took {loads[0]:.1f} s")


def _after_the_kill(
    server: Server,
    score: Score,
    oracle: Oracle,
    upserting: Upserting,
    everything: set[str],
    bench: Bench,
    sample: int = 50,
) -> None:
    """Everything that was acknowledged is there, and what was not can be sent again, twice, and is taken once."""
    for sequence, changes in upserting.acknowledged.values():
        oracle.changed(sequence, changes)
        everything.update(changes)
    for item_id in bench.random.sample(sorted(everything), min(sample, len(everything))):
        if server.get(f"/v1/items/{quote(item_id, safe='')}").status != 200:
            score.lost_ack += 1
    for key, changes in list(upserting.unanswered.items())[:2]:
        first, second = (server.ask(upsert(changes, key)) for _ in range(2))
        same = first.status == second.status == 200 and first.json["sequence"] == second.json["sequence"]
        score.ask(same, f"a change that was sent again: {first.status} {second.status} {second.body[:200]!r}")
        if same:
            oracle.changed(first.json["sequence"], changes)
    for key, (sequence, changes) in list(upserting.acknowledged.items())[-2:]:
        again = server.ask(upsert(changes, key))
        score.ask(
            again.status == 200 and again.json["sequence"] == sequence,
            f"an acknowledged change was taken twice: {again.body[:200]!r}",
        )
    known = list(upserting.unanswered)[2:]
    for user in USERS[:5] if not known else ():  # else some changes may be there that nobody knows the sequence of
        answer = server.post("/v1/recommend", {"user_id": user, "n": 50}).json
        if fault := oracle.fault(answer, user, 50):
            score.wrong += 1
            score.missed.append(f"wrong: {fault}")


CASES = [
    Case(
        3,
        "kill -9 while items are changed",
        "SIGKILL to a service that takes up to 1,000 changes a second, again and again",
        "every acknowledged change is there, one that is sent again is taken once; ready within 2 s and the time to load",
        killed_while_changing,
        fast=True,
    ),
]
