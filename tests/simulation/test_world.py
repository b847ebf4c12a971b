"""Seeded runs of two processes on one root: invariants hold, and injected bugs are found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from recall.publish import derived
from recall.store.items.log import SqliteChangeLog
from recall.store.items.log_position import Change
from tests.simulation.runs import Kept, kept, run

SOON = {(1, 20), (1, 30), (24, 60), (40, 60), (217, 60), (224, 60), (341, 60)}
"""Seeds and steps of the recorded runs in every test run; .ci/run has the others."""
UNDAMAGED = ("damage", "copy", "elsewhere", "rebuild")


def repeated(one: Kept) -> list[pytest.MarkDecorator]:
    return [] if (one.seed, one.steps) in SOON else [pytest.mark.slow]


@pytest.mark.parametrize("seed", range(1, 3))
def test_simulated_runs_lose_nothing(place: Path, seed: int) -> None:
    outcome = run(place, seed, 60, (), UNDAMAGED)
    assert outcome.fault == ""
    assert outcome.said[-1].startswith("end: ")


@pytest.mark.parametrize("one", [pytest.param(one, id=f"{one.seed}-{one.steps}", marks=repeated(one)) for one in kept()])
def test_seeds_that_found_a_bug_pass(place: Path, one: Kept) -> None:
    assert run(place, one.seed, one.steps, (), one.without).fault == "", one.bug


def test_equal_seeds_give_equal_runs(place: Path) -> None:
    first, second, other = (run(place, seed, 25, (), UNDAMAGED) for seed in (7, 7, 8))
    assert first.said == second.said
    assert first.digest == second.digest != other.digest


def test_an_unwritten_change_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = SqliteChangeLog.append

    def forgetful(self: SqliteChangeLog, changes: Sequence[Change], *given: Any, **named: Any) -> int:
        return append(self, list(changes)[:1], *given, **named)

    monkeypatch.setattr(SqliteChangeLog, "append", forgetful)
    assert "log: change" in run(place, 1, 60, (), UNDAMAGED).fault


def test_a_compaction_that_loses_an_item_is_detected(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_items = derived.publish_items

    def forgetful(now: Any, items: Any, *given: Any, **named: Any) -> Any:
        return publish_items(now, items[:-1], *given, **named)

    monkeypatch.setattr(derived, "publish_items", forgetful)
    assert "1 differ" in run(place, 1, 60, (), UNDAMAGED).fault


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 240))
def test_lost_files_are_always_reported(place: Path, seed: int) -> None:
    assert run(place, seed, 60).fault == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_longer_runs_lose_nothing(place: Path, seed: int) -> None:
    assert run(place, seed, 120, (), UNDAMAGED).fault == ""
