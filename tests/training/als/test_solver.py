import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from recall.config import SquareConfig
from recall.features.csr import FeatureLayout, SparseRows
from recall.features.vocabulary import FIRST, UNKNOWN
from recall.models.torch.base import SparseBatch
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fwfm import FieldWeightedFM
from recall.training.als import shards
from recall.training.als.solver import ImplicitALS
from recall.training.masking import Roles
from recall.training.pairs import Untrained
from tests.training.kinds import KINDS, USERS, fresh, with_fields
from tests.training.worlds import dense, random_pairs, two_blocks


@torch.no_grad()
def scores(model, pairs):
    phi = model.user_vectors(SparseBatch.of(pairs.contexts, fields=pairs.user_fields))
    return phi @ model.item_vectors(SparseBatch.of(pairs.items, fields=pairs.item_fields)).t()


def loss_by_definition(model, pairs, config):
    """Compute the loss as in the module's docstring, pair by pair, in float64 with autograd."""
    model = copy.deepcopy(model).double()
    phi = model.user_vectors(SparseBatch.of(pairs.contexts, torch.float64, pairs.user_fields))
    psi = model.item_vectors(SparseBatch.of(pairs.items, torch.float64, pairs.item_fields))
    y = phi @ psi.t()
    xu, xi = torch.from_numpy(dense(pairs.contexts)), torch.from_numpy(dense(pairs.items))
    s = torch.zeros_like(y)
    s[pairs.owners, pairs.observed.astype(np.int64)] = torch.from_numpy(pairs.weights).double()
    a, b = (s.sum(axis).clamp_min(1) ** power for axis, power in ((1, config.activity), (0, config.popularity)))
    a, b = a / a.mean(), b / b.mean()
    alpha = config.unobserved * s.sum() / (a.sum() * b.sum())
    loss = (s * (1 - y).square()).sum() + alpha * (a[:, None] * b * y.square()).sum()
    seen_u = xu.square().t() @ (s.sum(1) + alpha * a * b.sum())
    seen_i = xi.square().t() @ (s.sum(0) + alpha * b * a.sum())
    penalty_u = config.regularisation * seen_u.clamp_min(1e-6) ** config.nu
    penalty_i = config.regularisation * seen_i.clamp_min(1e-6) ** config.nu
    v, w = model.user_factors.flatten(1), model.item_factors.flatten(1)
    loss = loss + (penalty_u[:, None] * v.square()).sum() + (penalty_i[:, None] * w.square()).sum()
    if isinstance(model, FieldWeightedFM):
        off = (model.field_weights - 1)[:, len(USERS) :].triu(-len(USERS))  # pairs with an item field
        loss = loss + config.regularisation * (s.sum() * (1 + config.unobserved)) ** config.nu * off.square().sum()
    return (loss + (config.first_order * penalty_i * model.item_weights.square()).sum()) / s.sum(), dict(
        model.named_parameters()
    )


CONFIGS = [
    SquareConfig(unobserved=2.0, regularisation=0.05),
    SquareConfig(unobserved=5.0, regularisation=0.02, popularity=0.5, activity=0.5, nu=0.5, first_order=3.0),
]


def ids(n, n_features):
    """Draw rows with one feature each, some features in several rows and some in none."""
    return SparseRows.one_hot(np.random.default_rng(n).integers(0, n_features, n).astype(np.int32), n_features)


WORLDS = {
    "fields": lambda seed: random_pairs(seed),
    "user ids": lambda seed: replace(random_pairs(seed), contexts=ids(40, 30)),
    "item ids": lambda seed: replace(random_pairs(seed), items=ids(25, 20)),
    "ids": lambda seed: replace(random_pairs(seed), contexts=ids(40, 30), items=ids(25, 20)),
}
"""Problems that use different code paths of the solver."""


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request):
    return request.param


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_converges_to_a_zero_gradient(kind):
    pairs = with_fields(random_pairs(8))
    solver = ImplicitALS(fresh(pairs, k=3, kind=kind), pairs, CONFIGS[0].model_copy(update={"steps": 10}))
    start, start_tables = loss_by_definition(solver.model, pairs, CONFIGS[0])
    losses = []
    for _ in range(60):
        losses.append(solver.sweep())
        if len(losses) % 20 == 1:
            assert losses[-1] == pytest.approx(float(loss_by_definition(solver.model, pairs, CONFIGS[0])[0].detach()), rel=1e-4)
    assert losses[0] < float(start.detach())
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(losses))
    end, end_tables = loss_by_definition(solver.model, pairs, CONFIGS[0])
    for name in ("user_factors", "item_factors", "item_weights", "field_weights"):
        if name in end_tables and end_tables[name].numel():
            (before,) = torch.autograd.grad(start, start_tables[name], retain_graph=True)
            (after,) = torch.autograd.grad(end, end_tables[name], retain_graph=True)
            assert after.norm() < 0.02 * before.norm(), name


