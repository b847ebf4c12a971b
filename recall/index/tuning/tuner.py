"""Find the fastest index with a certified recall.

1. Build each candidate over the item vectors.
2. On held-out users, find its least effort that is expected to reach the target recall, by bisection, and its latency.
3. Verify the fastest candidate with users that were not used before. It is chosen if the lower confidence bound on its mean
   recall reaches the target, for lists of n and for short lists.
4. Otherwise raise its effort, measured with the users of step 2, and repeat step 3 with the then fastest candidate and other
   users, at most three times in all.

Each round and each length has a share of the error (`recall.alpha_spending`): the probability that any of them certifies an
index that misses the target is at most 1 - confidence. If no candidate is certified, search is exact.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import cast

import numpy as np

from recall._arrays import Float32, Float64
from recall.config import IndexConfig
from recall.index.base import Candidate, ItemIndex, TunableIndex, discard_all, discarded_on_error
from recall.index.cells.index import CellIndex
from recall.index.flat import ExactIndex, prepare_faiss
from recall.index.record import Certificate, IndexTrial
from recall.index.tuning.recall import GroundTruth, QuerySplit, alpha_spending, best_bound, lower_bound, verified_lengths
from recall.index.tuning.trials import EXACT, IndexTuner


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """Result of tuning.

    Attributes:
        name: of the chosen candidate.
        index: of the chosen candidate.
        why: reason for the choice, in a sentence.
        certificate: bound on its recall; of an exact index its recall by construction.
        shares: float64 [v], recall of each user of the verification, for the length with the lower bound; empty for an exact
            index.
        trials: all candidates.
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
        users: vectors of users to build, tune and verify with.
        config: kind ('faiss' leaves out the cells), target, n, confidence, and the time after which no further candidate is
            built.
        seed: of all random draws.
        threads: to build with.
        tried: the candidates; exact search is always tried as well.
        on_trial: called with each candidate after its effort is set.
        exact: an exact index; built in this process if None. It is discarded unless it is chosen.

    Raises:
        ExportError: The vectors are not finite.
        IndexDownError: The server of a candidate does not answer; what was built on servers is deleted.
    """
    prepare_faiss()
    began = time.perf_counter()
    exact = _exact_index(vectors, users, config, seed, threads) if exact is None else exact
    built = time.perf_counter() - began
    n = min(config.n, len(vectors))
    first, lengths = len(users.test_rounds[0]), verified_lengths(n)
    most = best_bound(first, alpha_spending(config.confidence, 1, len(lengths)))
    if most < config.target or not len(users.tuning):
        why = f"{first} users can certify a recall of at most {most:.4f}, for any index"
        return _exactly(exact, n, config, why, ())
    with discarded_on_error(exact):
        truths = GroundTruth.of_lengths(vectors, users.tuning, lengths)
    tuner = IndexTuner(truths, config, first)
    try:
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
        for name in set(tuner.running) - {tuning.name}:
            tuner.drop(name)
        return tuning
    except BaseException:  # an index on a server would stay there
        discard_all([exact, *(one.index for one in tuner.running.values() if one.tunable is not None)])
        raise


def _exact_index(vectors: Float32, users: QuerySplit, config: IndexConfig, seed: int, threads: int) -> ItemIndex:
    """Build the exact index: of Faiss for kind 'faiss' or few items, else of cells."""
    if config.kind == "faiss" or len(vectors) <= config.exact_up_to:
        return ExactIndex.build(vectors)
    return CellIndex.build(vectors, users.fitting, seed, threads)


def _verified(tuner: IndexTuner, vectors: Float32, users: QuerySplit, exact: ItemIndex) -> Tuning:
    """Verify the fastest candidate, in several rounds with other users each."""
    config, n = tuner.config, tuner.truth.n
    best_missed = 0.0  # largest bound below the target
    for look, fresh in enumerate(users.test_rounds, 1):
        name = tuner.fastest
        if name == EXACT:
            break
        running = tuner.running[name]
        truths = GroundTruth.of_lengths(vectors, fresh, verified_lengths(n))
        confidence = alpha_spending(config.confidence, look, len(truths))
        bounds = []
        for truth, tuned in zip(truths, running.shares, strict=True):
            found = truth.recalls(running.index)
            bounds.append((lower_bound(found, confidence, tuned), found, tuned))
        lower, shares, _ = min(bounds, key=itemgetter(0))
        if lower >= config.target:
            index = cast(TunableIndex, running.index).for_longer_lists(vectors, tuner.truth.queries, n, config.target)
            shown = Certificate(config.target, n, len(shares), float(shares.mean()), lower, config.confidence, look, True)
            why = f"the fastest of {len(tuner.trials)} candidates; held-out users certify that it reaches the target"
            return Tuning(name, index, why, shown, shares, tuner.report())
        best_missed = max(best_missed, lower)
        # as far as the bound was below its expectation, the next expectation must be above the target
        if tuner.set_effort(name, [tuner.expected_bound(tuned) - bound for bound, _, tuned in bounds]):
            tuner.drop(name)
        tuner.compare()
    if tuner.fastest == EXACT:
        why = "no candidate that reaches the target is faster"
        if best_missed:
            why = f"no other candidate was certified to reach the target: the largest bound was {best_missed:.4f}"
    else:
        rounds = len(users.test_rounds)
        why = f"no candidate was certified to reach the target in {rounds} rounds: the largest bound was {best_missed:.4f}"
    return _exactly(exact, n, config, why, tuner.report())


def _exactly(exact: ItemIndex, n: int, config: IndexConfig, why: str, trials: tuple[IndexTrial, ...]) -> Tuning:
    return Tuning(EXACT, exact, f"exact search: {why}", exact_certificate(config, n), np.empty(0), trials)


def exact_certificate(config: IndexConfig, n: int) -> Certificate:
    """Return the certificate of an index that is exact by construction.

    Args:
        config: target and confidence.
        n: length of the lists.
    """
    return Certificate(config.target, n, 0, 1.0, 1.0, config.confidence, 0, True)
