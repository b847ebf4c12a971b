"""The linear maps and Jacobians of every kind of model, compared with the model's vectors."""

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.func import functional_call

from recall.features.csr import FeatureLayout
from recall.models.torch.base import SparseBatch
from recall.training.als.parameterization import parameterization_of
from recall.training.als.shards import FeatureMatrix, Workers
from recall.training.als.sides import ItemSide
from tests.training.kinds import ITEMS, KINDS, USERS, fresh, with_fields
from tests.training.worlds import dense, random_pairs


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def matrix(rows, groups, n):
    return FeatureMatrix(rows, groups, [1] * n, Workers(1))


def world(kind):
    pairs = with_fields(random_pairs(9))
    model = fresh(pairs, k=3, kind=kind)
    with torch.no_grad():
        model.item_weights.normal_(generator=torch.Generator().manual_seed(1))
    form = parameterization_of(model, USERS, ITEMS)
    return pairs, model, form


def item_table(model, form):
    return torch.cat([model.item_weights.detach()[:, None], form.item_table()], dim=1)


def item_vectors(model, pairs):
    """psi as a function of the item table."""
    batch = SparseBatch.of(pairs.items, fields=ITEMS)

    def vectors(table):
        given = {"item_weights": table[:, 0], "item_factors": table[:, 1:].reshape(model.item_factors.shape)}
        return functional_call(_ItemVectors(model), {f"model.{name}": value for name, value in given.items()}, (batch,))

    return vectors


def together(psi):
    """Both parts of item vectors side by side."""
    return torch.cat([psi[0][:, None], psi[1]], dim=1)


class _ItemVectors(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.item_vectors(batch)


def test_the_item_side_matches_the_model(kind):
    pairs, model, form = world(kind)
    table = item_table(model, form)
    side = ItemSide(form, matrix(form.split_items(pairs.items), form.item_groups, len(pairs.items)), table)
    vectors = item_vectors(model, pairs)
    torch.testing.assert_close(together(side.vectors()), vectors(table))
    generator = torch.Generator().manual_seed(2)
    change, rows = torch.randn(table.shape, generator=generator), torch.randn(vectors(table).shape, generator=generator)
    moves = jacobian(vectors, table)  # [I, 1 + dim, features, 1 + width]
    torch.testing.assert_close(together(side.jvp(change)), torch.einsum("idfw,fw->id", moves, change), rtol=1e-4, atol=1e-4)
    pulled = side.vjp(rows[:, 0].contiguous(), rows[:, 1:].contiguous())
    torch.testing.assert_close(pulled, torch.einsum("idfw,id->fw", moves, rows), rtol=1e-4, atol=1e-4)


def test_the_user_side_matches_the_model(kind):
    pairs, model, form = world(kind)
    users = matrix(form.split_users(pairs.contexts), form.user_groups, len(pairs.contexts))
    batch = SparseBatch.of(pairs.contexts, fields=USERS)
    sums = torch.from_numpy(users.times(form.user_table().numpy()))
    vectors = torch.from_numpy(form.user_vectors(sums.numpy()))
    torch.testing.assert_close(vectors, model.user_vectors(batch).detach()[:, 1:])
    rows = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(3))
    back = torch.from_numpy(form.user_sums(rows.numpy()))
    torch.testing.assert_close((back * sums).sum(), (rows * vectors).sum())  # the transpose, by its definition


def test_diagonals_match_the_jacobian(kind):
    pairs, model, form = world(kind)
    table = item_table(model, form)
    side = ItemSide(form, matrix(form.split_items(pairs.items), form.item_groups, len(pairs.items)), table)
    curvature = torch.rand(1 + form.dim, generator=torch.Generator().manual_seed(4))
    seen = torch.from_numpy(dense(pairs.items)).square().sum(0).float()
    sees = torch.stack([seen, torch.zeros_like(seen)], dim=1)
    found = side.diagonal(torch.stack([curvature, curvature]), sees, curvature[0].expand(len(pairs.items)))
    expected = (curvature[:, None, None] * jacobian(item_vectors(model, pairs), table).square()).sum((0, 1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_rotating_the_factors_changes_no_score(kind):
    pairs, model, form = world(kind)
    batches = SparseBatch.of(pairs.contexts, fields=USERS), SparseBatch.of(pairs.items, fields=ITEMS)
    before = model.user_vectors(batches[0]) @ model.item_vectors(batches[1]).t()
    vectors = model.item_vectors(batches[1]).detach()[:, 1:].double()
    axes = form.axes((vectors.t() @ vectors).numpy())
    if axes is None:
        return
    with torch.no_grad():
        form.rotate(torch.from_numpy(axes).float())
    after = model.user_vectors(batches[0]) @ model.item_vectors(batches[1]).t()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    gram = torch.from_numpy(axes).t() @ vectors.t() @ vectors @ torch.from_numpy(axes)
    if form.diagonal:
        torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-6, rtol=0)


def test_a_model_with_fields_requires_them():
    model = fresh(random_pairs(9), kind="ffm")
    with pytest.raises(TypeError, match="FieldAwareFM"):
        parameterization_of(model, None, FeatureLayout.of_sizes([("what", 9)]))
