import numpy as np
import pytest
import torch

from recall.config import SquareConfig, StoppingConfig
from recall.features.sparse import SparseRows
from recall.models.fm import FactorizationMachine
from recall.training.loop import run_sweeps
from recall.training.pairs import ObservedPairs
from recall.training.warm import Anchored, WarmStart
from recall.training.whole_catalogue import WholeCatalogueSolver
from tests.training.test_loop import NAMES
from tests.training.worlds import random_pairs


def drawn(pairs: ObservedPairs, seed: int = 0) -> FactorizationMachine:
    model = FactorizationMachine(pairs.contexts.n_features, pairs.items.n_features, 3)
    model.initialise(0.3, torch.Generator().manual_seed(seed))
    return model


def wider(pairs: ObservedPairs, more: int) -> ObservedPairs:
    """The same pairs in feature spaces with rows that nothing has."""
    sides = [
        SparseRows(rows.indptr, rows.indices, rows.weights, rows.n_features + more) for rows in (pairs.contexts, pairs.items)
    ]
    return ObservedPairs(*sides, pairs.indptr, pairs.observed, pairs.weights)


def start_of(model: FactorizationMachine, shares=None) -> WarmStart:
    tables = {name: table.detach().clone() for name, table in model.named_parameters()}
    return WarmStart(tables, "test", shares)


def test_rows_are_taken_from_where_they_come_from():
    arrays = {"user_factors": np.arange(6.0).reshape(3, 2), "item_weights": np.arange(2.0), "bias": np.ones(1)}
    start = WarmStart.of(arrays, {"user": np.array([0, 2, 0]), "item": np.array([1])}, "test")
    assert start.parameters["user_factors"].tolist() == [[0, 1], [4, 5], [0, 1]]
    assert start.parameters["item_weights"].tolist() == [1]
    assert start.parameters["bias"].tolist() == [1]


def test_what_the_data_do_not_speak_of_stays_and_the_rest_learns():
    pairs = wider(random_pairs(0), 2)
    model = drawn(pairs)
    start = start_of(model)
    learner = Anchored(WholeCatalogueSolver(model, pairs, SquareConfig(regularisation=0.5)), start, pairs)
    learner.sweep()
    for name in ("user_factors", "item_factors", "item_weights"):
        table = model.get_parameter(name)
        assert torch.equal(table[-2:], start.parameters[name][-2:])
        assert not torch.equal(table[:-2], start.parameters[name][:-2])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_row_goes_its_share_of_the_way(share):
    pairs = random_pairs(1)
    free, bound = drawn(pairs), drawn(pairs)
    config = SquareConfig()
    WholeCatalogueSolver(free, pairs, config).sweep()
    start = start_of(bound, {"user": torch.full((12,), share), "item": torch.full((9,), share)})
    Anchored(WholeCatalogueSolver(bound, pairs, config), start, pairs).sweep()
    for name, table in bound.named_parameters():
        went = start.parameters[name] + share * (free.get_parameter(name) - start.parameters[name])
        assert torch.allclose(table, went, atol=1e-6), name
        assert share < 1 or torch.equal(table, free.get_parameter(name))


def test_a_start_that_no_sweep_betters_stands():
    pairs = random_pairs(2)
    model = drawn(pairs)
    before = start_of(model).parameters
    figures = iter([0.4, 0.3, 0.2])
    learner = WholeCatalogueSolver(model, pairs, SquareConfig())
    position = run_sweeps(
        learner, 9, StoppingConfig(), lambda _: {"ndcg@10": next(figures)}, lambda report: None, NAMES, beat=0.5
    )
    assert (position.sweep, position.best_sweep, position.best) == (3, 0, 0.5)
    assert all(torch.equal(table, before[name]) for name, table in model.named_parameters())
