import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from recall.features.sparse import SparseRows
from recall.models.fm import FactorizationMachine, SparseBatch


@st.composite
def sides(draw):
    """A model with random weights and n random rows on each side, with empty rows and rows of many features among them."""
    seed = draw(st.integers(0, 2**32 - 1))
    n, k = draw(st.integers(1, 6)), draw(st.integers(0, 5))
    rng = np.random.default_rng(seed)
    n_features = {side: draw(st.integers(1, 7)) for side in ("user", "item")}
    rows = {}
    for side, width in n_features.items():
        lengths = rng.integers(0, width + 1, n)
        rows[side] = SparseRows(
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([rng.permutation(width)[:length] for length in lengths]).astype(np.int32),
            rng.normal(size=lengths.sum()).astype(np.float32),
            width,
        )
    model = FactorizationMachine(n_features["user"], n_features["item"], k).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))
    return model, rows["user"], rows["item"]


def dense(rows):
    x = np.zeros((len(rows), rows.n_features))
    for r in range(len(rows)):
        part = slice(rows.indptr[r], rows.indptr[r + 1])
        x[r, rows.indices[part]] = rows.weights[part]
    return x


def pairwise_definition(model, users, items):
    """The FM as Rendle writes it: every pair of features once."""
    x = np.concatenate([dense(users), dense(items)], axis=1)
    v = torch.cat([model.user_factors, model.item_factors]).detach().numpy()
    w = torch.cat([model.user_weights, model.item_weights]).detach().numpy()
    y = model.bias.item() + x @ w
    for j in range(len(v)):
        for m in range(j + 1, len(v)):
            y = y + (v[j] @ v[m]) * x[:, j] * x[:, m]
    return y


@given(sides())
def test_score_is_the_pairwise_definition(case):
    model, users, items = case
    got = model.score(SparseBatch.of(users, torch.float64), SparseBatch.of(items, torch.float64)).detach().numpy()
    np.testing.assert_allclose(got, pairwise_definition(model, users, items), rtol=1e-9, atol=1e-9)


@given(sides())
def test_score_is_offset_plus_inner_product(case):
    model, users, items = case
    u, i = SparseBatch.of(users, torch.float64), SparseBatch.of(items, torch.float64)
    split = model.user_offset(u) + (model.user_vectors(u) * model.item_vectors(i)).sum(-1)
    np.testing.assert_allclose(split.detach().numpy(), model.score(u, i).detach().numpy(), rtol=1e-9, atol=1e-9)


def test_same_seed_gives_the_same_start():
    first, second = (FactorizationMachine(5, 6, 4) for _ in range(2))
    for model in (first, second):
        model.initialise(0.1, torch.Generator().manual_seed(7))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.user_factors.abs().sum() > 0
