"""Contract tests of every torch model."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from recall.models.torch.base import Model, SparseBatch, side_of
from recall.models.torch.registry import Cosine
from tests.models.torch.worlds import KINDS, World, model_of, naive_scores, random_world, worlds

every_kind = pytest.mark.parametrize("kind", KINDS)


def close(got: torch.Tensor, expected: torch.Tensor | np.ndarray) -> None:
    torch.testing.assert_close(
        got, torch.as_tensor(expected), rtol=1e-8, atol=1e-8
    )  # cosines of near-zero vectors divide by 1e-6


class Scoring(torch.nn.Module):
    """Offset and inner product of a model as a module, for `functional_call`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, users: SparseBatch, items: SparseBatch) -> torch.Tensor:
        products = (self.model.user_vectors(users) * self.model.item_vectors(items)).sum(-1)
        return self.model.user_offset(users) + products


def scored_with(model: Model, tables: dict[str, torch.Tensor], users: SparseBatch, items: SparseBatch) -> torch.Tensor:
    """Return the scores of a model with other parameters."""
    named = {f"model.{name}": table for name, table in tables.items()}
    return functional_call(Scoring(model), named, (users, items))


@every_kind
@given(st.data())
def test_the_score_matches_the_definition_over_feature_pairs(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    close(world.model.score(*world.batches()).detach(), naive_scores(world))


@every_kind
@given(st.data())
def test_the_score_is_the_offset_and_one_inner_product(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    model, (users, items) = world.model, world.batches()
    phi, psi = model.user_vectors(users), model.item_vectors(items)
    assert phi.shape == psi.shape == (len(world.users), model.dim)
    close(model.user_offset(users) + (phi * psi).sum(-1), model.score(users, items))


@every_kind
@given(st.data())
def test_a_batch_with_local_features_is_scored_equally(kind: str, data: st.DataObject) -> None:
    world = data.draw(worlds(kind))
    users, user_features = SparseBatch.local(world.users, torch.float64, world.user_fields)
    items, item_features = SparseBatch.local(world.items, torch.float64, world.item_fields)
    expected = world.model.score(*world.batches())
    small = world.model.restricted(user_features.numpy(), item_features.numpy())
    assert type(small) is type(world.model)
    close(small.score(users, items), expected)
    used = {"user": user_features, "item": item_features}
    tables = {name: table[used[side_of(name)]] if side_of(name) else table for name, table in world.model.named_parameters()}
    close(scored_with(world.model, tables, users, items), expected)


@every_kind
def test_gradients_match_finite_differences(kind: str) -> None:
    world = random_world(kind, seed=5)
    users, items = world.batches()
    tables = {name: table.detach().requires_grad_() for name, table in world.model.named_parameters()}

    def scored(*values: torch.Tensor) -> torch.Tensor:
        return scored_with(world.model, dict(zip(tables, values, strict=True)), users, items)

    assert torch.autograd.gradcheck(scored, tuple(tables.values()), fast_mode=True)


@every_kind
def test_every_parameter_has_its_side_or_is_shared_and_small(kind: str) -> None:
    world = random_world(kind, seed=1)
    rows = {"user": world.user_fields.n_features, "item": world.item_fields.n_features}
    fields = len(world.user_fields) + len(world.item_fields)
    for name, table in world.model.named_parameters():
        side = side_of(name)
        assert table.numel() <= fields**2 if side is None else len(table) == rows[side], name


@every_kind
def test_initialisation_is_deterministic_with_the_given_length(kind: str) -> None:
    world = random_world(kind, seed=2)
    models = [model_of(kind, world.user_fields, world.item_fields, 64) for _ in range(2)]
    for model in models:
        model.initialise(0.1, torch.Generator().manual_seed(7))
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, two)
    factors = torch.cat([models[0].get_parameter(f"{side}_factors").detach().reshape(-1) for side in ("user", "item")])
    if factors.numel():
        assert factors.square().mean().item() * models[0].k == pytest.approx(0.01, rel=0.3)
    assert models[0].bias == 0
    assert torch.all(models[0].item_weights == 0)


@pytest.mark.parametrize("kind", ["fwfm", "ffm"])
def test_a_batch_without_fields_is_refused(kind: str) -> None:
    world = random_world(kind, seed=3)
    with pytest.raises(ValueError, match="made with fields"):
        world.model.score(SparseBatch.of(world.users, torch.float64), SparseBatch.of(world.items, torch.float64))


def test_a_field_weighted_model_starts_as_a_factorization_machine() -> None:
    world = random_world("fwfm", seed=4)
    plain = model_of("fm", world.user_fields, world.item_fields, world.model.k).double()
    weighted = model_of("fwfm", world.user_fields, world.item_fields, world.model.k).double()
    for model in (plain, weighted):
        model.initialise(0.5, torch.Generator().manual_seed(1))
    close(weighted.score(*world.batches()), plain.score(*world.batches()))


@pytest.mark.parametrize("kind", [kind for kind, made in KINDS.items() if issubclass(made, Cosine)])
@given(st.data())
def test_cosines_are_between_minus_1_and_1(kind: str, data: st.DataObject) -> None:
    world: World = data.draw(worlds(kind))
    assert world.model.score(*world.batches()).abs().max() <= 1 + 1e-12
    lengths = world.model.user_vectors(world.batches()[0]).norm(dim=1)
    close(lengths, torch.ones_like(lengths))  # the leading 1 keeps user vectors non-zero
