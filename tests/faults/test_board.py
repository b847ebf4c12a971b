"""The fast fault cases with few repetitions, and how results are scored and reported."""

import math
import os
import random
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from recall.bundle.versions import live_name
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.faults import __main__ as faults
from tests.faults.background import in_background
from tests.faults.bench import Bench
from tests.faults.board import load_results, report, save_result, table
from tests.faults.case import Case, Score
from tests.faults.cases import CASES
from tests.faults.http import Answer
from tests.faults.oracle import Oracle
from tests.faults.shop import Shop
from tests.faults.startup import RestartCounter
from tests.faults.steady_load import Outcome, SteadyLoad


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop.open(tmp_path_factory.mktemp("faults") / "shop")


@pytest.fixture
def bench(shop: Shop, tmp_path: Path) -> Bench:
    return Bench(tmp_path, shop, True, random.Random(1))


FAST = [case for case in CASES if case.fast]


SECONDS = {1, 3, 5, 6, 7, 9, 11, 12, 14, 15, 16, 18, 19, 28, *range(32, 40)}
"""Cases that take several seconds even with few repetitions."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case.number}-{case.name}", marks=[pytest.mark.slow] if case.number in SECONDS else [])
        for case in FAST
    ],
)
def test_the_service_meets_the_criterion(case: Case, bench: Bench) -> None:
    if absent := case.skip_reason():
        pytest.skip(absent)
    result = faults.run(case, bench)
    assert result.score.passed, result.score


def test_case_numbers_are_unique() -> None:
    numbers = [case.number for case in CASES]
    assert numbers == sorted(set(numbers))
    assert set(range(1, 40)) | {41, 42} <= set(numbers)
    fast = {1, 3, 5, 6, 7, 9, 11, 12, *range(14, 20), 27, 28, *range(32, 37), 38, 39, 41, 42}
    assert {case.number for case in FAST} == fast


def test_the_oracle_detects_wrong_answers(shop: Shop, tmp_path: Path) -> None:
    root = shop.root(tmp_path / "bundles")
    recommender = Recommender.load(root)
    recommender.items.upsert({"new": {"genre": "noir", "price": 3.0}})
    oracle = Oracle(root)
    oracle.changed(1, {"new": {"genre": "noir", "price": 3.0}})
    found = recommender.recommend(Request(user_id="3", n=1000))
    items: list[dict[str, Any]] = [{"item_id": item.item_id, "score": item.score} for item in found.items]
    answer = {"bundle": live_name(root), "sequence": 1, "items": items}
    assert oracle.fault(answer, "3", 1000) == ""
    seen = recommender.users.get("3")
    assert seen is not None
    wrong = {
        "answer for another user": ({**answer}, "4"),
        "unknown version": ({**answer, "bundle": "000009-00000000"}, "3"),
        "one item too few": ({**answer, "items": items[1:]}, "3"),
        "not sorted by score": ({**answer, "items": [*items[:5], *items[6:], items[5]]}, "3"),
        "an item twice": ({**answer, "items": [items[0], *items[:-1]]}, "3"),
        "a seen item": ({**answer, "items": [*items[:-1], {"item_id": seen.seen[0], "score": items[-1]["score"]}]}, "3"),
        "a wrong score": ({**answer, "items": [{**items[0], "score": items[0]["score"] * 1.001}, *items[1:]]}, "3"),
    }
    for what, (corrupt, user) in wrong.items():
        assert oracle.fault(corrupt, user, 1000), what
    older = {**answer, "sequence": 0}
    assert bool(oracle.fault(older, "3", 1000)) == ("new" in {item["item_id"] for item in items})
    oracle.close()
    recommender.close()


def test_recall_is_the_share_of_the_best_items(shop: Shop, tmp_path: Path) -> None:
    root = shop.root(tmp_path / "bundles")
    recommender, oracle = Recommender.load(root), Oracle(root)
    found = recommender.recommend(Request(user_id="3", n=30))
    items = [{"item_id": item.item_id, "score": item.score} for item in found.items]
    answer = {"bundle": live_name(root), "sequence": 0, "items": items[:20]}
    assert oracle.fault(answer, "3", 20) == ""
    assert oracle.recall(answer, "3", 20) == 1
    assert oracle.recall({**answer, "items": [*items[:15], *items[25:]]}, "3", 20) == 0.75
    oracle.close()
    recommender.close()


def test_restarts_of_processes_are_counted(bench: Bench) -> None:
    counter = RestartCounter()
    with bench.serve(bench.root(), "--workers", "2") as server, in_background(partial(counter.watch, server)):
        server.ready()
        deadline = time.monotonic() + 60
        while len(server.children()) < 2 or counter.samples < 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert counter.restarts == 0
        os.kill(server.children()[0], signal.SIGKILL)
        while not counter.restarts:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert counter.restarts >= 1


def test_latency_limits_include_a_tolerance(bench: Bench) -> None:
    full = replace(bench, quick=False)
    assert full.slower(100.0, 1.1) == pytest.approx(110)
    assert full.slower(3.0, 1.1) == 8.0
    assert bench.slower(3.0, 1.1) > 500


def test_the_baseline_excludes_the_first_second() -> None:
    load = SteadyLoad(0, ["1"])
    load._start = 10.0
    load.outcomes = [
        Outcome("1", 10.0 + at / 10, 0.5 if at < 10 else 0.001 * at, Answer(200, {}, b"{}"), "") for at in range(20)
    ]
    assert load.baseline_p99(11.55) == pytest.approx(15, abs=0.1)
    assert load.p99(until=11.55) > 400


def test_failed_cases_are_reported(bench: Bench) -> None:
    def breaks(bench: Bench, score: Score) -> None:
        score.record(True)
        raise ValueError("no")

    def loses(bench: Bench, score: Score) -> None:
        score.record(True)
        score.lost += 1

    def nothing(bench: Bench, score: Score) -> None:
        pass

    def well(bench: Bench, score: Score) -> None:
        score.record(True)
        score.recovered(1.0)
        score.recovered(0.5)

    results = [faults.run(Case(1, "name", "fault", "criterion", run), bench) for run in (breaks, loses, nothing, well)]
    assert [result.failed for result in results] == [True, True, True, False]
    assert results[0].score.unmet == ["the case raised ValueError: no"]
    assert results[3].score.recovery == 1.0
    assert math.isnan(results[3].score.p99)
    skipped = faults.run(Case(1, "name", "fault", "criterion", breaks, tools=("no-such-tool", "sh")), bench)
    assert not skipped.failed
    assert skipped.verdict == "not run: no-such-tool is not installed"
    shown = list(table([*results, skipped]))
    assert [row.split("|")[-2].strip() for row in shown[2:]] == ["**failed**"] * 3 + ["passed", skipped.verdict]


def test_the_report_covers_saved_results(bench: Bench, tmp_path: Path) -> None:
    def run(bench: Bench, score: Score) -> None:
        score.record(True)
        score.record(False, "the requirement")
        score.notes.append("noted")

    results = [faults.run(replace(case, run=run, tools=()), bench) for case in CASES[:2]]
    results.append(faults.run(replace(CASES[2], tools=("no-such-tool",)), bench))
    for result in results:
        save_result(result, tmp_path / "results", 0)
    loaded = load_results(tmp_path / "results")
    assert [result.verdict for result in loaded] == [result.verdict for result in results]
    assert list(table(loaded)) == list(table(results))
    assert report(loaded).count("- failed: the requirement") == 2
    assert "## 1. Kill -9 during publication" in report(loaded)
    assert math.isnan(loaded[0].score.p99)
