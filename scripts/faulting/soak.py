"""A long time of everything at once: requests, changes, and versions that come and go."""

import threading
import time
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from serving.closed import closed_load

from faulting.asking import Asking
from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.http import post
from faulting.oracle import Oracle
from faulting.upserts import some_items, upsert

USERS = [str(number) for number in range(150)]


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
    raws = [post("/v1/recommend", {"user_id": user, "n": 20}) for user in USERS]
    stop = threading.Event()
    trouble: list[str] = []
    with bench.serve(root) as server:
        server.ready()
        changing = threading.Thread(target=_change, args=(bench, server.port, root, oracle, stop, trouble))
        held: list[_Held] = []
        changing.start()
        answered = 0
        slices = 40
        statuses: dict[int, int] = {}
        try:
            with Asking(server.port, USERS, rate=20, threads=2) as asking:
                while answered < bench.requests:
                    part = max(1.0, min(30.0, bench.requests / slices / 1500))
                    load = closed_load(server.port, raws, 8, part)
                    answered += sum(load.statuses.values())
                    for status, count in load.statuses.items():
                        statuses[status] = statuses.get(status, 0) + count
                    metrics = server.get("/metrics").body.decode()
                    lying = [line for line in metrics.splitlines() if line.startswith("recall_overlay_items")]
                    overlay = max((int(float(line.split()[-1])) for line in lying), default=0)
                    held.append(_Held(answered, server.memory(), server.files(), overlay))
        finally:
            stop.set()
            changing.join()
        asking.judge(score, oracle)
        score.runs = answered
        score.failures = sum(count for status, count in statuses.items() if status != 200)
        score.missed += trouble[:5]
    oracle.close()
    late = held[len(held) // 4 :]  # the first quarter fills caches
    memory = np.array([one.memory for one in late], dtype=float)
    files = np.array([one.files for one in late], dtype=float)
    asked = np.array([one.answered for one in late], dtype=float)
    if len(late) > 2:
        slope = float(np.polyfit(asked / 1e6, memory / 1e6, 1)[0])
        span = float(np.polyfit(asked / 1e6, files, 1)[0])
        thirds = np.array_split(memory, 3)
        grown = float(np.median(thirds[-1]) / np.median(thirds[0]))
        score.notes.append(
            f"memory {slope:+.1f} MB and descriptors {span:+.2f} for a million requests; {memory[-1] / 1e6:.0f} MB at the end"
        )
        score.ask(grown <= 1.05, f"memory of the last third is {grown:.2f} times that of the first after warming")
        score.ask(
            files[-1] <= np.median(files) + 8, f"{files[-1]:.0f} descriptors at the end, {np.median(files):.0f} in the middle"
        )
    most = max(one.overlay for one in held)
    score.notes.append(f"{answered:,} requests answered in all; at most {most:,} items lay over a version")


def _change(bench: Bench, port: int, root: object, oracle: Oracle, stop: threading.Event, trouble: list[str]) -> None:
    """Change items all the while, and publish a version now and then."""
    from pathlib import Path

    from faulting.http import ask, request

    number, due = 0, time.monotonic() + 5
    assert isinstance(root, Path)
    while not stop.wait(0.2):
        changes = some_items("soak", number % 50)
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
            gone = ask(port, request("DELETE", f"/v1/items/{number % 1000}", idempotency_key=f"gone-{number}"))
            if gone.status == 200:
                oracle.changed(gone.json["sequence"], {str(number % 1000): None})
        if time.monotonic() > due:
            bench.shop.publish(root, number % 2)
            due = time.monotonic() + 10
        number += 1


CASES = [
    Case(
        30,
        "a long time of everything at once",
        "requests as fast as they are answered, changes of items and users all the while, a version every 10 s",
        "lost 0, wrong 0, memory of the last third within 5 % of the first after warming; descriptors flat, the overlay small",
        soak,
    ),
]
