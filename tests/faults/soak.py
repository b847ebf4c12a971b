"""Soak test: a long run of requests, live changes and version swaps at the same time."""

import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from serving.closed import closed_load

from recall.errors import PublishBusyError
from recall.publish.derived import compact
from tests.faults.background import in_background
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import ask, post, request
from tests.faults.oracle import Oracle
from tests.faults.servers import Server
from tests.faults.steady_load import SteadyLoad
from tests.faults.upserts import some_items, upsert

USERS = [str(number) for number in range(150)]
N = 20
BATCHES = 200
MOST_CHANGED = 2 * BATCHES + BATCHES // 2 + 40
"""Upper bound for distinct changed items: two new ones a batch, and in every second batch one of the catalogue."""


class _Sample(NamedTuple):
    """Resource usage of the server at one time."""

    answered: int
    memory: int
    files: int
    delta: int


def soak(bench: Bench, score: Score) -> None:
    """Case 30."""
    root = bench.root()
    oracle = Oracle(root)
    raws = [post("/v1/recommend", {"user_id": user, "n": N}) for user in USERS]
    errors: list[str] = []
    with bench.serve(root) as server:
        server.ready()
        samples: list[_Sample] = []
        answered = 0
        slices = 40
        statuses: dict[int, int] = {}
        changing = partial(_change, bench, server.port, root, oracle, errors)
        with in_background(changing), SteadyLoad(server.port, USERS, rate=20, threads=2) as load:
            while answered < bench.requests:
                part = max(1.0, min(30.0, bench.requests / slices / 1500))
                burst = closed_load(server.port, raws, 8, part)
                answered += sum(burst.statuses.values())
                for status, count in burst.statuses.items():
                    statuses[status] = statuses.get(status, 0) + count
                samples.append(_Sample(answered, server.memory(), server.files(), _delta(server)))
        _compare_after_compaction(server, root, oracle, score)
        load.check(score, oracle)
        score.runs = answered
        score.failures = sum(count for status, count in statuses.items() if status != 200)
        score.unmet += errors[:5]
    oracle.close()
    late = samples[len(samples) // 4 :]  # the caches fill during the first quarter
    memory = np.array([one.memory for one in late], dtype=float)
    opened = np.array([one.files for one in late], dtype=float)
    asked = np.array([one.answered for one in late], dtype=float)
    if len(late) > 2:
        slope = float(np.polyfit(asked / 1e6, memory / 1e6, 1)[0])
        span = float(np.polyfit(asked / 1e6, opened, 1)[0])
        thirds = np.array_split(memory, 3)
        grown = float(np.median(thirds[-1]) / np.median(thirds[0]))
        score.notes.append(
            f"memory {slope:+.1f} MB and descriptors {span:+.2f} per million requests; memory of the last third "
            f"{grown:.3f} times "
            f"that of the first after warm-up; {memory[-1] / 1e6:.0f} MB and {opened[-1]:.0f} descriptors at the end"
        )
        score.require(grown <= 1.05, f"memory of the last third is {grown:.2f} times that of the first after warm-up")
        many = float(np.median(opened))
        score.require(opened[-1] <= many + 8, f"{opened[-1]:.0f} descriptors at the end, {many:.0f} in the middle")
    most = max(one.delta for one in samples)
    score.require(
        most <= MOST_CHANGED, f"the delta segment held {most:,} items; only {MOST_CHANGED:,} distinct items were changed"
    )
    score.notes.append(
        f"{answered:,} requests answered in total; at most {most:,} items in the delta segment (limit {MOST_CHANGED:,})"
    )


def _compare_after_compaction(server: Server, root: Path, oracle: Oracle, score: Score) -> None:
    """Compare recall with changes in the delta segment to recall after compaction into a new index."""
    live = _recall(server, oracle, score)
    report = compact(root)
    if report is not None:
        server.serves(report.folder.name, 60)
    built = _recall(server, oracle, score)
    left = _delta(server)
    score.require(left == 0, f"{left} items in the delta segment after compaction")
    score.require(live >= built - 0.005, f"recall is {live:.4f}, and {built:.4f} with a rebuilt index")
    score.notes.append(
        f"recall@{N} of {len(USERS)} lists at the end: {live:.4f}, {100 * (live - built):+.2f} points compared with a "
        "rebuilt index "
        "(limit -0.5)"
    )


def _recall(server: Server, oracle: Oracle, score: Score) -> float:
    found = []
    for user in USERS:
        answer = server.post("/v1/recommend", {"user_id": user, "n": N}).json
        if fault := oracle.fault(answer, user, N):
            score.wrong += 1
            score.unmet.append(f"wrong: {fault}")
        found.append(oracle.recall(answer, user, N))
    return float(np.mean(found))


def _delta(server: Server) -> int:
    metrics = server.get("/metrics").body.decode()
    found = [line for line in metrics.splitlines() if line.startswith("recall_overlay_items")]
    return max((int(float(line.split()[-1])) for line in found), default=0)


def _change(bench: Bench, port: int, root: Path, oracle: Oracle, errors: list[str], stop: threading.Event) -> None:
    """Change items and publish versions until `stop` is set; every third version is a compaction."""
    number, published, due = 0, 0, time.monotonic() + 5
    while not stop.wait(0.2):
        changes = some_items("soak", number % BATCHES)
        with suppress(OSError):
            answer = ask(port, upsert(changes, f"soak-{number}"))
            if answer.status == 200:
                oracle.changed(answer.json["sequence"], changes)
            else:
                errors.append(f"a change: {answer.status} {answer.body[:200]!r}")
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
                with suppress(PublishBusyError):  # the service may be compacting by itself
                    compact(root)
            else:
                bench.shop.publish(root, published % 2)
            due = time.monotonic() + (3 if bench.quick else 10)
        number += 1


CASES = [
    Case(
        30,
        "soak test",
        "a closed load of requests with continuous changes of items and users; a new version or a compaction every 10 s",
        "lost 0, wrong 0; memory of the last third within 5 % of the first after warm-up; a constant number of "
        "descriptors; no more "
        "items in the delta segment than were changed; recall at most 0.5 points below that of a rebuilt index",
        soak,
    ),
]
