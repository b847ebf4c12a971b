"""Find the fastest index that is shown to reach a recall target.

Candidates are built on the item vectors. On users held out for that, the least effort of each is found by bisection, and
what a query then costs. The fastest is verified on users of whom nothing was asked before: if the lower confidence bound
on its mean recall reaches the target, for lists of n and for short ones, it is taken. If not, its effort is raised on the old
users and the then fastest is measured with other fresh ones, three times at most. Each look and length has its share of the
error (`recall.alpha_spending`), so that the chance that any of them certifies an index that does not deserve it is at most
1 - confidence. Where none is shown to find enough, search is exact.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import cast

import numpy as np

from recall._arrays import Float32, Float64
from recall.config import IndexConfig
from recall.index.base import Candidate, ItemIndex, TunableIndex
from recall.index.cells.index import CellIndex
from recall.index.flat import ExactIndex, prepare_faiss
from recall.index.record import Certificate, IndexTrial
from recall.index.tuning.recall import GroundTruth, QuerySplit, alpha_spending, best_bound, judged_lengths, lower_bound
from recall.index.tuning.trials import EXACT, IndexTuner


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """Result of tuning.

    Attributes:
        name: of the candidate that was chosen.
        index: the chosen one.
        why: it, in a sentence.
        certificate: what it is shown to find; of an exact index what it finds by construction.
        shares: float64 [v], the share of the exact list of each of those users, of the length of which it finds least; empty
            of an exact index.
        trials: everything that was tried.
    """

    name: str
    index: ItemIndex
    why: str
    certificate: Certificate
    shares: Float64
    trials: tuple[IndexTrial, ...]


def tune(
    vectors: Float32,
    users: QuerySplit,
    config: IndexConfig,
    seed: int,
    threads: int,
    tried: Sequence[Candidate],
    on_trial: Callable[[IndexTrial], None] = lambda _: None,
    exact: ItemIndex | None = None,
) -> Tuning:
    """Find the fastest index that reaches a target.

    Args:
        vectors: float32 [size, dim].
        users: whose vectors it is found with.
        config: kind ('faiss' leaves out the cells), target, n, confidence, and the time after which no other candidate is
            begun.
        seed: of all random draws.
        threads: to build with.
        tried: the candidates, of which exact search is always one more.
        on_trial: called with each candidate when its effort is set.
        exact: for exact search; one in this process if None.

    Raises:
        ExportError: the vectors are not finite.
    """
    prepare_faiss()
    began = time.perf_counter()
    exact = _exact_index(vectors, users, config, seed, threads) if exact is None else exact
    built = time.perf_counter() - began
    n = min(config.n, len(vectors))
    first, lengths = len(users.test_rounds[0]), judged_lengths(n)
    most = best_bound(first, alpha_spending(config.confidence, 1, len(lengths)))
    if most < config.target or not len(users.tuning):
        why = f"{first} users can show a recall of {most:.4f} at most, whatever the index"
        return _exactly(exact, n, config, why, ())
    tuner = IndexTuner(GroundTruth.of_lengths(vectors, users.tuning, lengths), config, first)
    tuner.add_exact(exact, built)
    for candidate in tried:
        if time.perf_counter() - began > config.seconds:
            tuner.trials.append(IndexTrial(candidate.name, "", 0, 0.0, (), note="left out: the time was up"))
            continue
        began_one = time.perf_counter()
        index = candidate.build(vectors, users.fitting, seed, threads)
        on_trial(tuner.add(candidate.name, index, time.perf_counter() - began_one))
    tuner.compare()
    tuning = _verified(tuner, vectors, users, exact)
    for name in set(tuner.running) - {EXACT, tuning.name}:
        tuner.drop(name)
    if tuning.index is not exact:
        exact.discard()
    return tuning


def _exact_index(vectors: Float32, users: QuerySplit, config: IndexConfig, seed: int, threads: int) -> ItemIndex:
    """Build the exact index: by Faiss if asked for or for few items, else by cells."""
    if config.kind == "faiss" or len(vectors) <= config.exact_up_to:
        return ExactIndex.build(vectors)
    return CellIndex.build(vectors, users.fitting, seed, threads)


def _verified(tuner: IndexTuner, vectors: Float32, users: QuerySplit, exact: ItemIndex) -> Tuning:
    """Verify the fastest candidate, and then the next, on fresh users each time."""
    config, n = tuner.config, tuner.truth.n
    best_missed = 0.0  # the largest bound below the target
    for look, fresh in enumerate(users.test_rounds, 1):
        name = tuner.fastest
        if name == EXACT:
            break
        running = tuner.running[name]
        truths = GroundTruth.of_lengths(vectors, fresh, judged_lengths(n))
        confidence = alpha_spending(config.confidence, look, len(truths))
        bounds = []
        for truth, tuned in zip(truths, running.shares, strict=True):
            found = truth.recalls(running.index)
            bounds.append((lower_bound(found, confidence, tuned), found, tuned))
        lower, shares, _ = min(bounds, key=itemgetter(0))
        if lower >= config.target:
            index = cast(TunableIndex, running.index).for_longer_lists(vectors, tuner.truth.queries, n, config.target)
            shown = Certificate(config.target, n, len(shares), float(shares.mean()), lower, config.confidence, look, True)
            why = f"the fastest of {len(tuner.trials)} candidates; shown on fresh users to meet the target"
            return Tuning(name, index, why, shown, shares, tuner.report())
        best_missed = max(best_missed, lower)
        # a bound that fell short of what was expected must be expected that much above the target
        if tuner.set_effort(name, [tuner.expected_bound(tuned) - bound for bound, _, tuned in bounds]):
            tuner.drop(name)
        tuner.compare()
    if tuner.fastest == EXACT:
        why = "no candidate that was shown to meet the target is faster than exact search"
        if best_missed:
            why = f"no other candidate was shown to meet the target: their bound was {best_missed:.4f} at most"
    else:
        rounds = len(users.test_rounds)
        why = f"after {rounds} looks no candidate was shown to meet the target: the bound was {best_missed:.4f} at most"
    return _exactly(exact, n, config, why, tuner.report())


def _exactly(exact: ItemIndex, n: int, config: IndexConfig, why: str, trials: tuple[IndexTrial, ...]) -> Tuning:
    return Tuning(EXACT, exact, f"exact search: {why}", exact_certificate(config, n), np.empty(0), trials)


def exact_certificate(config: IndexConfig, n: int) -> Certificate:
    """Return what an index finds that is exact by construction.

    Args:
        config: target and confidence.
        n: length of the lists.
    """
    return Certificate(config.target, n, 0, 1.0, 1.0, config.confidence, 0, True)
