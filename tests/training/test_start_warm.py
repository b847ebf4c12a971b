import numpy as np
import pytest
import torch

from recall.config import SquareConfig, StoppingConfig
from recall.features.csr import SparseRows
from recall.models.torch.fm import FactorizationMachine
from recall.training.als.solver import ImplicitALS
from recall.training.loop import run_sweeps
from recall.training.pairs import ObservedPairs
from recall.training.start import ProximalLearner, WarmStart
from tests.training.test_loop import NAMES
from tests.training.worlds import random_pairs


def drawn(pairs: ObservedPairs, seed: int = 0) -> FactorizationMachine:
    model = FactorizationMachine(pairs.contexts.n_features, pairs.items.n_features, 3)
    model.initialise(0.3, torch.Generator().manual_seed(seed))
    return model


def wider(pairs: ObservedPairs, more: int) -> ObservedPairs:
    """The same pairs in feature spaces with unused rows."""
    sides = [
        SparseRows(rows.indptr, rows.indices, rows.weights, rows.n_features + more) for rows in (pairs.contexts, pairs.items)
    ]
    return ObservedPairs(*sides, pairs.indptr, pairs.observed, pairs.weights)


def start_of(model: FactorizationMachine, shares=None) -> WarmStart:
    tables = {name: table.detach().clone() for name, table in model.named_parameters()}
    return WarmStart(tables, "test", shares)


def test_rows_are_copied_from_their_source():
    arrays = {"user_factors": np.arange(6.0).reshape(3, 2), "item_weights": np.arange(2.0), "bias": np.ones(1)}
    start = WarmStart.of(arrays, {"user": np.array([0, 2, 0]), "item": np.array([1])}, "test")
    assert start.parameters["user_factors"].tolist() == [[0, 1], [4, 5], [0, 1]]
    assert start.parameters["item_weights"].tolist() == [1]
    assert start.parameters["bias"].tolist() == [1]


class Turning:
    """Rotates all factors as the solver may, shifts the weights by one, and shrinks unused rows to zero."""

    def __init__(self, model: FactorizationMachine, lost: int) -> None:
        self.model, self.note = model, "rotations"
        self._turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
        self._lost = lost

    @torch.no_grad()
    def sweep(self) -> float:
        for factors in (self.model.user_factors, self.model.item_factors):
            factors.copy_(factors @ self._turn)
            factors[len(factors) - self._lost :] = 0.0
        self.model.item_weights += 1.0
        self.model.item_weights[len(self.model.item_weights) - self._lost :] = 0.0
        return 1.0

    def state(self):
        return {}

    def restore(self, state):
        pass


def products(model: FactorizationMachine) -> torch.Tensor:
    return (model.user_factors @ model.item_factors.t()).detach()


@pytest.mark.parametrize("shares", [None, 0.25])
def test_parameters_without_data_stay_under_rotation(shares):
    pairs = wider(random_pairs(0), 2)
    model = drawn(pairs)
    before, weights = products(model), model.item_weights.detach().clone()
    share = None if shares is None else {"user": torch.full((14,), shares), "item": torch.full((11,), shares)}
    learner = ProximalLearner(Turning(model, lost=2), start_of(model, share), pairs)
    for _ in range(2):
        learner.sweep()
    assert torch.allclose(products(model), before, atol=1e-5)
    assert torch.equal(model.item_weights[-2:], weights[-2:])
    moved = {None: 2.0, 0.25: 0.25 * 1.25}[shares]
    assert torch.allclose(model.item_weights[:-2] - weights[:-2], torch.tensor(moved))


def test_a_share_of_1_is_bit_identical_to_plain_training():
    pairs = random_pairs(1)
    free, bound = drawn(pairs), drawn(pairs)
    ImplicitALS(free, pairs, SquareConfig()).sweep()
    ones = {"user": torch.ones(12), "item": torch.ones(9)}
    ProximalLearner(ImplicitALS(bound, pairs, SquareConfig()), start_of(bound, ones), pairs).sweep()
    for one, other in zip(bound.parameters(), free.parameters(), strict=True):
        assert torch.equal(one, other)


def test_parameters_without_new_data_do_not_change():
    pairs = wider(random_pairs(3), 2)
    model = drawn(pairs)
    start = start_of(model)
    learner = ProximalLearner(ImplicitALS(model, pairs, SquareConfig(regularisation=0.5)), start, pairs)
    learner.sweep()
    assert float(model.user_factors[-2:].detach().norm()) == pytest.approx(
        float(start.parameters["user_factors"][-2:].norm()), rel=1e-4
    )
    assert torch.equal(model.item_weights[-2:], start.parameters["item_weights"][-2:])


def test_the_start_is_kept_if_no_sweep_improves_on_it():
    pairs = random_pairs(2)
    model = drawn(pairs)
    before = start_of(model).parameters
    figures = iter([0.4, 0.3, 0.2])
    learner = ImplicitALS(model, pairs, SquareConfig())
    position = run_sweeps(
        learner, 9, StoppingConfig(), lambda _: {"ndcg@10": next(figures)}, lambda report: None, NAMES, beat=0.5
    )
    assert (position.sweep, position.best_sweep, position.best) == (3, 0, 0.5)
    assert all(torch.equal(table, before[name]) for name, table in model.named_parameters())
