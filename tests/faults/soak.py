"""A long time of everything at once: requests, changes, and versions that come and go."""

import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from serving.closed import closed_load

from recall.errors import PublishBusyError
from recall.publish.compact import compact
from tests.faults.asking import Asking
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import ask, post, request
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Oracle
from tests.faults.servers import Server
from tests.faults.upserts import some_items, upsert

USERS = [str(number) for number in range(150)]
N = 20
BATCHES = 200
MOST_CHANGED = 2 * BATCHES + BATCHES // 2 + 40
"""Items that are ever given, two new ones a batch and every other time one of the catalogue, or deleted."""


class _Held(NamedTuple):
    """What the server held at one moment."""

    answered: int
    memory: int
    files: int
    overlay: int


def soak(bench: Bench, score: Score) -> None:
    """Case 30."""
    root = bench.root()
    oracle = Oracle(root)
    raws = [post("/v1/recommend", {"user_id": user, "n": N}) for user in USERS]
    trouble: list[str] = []
    with bench.serve(root) as server:
        server.ready()
        held: list[_Held] = []
        answered = 0
        slices = 40
        statuses: dict[int, int] = {}
        changing = partial(_change, bench, server.port, root, oracle, trouble)
        with meanwhile(changing), Asking(server.port, USERS, rate=20, threads=2) as asking:
            while answered < bench.requests:
                part = max(1.0, min(30.0, bench.requests / slices / 1500))
                load = closed_load(server.port, raws, 8, part)
                answered += sum(load.statuses.values())
                for status, count in load.statuses.items():
                    statuses[status] = statuses.get(status, 0) + count
                held.append(_Held(answered, server.memory(), server.files(), _overlay(server)))
        _rebuilt(server, root, oracle, score)
        asking.judge(score, oracle)
        score.runs = answered
        score.failures = sum(count for status, count in statuses.items() if status != 200)
        score.missed += trouble[:5]
    oracle.close()
    late = held[len(held) // 4 :]  # the first quarter fills caches
    memory = np.array([one.memory for one in late], dtype=float)
    opened = np.array([one.files for one in late], dtype=float)
    asked = np.array([one.answered for one in late], dtype=float)
    if len(late) > 2:
        slope = float(np.polyfit(asked / 1e6, memory / 1e6, 1)[0])
        span = float(np.polyfit(asked / 1e6, opened, 1)[0])
        thirds = np.array_split(memory, 3)
        grown = float(np.median(thirds[-1]) / np.median(thirds[0]))
        score.notes.append(
            f"memory {slope:+.1f} MB and descriptors {span:+.2f} for a million requests; the last third holds {grown:.3f} "
            f"times what the first did after warming, {memory[-1] / 1e6:.0f} MB and {opened[-1]:.0f} descriptors at the end"
        )
        score.ask(grown <= 1.05, f"memory of the last third is {grown:.2f} times that of the first after warming")
        many = float(np.median(opened))
        score.ask(opened[-1] <= many + 8, f"{opened[-1]:.0f} descriptors at the end, {many:.0f} in the middle")
    most = max(one.overlay for one in held)
    score.ask(most <= MOST_CHANGED, f"{most:,} items lay over a version, {MOST_CHANGED:,} were ever changed")
    score.notes.append(
        f"{answered:,} requests answered in all; at most {most:,} items lay over a version, of {MOST_CHANGED:,} that may change"
    )


def _rebuilt(server: Server, root: Path, oracle: Oracle, score: Score) -> None:
    """Answers while changes lie over a version, beside those after all of them are built into a version of its own."""
    live = _asked(server, oracle, score)
    report = compact(root)
    if report is not None:
        server.serves(report.folder.name, 60)
    built = _asked(server, oracle, score)
    left = _overlay(server)
    score.ask(left == 0, f"{left} items lie over a version that all changes are built into")
    score.ask(live >= built - 0.005, f"recall is {live:.4f}, {built:.4f} by a rebuilt index")
    score.notes.append(
        f"recall@{N} of {len(USERS)} lists at the end: {live:.4f}, {100 * (live - built):+.2f} points beside a rebuilt index "
        "(-0.5 are let pass)"
    )


def _asked(server: Server, oracle: Oracle, score: Score) -> float:
    found = []
    for user in USERS:
        answer = server.post("/v1/recommend", {"user_id": user, "n": N}).json
        if fault := oracle.fault(answer, user, N):
            score.wrong += 1
            score.missed.append(f"wrong: {fault}")
        found.append(oracle.recall(answer, user, N))
    return float(np.mean(found))


def _overlay(server: Server) -> int:
    metrics = server.get("/metrics").body.decode()
    lying = [line for line in metrics.splitlines() if line.startswith("recall_overlay_items")]
    return max((int(float(line.split()[-1])) for line in lying), default=0)


def _change(bench: Bench, port: int, root: Path, oracle: Oracle, trouble: list[str], stop: threading.Event) -> None:
    """Change items all the while, and publish a version now and then: every third has all changes built into it."""
    number, published, due = 0, 0, time.monotonic() + 5
    while not stop.wait(0.2):
        changes = some_items("soak", number % BATCHES)
        with suppress(OSError):
            answer = ask(port, upsert(changes, f"soak-{number}"))
            if answer.status == 200:
                oracle.changed(answer.json["sequence"], changes)
            else:
                trouble.append(f"a change: {answer.status} {answer.body[:200]!r}")
        if number % 10 == 9:
            interactions = [{"user_id": f"soaked {number % 200}", "item_id": str(number % 1000)}]
            ask(port, post("/v1/interactions", {"interactions": interactions}))
        if number % 25 == 24:
            item = str(number % 1000)
            gone = ask(port, request("DELETE", f"/v1/items/{item}", idempotency_key=f"gone-{number}"))
            if gone.status == 200:
                oracle.changed(gone.json["sequence"], {item: None})
        if time.monotonic() > due:
            published += 1
            if published % 3 == 0:
                with suppress(PublishBusyError):  # the service does the same when much has changed
                    compact(root)
            else:
                bench.shop.publish(root, published % 2)
            due = time.monotonic() + (3 if bench.quick else 10)
        number += 1


CASES = [
    Case(
        30,
        "a long time of everything at once",
        "requests as fast as they are answered, changes of items and users all the while; every 10 s a version, or a rebuild",
        "lost 0, wrong 0, memory of the last third within 5 % of the first after warming; descriptors flat, no more over a "
        "version than was changed; recall at most half a point below that of a rebuilt index",
        soak,
    ),
]
