import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from recall.config import IndexConfig
from recall.errors import IndexDownError
from recall.index.base import Hits, TunableIndex
from recall.index.cells.index import CellCodes, CellIndex
from recall.index.coarse import cells_for
from recall.index.faiss_engine import InvertedFile
from recall.index.record import IndexTrial
from recall.index.registry import candidates, like
from recall.index.tuning.recall import SHORT, GroundTruth, QuerySplit
from recall.index.tuning.trials import EXACT, IndexTuner
from recall.index.tuning.tuner import Tuning, tune
from tests.index.test_base import vectors_like_a_model

N = 20


@cache
def model_vectors() -> np.ndarray:
    return vectors_like_a_model(6000, 17, 0)


@cache
def everybody() -> np.ndarray:
    users = np.random.default_rng(4).permutation(vectors_like_a_model(12_000, 17, 0))
    users[:, 0] = 1
    return users


@cache
def model_users() -> np.ndarray:
    return everybody()[:6000]


@cache
def other_users() -> np.ndarray:
    return everybody()[6000:]


CONFIG = IndexConfig(target=0.95, n=N)
FEW = (CellCodes(64), InvertedFile(64))


@pytest.fixture(scope="module")
def tuning() -> Tuning:
    return tune(model_vectors(), QuerySplit.make(model_users(), 0), CONFIG, 0, 1, FEW)


def test_every_candidate_is_tried_and_its_curve_recorded(tuning: Tuning) -> None:
    names = [trial.name for trial in tuning.trials]
    assert names == [EXACT, "cells 64", "ivf 64"]
    for trial in tuning.trials:
        assert trial.bytes > 0
        efforts = [point.effort for point in trial.curve]
        assert efforts == sorted(set(efforts))
        assert all(0 <= point.recall <= 1 and point.microseconds > 0 for point in trial.curve)
        assert (trial.tuned in efforts) if trial.tuned is not None else trial.note


def test_the_tuned_parameter_is_the_smallest_that_reaches_the_target(tuning: Tuning) -> None:
    tuned = [trial for trial in tuning.trials if trial.tuned is not None and trial.name != EXACT]
    assert tuned
    for trial in tuned:
        (chosen,) = (point for point in trial.curve if point.effort == trial.tuned)
        assert chosen.recall >= CONFIG.target
        assert all(point.recall <= chosen.recall + 0.002 for point in trial.curve if point.effort < chosen.effort)


def test_the_bound_holds_for_fresh_users(tuning: Tuning) -> None:
    assert tuning.certificate.met
    shares = GroundTruth.of(model_vectors(), other_users(), N).recalls(tuning.index)
    assert shares.mean() >= tuning.certificate.lower
    if tuning.name != EXACT:
        assert CONFIG.target <= tuning.certificate.lower <= tuning.certificate.recall
        assert tuning.certificate.queries > 1000
        assert not tuning.index.exact


