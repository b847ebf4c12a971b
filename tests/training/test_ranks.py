"""Training on several ranks, each with a part of the contexts, equals training on one up to rounding."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from recall.config import PairwiseConfig, SoftmaxConfig, SquareConfig
from recall.errors import TrainingError
from recall.features.csr import FeatureLayout
from recall.training.masking import Roles
from recall.training.negatives import Negatives
from recall.training.pairs import ObservedPairs, Untrained
from recall.training.ranks import Ranks
from recall.training.train import new_learner
from tests.training.kinds import KINDS, fresh, with_fields
from tests.training.thread_ranks import on_threads
from tests.training.worlds import one_hot, random_pairs

SWEEPS = 3


def part_of(pairs: ObservedPairs, first: int, last: int, ranks: Ranks) -> ObservedPairs:
    """Return the pairs of contexts [first, last), for one of several ranks; roles and means stay those of the whole."""
    own = slice(pairs.indptr[first], pairs.indptr[last])
    return replace(
        pairs,
        contexts=pairs.contexts.take(np.arange(first, last)),
        indptr=pairs.indptr[first : last + 1] - pairs.indptr[first],
        observed=pairs.observed[own],
        weights=pairs.weights[own],
        ranks=ranks,
    )


def on_ranks(pairs: ObservedPairs, run: Callable[[ObservedPairs], object], cuts: tuple[int, ...]) -> list:
    """Train on ranks whose contexts are split at `cuts`; return the result of each rank."""
    bounds = [0, *cuts, len(pairs.contexts)]
    return on_threads(len(bounds) - 1, lambda ranks: run(part_of(pairs, bounds[ranks.rank], bounds[ranks.rank + 1], ranks)))


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(pairs: ObservedPairs, config, kind: str):
    learner = new_learner(config, fresh(pairs, kind=kind), pairs, seed=4)
    losses = [learner.sweep() for _ in range(SWEEPS)]
    return {name: table.detach().clone() for name, table in learner.model.named_parameters()}, losses


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).detach().abs().max()) if one.numel() else 0.0


def check(pairs: ObservedPairs, config, kind: str, cuts: tuple[int, ...] = (17,), within: float = 1e-4) -> None:
    expected, losses = trained(pairs, config, kind)
    start = dict(fresh(pairs, kind=kind).named_parameters())
    assert max(distance(expected[name], start[name]) for name in expected) > 0.01
    ranks = on_ranks(pairs, lambda part: trained(part, config, kind), cuts)
    for tables, reported in ranks:
        assert reported == pytest.approx(losses, rel=within)
        for name, table in tables.items():
            assert torch.equal(table, ranks[0][0][name]), f"the ranks' copies of {name} differ"
            assert distance(table, expected[name]) <= within * max(1.0, distance(expected[name], 0 * table)), name


def world(seed: int = 0) -> ObservedPairs:
    return with_fields(random_pairs(seed))


def ids_only(seed: int, drop: bool) -> ObservedPairs:
    """Pairs of a context for each user, with ids alone."""
    pairs = random_pairs(seed)
    users, items = one_hot(len(pairs.contexts)), one_hot(len(pairs.items))
    fields = FeatureLayout.of_sizes([("item", len(items))])
    pairs = replace(pairs, contexts=users, items=items, user_fields=None, item_fields=None)
    return replace(pairs, untrained=Untrained(roles=Roles(fields, np.ones(1, bool), np.ones(1, bool)))) if drop else pairs


@pytest.mark.parametrize("drop", [0.0, 0.1])
@pytest.mark.parametrize("cuts", [(17,), (5, 30)])
def test_ids_alone_are_equal_on_several_ranks(cuts: tuple[int, ...], drop: float) -> None:
    """Each feature is then solved separately, users by their rank and items by the rank that gets their pairs."""
    config = SquareConfig(unobserved=5.0, regularisation=0.02, popularity=0.5, drop=drop)
    check(ids_only(9, drop > 0), config, "fm", cuts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_square_loss_is_equal_on_several_ranks(kind: str) -> None:
    check(world(), SquareConfig(unobserved=5.0, regularisation=0.02, popularity=0.5, activity=0.5, nu=0.7, drop=0.0), kind)


@pytest.mark.parametrize("kind", ["fm", "fwfm"])
def test_the_square_loss_with_masked_items_is_equal_on_several_ranks(kind: str) -> None:
    pairs = world(1)
    pairs = replace(pairs, untrained=Untrained(roles=Roles.of(pairs.item_fields, pairs.items)))
    check(pairs, SquareConfig(unobserved=3.0, regularisation=0.02, drop=0.1), kind)


def test_three_ranks_of_different_sizes_agree() -> None:
    check(world(2), SquareConfig(unobserved=5.0, regularisation=0.02, drop=0.0), "fm", cuts=(3, 30))


@pytest.mark.parametrize("optimiser", ["adam", "adagrad", "sgd"])
def test_softmax_training_is_equal_on_several_ranks(optimiser: str) -> None:
    config = SoftmaxConfig(
        objective="softmax",
        epochs=SWEEPS,
        batch=40,
        activity=0.6,
        dropout=0.0,
        drop=0.0,
        optimiser=optimiser,
        learning_rate=1.0 if optimiser == "sgd" else 0.05,
    )
    check(world(3), config, "fm")


def test_batches_are_divided_between_ranks() -> None:
    """Batches are drawn over the pairs of all ranks; each rank processes its own pairs."""
    config = SoftmaxConfig(objective="softmax", epochs=SWEEPS, batch=20, dropout=0.0, drop=0.0, learning_rate=0.05)
    check(world(5), config, "ffm", cuts=(20,))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("candidates", ["all", "sampled", "in-batch"])
def test_softmax_training_is_equal_for_all_candidates(candidates: str, kind: str) -> None:
    config = SoftmaxConfig(
        objective="softmax",
        candidates=candidates,
        epochs=SWEEPS,
        batch=16,
        samples=6,
        dropout=0.0,
        drop=0.0,
        learning_rate=0.05,
    )
    check(world(10), config, kind, cuts=(9, 25))


@pytest.mark.parametrize("objective", ["bpr", "warp", "logistic"])
def test_pairwise_training_is_equal_on_several_ranks(objective: str) -> None:
    """All ranks draw the same negatives for the whole batch."""
    config = PairwiseConfig(objective=objective, epochs=SWEEPS, batch=24, dropout=0.0, drop=0.0, learning_rate=0.05)
    check(world(11), config, "fm", cuts=(9, 25))


def test_hard_negatives_are_refused_on_several_ranks() -> None:
    config = PairwiseConfig(objective="bpr", epochs=1, hard=0.5)
    with pytest.raises(TrainingError, match=r"hard negatives.*train.hard = 0"):
        on_ranks(world(12), lambda part: trained(part, config, "fm"), (20,))


def test_popularity_covers_the_contexts_of_all_ranks() -> None:
    pairs = random_pairs(6)
    whole = Negatives(pairs, 0.8).log_q
    for found in on_ranks(pairs, lambda part: Negatives(part, 0.8).log_q, (11,)):
        assert np.array_equal(found, whole)


def test_a_single_rank_sums_nothing() -> None:
    alone, table = Ranks(), torch.ones(2, 2)
    assert alone.share(7) == (0, 7)
    assert alone.total(0.1) == 0.1
    assert alone.summed_rows(None, table, 2) == (None, table)


def test_gradients_are_summed_over_the_rows_used_by_any_rank() -> None:
    rows = (torch.tensor([3, 1]), torch.tensor([1]))

    def summed(part: ObservedPairs) -> tuple[list[int], list[float]]:
        own = rows[part.ranks.rank]
        found, gradient = part.ranks.summed_rows(own, torch.ones(len(own), 1) * (1 + part.ranks.rank), 5)
        assert found is not None
        return found.tolist(), gradient[:, 0].tolist()

    assert on_ranks(random_pairs(7), summed, (20,)) == [([1, 3], [3.0, 1.0])] * 2
