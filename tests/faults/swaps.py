"""Version swaps under load."""

import time

from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.oracle import Oracle
from tests.faults.steady_load import SteadyLoad
from tests.faults.upserts import some_items, upsert

USERS = [str(number) for number in range(1, 150, 4)]


def swapped(bench: Bench, score: Score) -> None:
    """Case 12."""
    root = bench.root()
    oracle = Oracle(root)
    swaps, pause = bench.many(8, 150), 0.5 if bench.quick else 2.0
    with bench.serve(root) as server:
        server.ready()
        with SteadyLoad(server.port, USERS) as load:
            time.sleep(bench.many(3, 30))
            memory, began = server.memory(), time.perf_counter()
            for number in range(swaps):
                due = began + (number + 1) * pause
                newer = bench.shop.publish(root, (number + 1) % 2)
                changes = some_items("swap", number)
                answer = server.ask(upsert(changes, f"swap-{number}"))
                score.record(answer.status == 200, f"a change during the swaps: {answer.status} {answer.body[:200]!r}")
                oracle.changed(answer.json["sequence"], changes)
                if number == 9:
                    memory = server.memory()
                time.sleep(max(0.0, due - time.perf_counter()))
            server.serves(newer.name, 20)
            ended = time.perf_counter()
            time.sleep(bench.many(1, 10))
            after = server.memory()
        base, during = load.baseline_p99(began), load.p99(began, ended)
        load.check(score, oracle)
        score.p99 = during
        versions = {one.answer.json["bundle"] for one in load.outcomes if one.answer is not None and one.answer.status == 200}
        score.require(len(versions) > swaps // 2, f"only {len(versions)} versions were served")
        if not bench.quick:  # a few seconds are too short to measure either
            score.require(during <= 1.5 * base, f"p99 is {during:.1f} ms, was {base:.1f} ms")
            score.require(after <= 1.1 * memory, f"{after / 1e6:.0f} MB after {swaps} swaps, {memory / 1e6:.0f} MB after ten")
        score.notes.append(
            f"p99 {base:.1f} ms before and {during:.1f} ms during {swaps} swaps; {len(versions)} versions were served"
        )
        score.notes.append(f"memory {memory / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")
    oracle.close()


CASES = [
    Case(
        12,
        "version swaps under load",
        "a version is published every 2 s, with upserts in between, at 100 requests a second",
        "lost 0, wrong 0, no answer mixes two versions; in a full run p99 at most 1.5 times the baseline, and memory at most "
        "1.1 times",
        swapped,
        fast=True,
    ),
]