@dataclass
class Fake:
    """An index that misses a given number of rows per list, depending on the user and the search parameter."""

    inner: CellIndex
    lost: Callable[[float, np.ndarray], int]
    pause: float = 0.0
    param_grid: tuple[float, ...] = (1.0, 2.0, 3.0)
    effort: float = 1.0
    kind: str = "fake"
    exact: bool = False
    head: Callable[[np.ndarray], int] = lambda user: 0  # rows missed in short lists besides

    def with_search_param(self, value: float, n: int) -> "Fake":
        return replace(self, effort=value)

    def with_short_param(self, value: float, short: int) -> "Fake":
        return replace(self, effort=value)

    def for_longer_lists(self, *_arguments: object) -> "Fake":
        return self

    def write(self, path: Path) -> bool:
        return self.inner.write(path)

    def discard(self) -> None:
        """There is no remote data."""

    def search(self, queries: np.ndarray, n: int) -> Hits:
        if self.pause:
            time.sleep(self.pause * len(queries))  # no CPU time, like a remote engine
        scores = np.full((len(queries), n), np.inf, dtype=np.float32)
        for row, query in enumerate(queries):
            scores[row, : -(-self.lost(self.effort, query) * n // N) + (self.head(query) if n < N else 0)] = -np.inf
        return Hits(np.zeros(scores.shape, dtype=np.int64), scores, np.zeros(len(queries), dtype=bool))


@dataclass
class FakeCandidate:
    name: str
    lost: Callable[[float, np.ndarray], int]
    pause: float = 0.0
    head: Callable[[np.ndarray], int] = lambda user: 0

    def build(self, vectors: np.ndarray, queries: np.ndarray, seed: int, threads: int) -> TunableIndex:
        return Fake(CellIndex.build(vectors, queries, seed, threads), self.lost, self.pause, head=self.head)  # type: ignore[return-value]


@dataclass
class FakeCollection(Fake):
    """An index on a server; the server stops answering, or the user interrupts, when `error` is raised."""

    error: BaseException | None = None
    discarded: list[object] = field(default_factory=list)

    def search(self, queries: np.ndarray, n: int) -> Hits:
        if self.error is not None:
            raise self.error
        return super().search(queries, n)

    def discard(self) -> None:
        self.discarded.append(self.error)


@dataclass
class FakeCollectionCandidate(FakeCandidate):
    error: BaseException | None = None
    discarded: list[object] = field(default_factory=list)

    def build(self, vectors: np.ndarray, queries: np.ndarray, seed: int, threads: int) -> TunableIndex:
        inner = CellIndex.build(vectors, queries, seed, threads)
        return FakeCollection(inner, self.lost, error=self.error, discarded=self.discarded)  # type: ignore[return-value]


@cache
def small_catalogue() -> np.ndarray:
    return vectors_like_a_model(800, 9, 0)


@cache
def people() -> np.ndarray:
    return vectors_like_a_model(4000, 9, 5)


def tuned_with(*tried: FakeCandidate, target: float = 0.95, **options: object) -> Tuning:
    config = IndexConfig(target=target, n=N, **options)  # type: ignore[arg-type]
    return tune(small_catalogue(), QuerySplit.make(people(), 0), config, 0, 1, tried)


def test_the_fastest_candidate_with_enough_recall_wins() -> None:
    tuning = tuned_with(
        FakeCandidate("slow", lambda effort, user: 0, 0.003),
        FakeCandidate("good", lambda effort, user: 0 if effort > 1 else 2),
        FakeCandidate("poor", lambda effort, user: 3),
    )
    assert (tuning.name, tuning.certificate.looks, tuning.certificate.queries) == ("good", 1, 1500)
    assert tuning.certificate.lower >= 0.95
    assert isinstance(tuning.index, Fake)
    assert tuning.index.effort == 2.0
    assert "fastest of 4" in tuning.why


@pytest.mark.slow
def test_exact_search_is_chosen_if_nothing_is_faster() -> None:
    tuning = tuned_with(FakeCandidate("slow", lambda effort, user: 0, 0.003))
    assert tuning.name == EXACT
    assert tuning.index.exact
    assert tuning.why.startswith("exact search: no candidate")
    assert (tuning.certificate.lower, tuning.certificate.met) == (1.0, True)


def test_exact_search_is_chosen_if_no_candidate_reaches_the_target() -> None:
    tuning = tuned_with(FakeCandidate("poor", lambda effort, user: 5 - int(effort)))
    assert tuning.name == EXACT
    trial = tuning.trials[-1]
    assert (trial.name, trial.tuned) == ("poor", None)
    assert trial.note == "no effort reaches 0.95"


def test_a_plateau_of_recall_is_detected() -> None:
    bench = IndexTuner([GroundTruth.of(small_catalogue(), people()[:10], N)], IndexConfig(target=0.97), 1000)
    for curve, flat in (
        ({1.0: (0.95, 10.0), 2.0: (0.95, 20.0), 4.0: (0.95, 40.0)}, True),
        ({1.0: (0.95, 10.0), 2.0: (0.95, 10.0), 4.0: (0.95, 11.0)}, False),  # not slower
        ({1.0: (0.94, 10.0), 2.0: (0.95, 20.0), 4.0: (0.95, 40.0)}, False),  # four times the search parameter found more
        ({1.0: (0.5, 10.0), 2.0: (0.5, 20.0), 4.0: (0.5, 40.0)}, False),  # far below the target
        ({2.0: (0.95, 20.0), 4.0: (0.95, 40.0)}, False),  # only two rounds
    ):
        assert bench.has_plateaued(curve, 4.0) == flat


def test_too_few_users_for_verification_are_reported() -> None:
    tuning = tune(small_catalogue(), QuerySplit.make(people()[:100], 0), IndexConfig(n=N), 0, 1, FEW)
    assert tuning.name == EXACT
    assert "38 users can certify a recall of at most 0.8" in tuning.why
    assert tuning.trials == ()


@pytest.mark.parametrize("error", [IndexDownError("the server of the index does not answer"), KeyboardInterrupt()])
def test_a_tuning_that_fails_leaves_no_index_on_a_server(error: BaseException) -> None:
    discarded: list[object] = []
    with pytest.raises(type(error)):
        tuned_with(
            FakeCollectionCandidate("first", lambda effort, user: 0, discarded=discarded),
            FakeCollectionCandidate("second", lambda effort, user: 0, error=error, discarded=discarded),
        )
    assert discarded == [None, error]


def test_an_interrupt_before_the_first_candidate_leaves_no_exact_index_on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(GroundTruth, "of_lengths", interrupted)
    users = QuerySplit.make(people(), 0)
    exact = FakeCollection(CellIndex.build(small_catalogue(), users.fitting, 0, 1), lambda effort, user: 0)
    with pytest.raises(KeyboardInterrupt):
        tune(small_catalogue(), users, IndexConfig(n=N), 0, 1, (), exact=exact)  # type: ignore[arg-type]
    assert exact.discarded == [None]


def test_a_target_of_1_gives_exact_search() -> None:
    assert tuned_with(FakeCandidate("fine", lambda effort, user: 0), target=1.0).name == EXACT


def test_no_candidate_starts_after_the_time_limit() -> None:
    tuning = tuned_with(FakeCandidate("late", lambda effort, user: 0), seconds=1e-9)
    assert tuning.trials[-1] == IndexTrial("late", "", 0, 0.0, (), None, "left out: the time was up")


@cache
def tuning_users() -> set[bytes]:
    return {user.tobytes() for user in QuerySplit.make(people(), 0).tuning}


def test_a_candidate_that_fails_verification_is_raised_and_retested() -> None:
    looked: dict[float, set[bytes]] = {}

    def lost(effort: float, user: np.ndarray) -> int:
        if user.tobytes() not in tuning_users():
            looked.setdefault(effort, set()).add(user.tobytes())
        return 0 if effort > 1 else 2 if user.tobytes() in tuning_users() else 4

    tuning = tuned_with(FakeCandidate("deceiving", lost), target=0.85)
    assert (tuning.name, tuning.certificate.looks, tuning.certificate.queries) == ("deceiving", 2, 750)
    assert len(looked[1.0]) == 1500
    assert len(looked[2.0]) == 750
    assert not looked[1.0] & looked[2.0]
    assert tuning.trials[-1].tuned == 2.0


def test_a_candidate_that_never_passes_is_not_chosen() -> None:
    tuning = tuned_with(FakeCandidate("liar", lambda effort, user: 0 if user.tobytes() in tuning_users() else 3))
    assert tuning.name == EXACT
    assert "the largest bound was 0.79" in tuning.why


def test_short_lists_are_tuned_for_and_verified_as_well(tuning: Tuning) -> None:
    index = tuning.index
    assert isinstance(index, CellIndex)
    assert index.shorter > 0
    for n in (5, SHORT, N):  # less than SHORT is not verified, but follows the same line
        shares = GroundTruth.of(model_vectors(), other_users(), n).recalls(index)
        assert shares.mean() >= CONFIG.target - 0.015, n
    tuned = next(trial.tuned for trial in tuning.trials if trial.name == tuning.name)
    head = GroundTruth.of(model_vectors(), other_users(), SHORT).recalls(index.with_search_param(tuned or 0.0, 1))
    assert head.mean() < CONFIG.target  # so that one effort for all lengths would have been too little


def test_an_index_that_loses_the_head_of_its_lists_is_not_chosen() -> None:
    headless = FakeCandidate("headless", lambda effort, user: 0, head=lambda user: 0 if user.tobytes() in tuning_users() else 2)
    tuning = tuned_with(headless)
    assert tuning.name == EXACT
    assert "the largest bound was 0.79" in tuning.why


def test_candidates_suit_the_number_of_items() -> None:
    for size in (1, 30, 5000, 1_000_000):
        found = candidates(size)
        assert len(found) == len(set(found)) >= 2
        assert all(1 <= one.count <= max(size, 1) for one in found if isinstance(one, CellCodes | InvertedFile))
        among_faiss = candidates(size, "faiss")
        assert among_faiss == [one for one in found if isinstance(one, InvertedFile)]
    assert candidates(1_000_000)[0] == CellCodes(cells_for(1_000_000))


@pytest.mark.parametrize(("kind", "up_to", "exact"), [("auto", 800, "exact"), ("auto", 799, "cells"), ("faiss", 0, "exact")])
def test_exact_search_uses_faiss_for_few_items_or_on_request(kind: str, up_to: int, exact: str) -> None:
    config = IndexConfig.model_validate({"kind": kind, "n": N, "target": 0.95, "exact_up_to": up_to})
    tuning = tune(small_catalogue(), QuerySplit.make(people(), 0), config, 0, 1, [])
    assert (tuning.name, tuning.index.kind) == (EXACT, exact)


def test_an_index_can_be_rebuilt() -> None:
    assert like("cells", {"effort": 2.0, "cells": 64}) == [CellCodes(64)]
    assert like("cells", {"effort": 3e38, "cells": 64}) == []
    assert like("ivf", {"nlist": 32}) == like("pq", {"nlist": 32}) == [InvertedFile(32)]
    assert like("exact", {"longest": 1.0}) == []
