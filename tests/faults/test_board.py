"""The fast set of the fault scoreboard, for real, with few faults of each kind; and how the score is kept."""

import math
import os
import random
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from recall.bundle.versions import live_name
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.faults import __main__ as faults
from tests.faults.asking import Asked, Asking
from tests.faults.bench import Bench
from tests.faults.board import keep, kept, page, table
from tests.faults.case import Case, Score
from tests.faults.cases import CASES
from tests.faults.http import Answer
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Oracle
from tests.faults.shop import Shop
from tests.faults.starts import Counting


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop.open(tmp_path_factory.mktemp("faults") / "shop")


@pytest.fixture
def bench(shop: Shop, tmp_path: Path) -> Bench:
    return Bench(tmp_path, shop, True, random.Random(1))


FAST = [case for case in CASES if case.fast]


SECONDS = {1, 3, 5, 6, 7, 32, 33}
"""Cases that take several seconds even with few faults."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case.number}-{case.name}", marks=[pytest.mark.slow] if case.number in SECONDS else [])
        for case in FAST
    ],
)
def test_the_service_stands_it(case: Case, bench: Bench) -> None:
    if absent := case.missing():
        pytest.skip(absent)
    line = faults.run(case, bench)
    assert line.score.passed, line.score


def test_every_case_has_a_number_of_its_own() -> None:
    numbers = [case.number for case in CASES]
    assert numbers == sorted(set(numbers))
    assert set(range(1, 34)) | {41, 42} <= set(numbers)
    assert {case.number for case in FAST} == {1, 3, 5, 6, 7, 9, 11, 12, 14, 15, 16, 17, 18, 19, 27, 28, 32, 33, 41, 42}


def test_the_oracle_tells_right_from_wrong(shop: Shop, tmp_path: Path) -> None:
    root = shop.root(tmp_path / "bundles")
    recommender = Recommender.load(root)
    recommender.items.upsert({"new": {"genre": "noir", "price": 3.0}})
    oracle = Oracle(root)
    oracle.changed(1, {"new": {"genre": "noir", "price": 3.0}})
    found = recommender.recommend(Request(user_id="3", n=1000))
    items = [{"item_id": item.item_id, "score": item.score} for item in found.items]
    answer = {"bundle": live_name(root), "sequence": 1, "items": items}
    assert oracle.fault(answer, "3", 1000) == ""
    seen = recommender.users.get("3")
    assert seen is not None
    wrong = {
        "of another user": ({**answer}, "4"),
        "of no version": ({**answer, "bundle": "000009-00000000"}, "3"),
        "one too few": ({**answer, "items": items[1:]}, "3"),
        "not the best": ({**answer, "items": [*items[:5], *items[6:], items[5]]}, "3"),
        "one twice": ({**answer, "items": [items[0], *items[:-1]]}, "3"),
        "one that was seen": ({**answer, "items": [*items[:-1], {"item_id": seen.seen[0], "score": items[-1]["score"]}]}, "3"),
        "a score that is not so": ({**answer, "items": [{**items[0], "score": items[0]["score"] * 1.001}, *items[1:]]}, "3"),
    }
    for what, (given, user) in wrong.items():
        assert oracle.fault(given, user, 1000), what
    older = {**answer, "sequence": 0}
    assert bool(oracle.fault(older, "3", 1000)) == ("new" in {item["item_id"] for item in items})
    oracle.close()
    recommender.close()


def test_recall_is_the_share_of_the_right_items(shop: Shop, tmp_path: Path) -> None:
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


def test_processes_that_are_started_again_are_counted(bench: Bench) -> None:
    counting = Counting()
    with bench.serve(bench.root(), "--workers", "2") as server, meanwhile(partial(counting.look, server)):
        server.ready()
        deadline = time.monotonic() + 60
        while len(server.children()) < 2 or counting.looks < 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert counting.again == 0
        os.kill(server.children()[0], signal.SIGKILL)
        while not counting.again:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert counting.again >= 1


def test_noise_may_add_a_little(bench: Bench) -> None:
    full = replace(bench, quick=False)
    assert full.slower(100.0, 1.1) == pytest.approx(110)
    assert full.slower(3.0, 1.1) == 8.0
    assert bench.slower(3.0, 1.1) > 500


def test_the_first_second_is_no_baseline() -> None:
    asking = Asking(0, ["1"])
    asking._start = 10.0
    asking.asked = [Asked("1", 10.0 + at / 10, 0.5 if at < 10 else 0.001 * at, Answer(200, {}, b"{}"), "") for at in range(20)]
    assert asking.usual(11.55) == pytest.approx(15, abs=0.1)
    assert asking.p99(until=11.55) > 400


def test_what_is_missed_is_told(bench: Bench) -> None:
    def breaks(bench: Bench, score: Score) -> None:
        score.ran(True)
        raise ValueError("no")

    def loses(bench: Bench, score: Score) -> None:
        score.ran(True)
        score.lost += 1

    def nothing(bench: Bench, score: Score) -> None:
        pass

    def well(bench: Bench, score: Score) -> None:
        score.ran(True)
        score.recovered(1.0)
        score.recovered(0.5)

    lines = [faults.run(Case(1, "name", "done", "line", run), bench) for run in (breaks, loses, nothing, well)]
    assert [line.missed for line in lines] == [True, True, True, False]
    assert lines[0].score.missed == ["it broke down: ValueError: no"]
    assert lines[3].score.recovery == 1.0
    assert math.isnan(lines[3].score.p99)
    absent = faults.run(Case(1, "name", "done", "line", breaks, tools=("no-such-tool", "sh")), bench)
    assert not absent.missed
    assert absent.verdict == "not run: no-such-tool is not installed"
    shown = list(table([*lines, absent]))
    assert [row.split("|")[-2].strip() for row in shown[2:]] == ["**missed**"] * 3 + ["passed", absent.verdict]


def test_what_was_kept_comes_back_onto_the_page(bench: Bench, tmp_path: Path) -> None:
    def run(bench: Bench, score: Score) -> None:
        score.ran(True)
        score.ran(False, "it was not so")
        score.notes.append("noted")

    lines = [faults.run(replace(case, run=run, tools=()), bench) for case in CASES[:2]]
    lines.append(faults.run(replace(CASES[2], tools=("no-such-tool",)), bench))
    for line in lines:
        keep(line, tmp_path / "results", 0)
    back = kept(tmp_path / "results")
    assert [line.verdict for line in back] == [line.verdict for line in lines]
    assert list(table(back)) == list(table(lines))
    assert page(back).count("- missed: it was not so") == 2
    assert "## 1. Kill -9 during publish" in page(back)
    assert math.isnan(back[0].score.p99)