def test_a_field_aware_model_of_one_item_field_learns():
    pairs = replace(random_pairs(8), user_fields=USERS)
    model = FieldAwareFM(pairs.contexts.n_features, pairs.items.n_features, 3, len(USERS), 1)
    model.initialise(0.3, torch.Generator().manual_seed(0))
    solver = ImplicitALS(model, pairs, CONFIGS[0])
    start = float(loss_by_definition(model, pairs, CONFIGS[0])[0].detach())
    assert solver.sweep() < start
    assert solver.sweep() == pytest.approx(float(loss_by_definition(model, pairs, CONFIGS[0])[0].detach()), rel=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_reported_loss_matches_the_definition(config, world):
    pairs = world(1)
    solver = ImplicitALS(fresh(pairs), pairs, config)
    for _ in range(3):
        reported = solver.sweep()
        assert reported == pytest.approx(float(loss_by_definition(solver.model, pairs, config)[0].detach()), rel=1e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_loss_never_rises_and_converges_to_a_zero_gradient(config, world):
    pairs = world(2)
    solver = ImplicitALS(fresh(pairs), pairs, config.model_copy(update={"steps": 10}))
    losses = [solver.sweep() for _ in range(100)]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(losses))
    start, start_tables = loss_by_definition(fresh(pairs), pairs, config)
    end, end_tables = loss_by_definition(solver.model, pairs, config)
    for name in ("user_factors", "item_factors", "item_weights"):
        (before,) = torch.autograd.grad(start, start_tables[name], retain_graph=True)
        (after,) = torch.autograd.grad(end, end_tables[name], retain_graph=True)
        assert after.norm() < 0.01 * before.norm(), name


def test_blocking_of_contexts_does_not_change_results(monkeypatch):
    pairs = random_pairs(3, contexts=700)
    whole = ImplicitALS(fresh(pairs), pairs, CONFIGS[0])
    monkeypatch.setattr(shards, "_BLOCK_VALUES", 1)
    cut = ImplicitALS(fresh(pairs), pairs, CONFIGS[0])
    for _ in range(3):
        assert whole.sweep() == pytest.approx(cut.sweep(), rel=1e-4)
    torch.testing.assert_close(scores(whole.model, pairs), scores(cut.model, pairs), rtol=1e-3, atol=1e-3)


def test_equal_seeds_give_bit_identical_results():
    pairs = random_pairs(4, contexts=900)
    models = []
    for _ in range(2):
        solver = ImplicitALS(fresh(pairs, k=8), pairs, CONFIGS[1])
        for _ in range(3):
            solver.sweep()
        models.append(solver.model)
    for first, second in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(first, second)


def test_results_are_bit_identical_for_any_number_of_threads():
    pairs = random_pairs(6, contexts=5000)
    threads, models = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            solver = ImplicitALS(fresh(pairs, k=16), pairs, CONFIGS[0])
            for _ in range(3):
                solver.sweep()
            models.append(solver.model)
    finally:
        torch.set_num_threads(threads)
    for other in models[1:]:
        for first, second in zip(models[0].parameters(), other.parameters(), strict=True):
            assert torch.equal(first, second)


def test_the_solver_learns_a_known_model():
    pairs, seen, held_out = two_blocks(np.random.default_rng(5))
    solver = ImplicitALS(fresh(pairs, k=2), pairs, SquareConfig(unobserved=2.0, regularisation=0.02))
    for _ in range(10):
        solver.sweep()
    found = scores(solver.model, pairs).numpy()
    found[seen] = -np.inf
    top = np.argsort(-found, axis=1)[:, :8]
    assert np.take_along_axis(held_out, top, axis=1).mean() > 0.99


def with_roles(pairs):
    """The same pairs with an id as the first field of both sides."""
    users, items = FeatureLayout.of_sizes([("id", 6), ("age", 6)]), FeatureLayout.of_sizes([("id", 5), ("tag", 4)])
    roles = Roles(items, np.array([True, False]), np.ones(2, dtype=bool))
    return replace(pairs, user_fields=users, item_fields=items, untrained=Untrained(roles=roles))


def test_masked_items_train_the_unknown_row_and_threads_change_no_bit():
    pairs = with_roles(random_pairs(6, contexts=900))
    for rows in (pairs.contexts, pairs.items):
        rows.indices[rows.indices == UNKNOWN] = FIRST  # the data contain no unknown ids
    pairs = replace(pairs, contexts=summed(pairs.contexts), items=summed(pairs.items))
    threads, models = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model = fresh(pairs, k=4)
            for table in (model.user_factors, model.item_factors):
                table.data[UNKNOWN] = 0.0
            solver = ImplicitALS(model, pairs, SquareConfig(drop=0.2), seed=3)
            for _ in range(3):
                solver.sweep()
            models.append(solver.model)
    finally:
        torch.set_num_threads(threads)
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)
    assert float(models[0].item_factors[UNKNOWN].detach().norm()) > 1e-3


def summed(rows):
    """Merge duplicate features within rows."""
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    return SparseRows.from_coo(owner, rows.indices, rows.weights, len(rows), rows.n_features)
