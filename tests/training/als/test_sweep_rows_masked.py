from dataclasses import replace

import numpy as np
import pytest

from recall.features.csr import FeatureLayout, SparseRows
from recall.training.als.sparse_kernels import Entries
from recall.training.als.sweep_rows import MaskedItems
from recall.training.masking import Roles
from tests.training.worlds import one_field, one_hot, random_pairs


def observed(pairs):
    return Entries(pairs.indptr, pairs.observed, pairs.weights)


def loss(phi, psi, pairs, a, b):
    """Compute the square loss of some items by definition, without regularisation."""
    y = phi @ psi.T
    owners = np.repeat(np.arange(len(phi)), np.diff(pairs.indptr))
    return (pairs.weights * (1 - y[owners, pairs.indices]) ** 2).sum() + (a[:, None] * b * y**2).sum()


@pytest.mark.parametrize("drop", [0.05, 0.5])
def test_merged_masked_ids_have_the_loss_of_all_items(drop):
    pairs = replace(random_pairs(1), items=one_hot(25))
    masked_items = MaskedItems(pairs.items, Roles.of(one_field("item", 25), pairs.items), drop, seed=3)
    (masked,) = masked_items.take_constant(lambda one: len(one.rows) == 1)
    assert masked_items.draw(0) is None
    rng = np.random.default_rng(0)
    phi, newcomer = rng.normal(size=(40, 4)), rng.normal(size=4)
    a, b = rng.random(40), rng.random(25).astype(np.float32)
    unmerged = drop * loss(phi, np.tile(newcomer, (25, 1)), observed(pairs), a, b)
    together = loss(phi, newcomer[None], masked.pairs(observed(pairs), 25), a, masked.summed(b))
    # the sums of s_ci over the pairs are equal, and so are the terms in y
    assert together == pytest.approx(unmerged, rel=1e-5)
    assert masked.rows.indices.tolist() == [0]


def test_sampled_masked_rows_weigh_as_much_as_all_rows():
    fields = FeatureLayout.of_sizes([("id", 3002), ("age", 40)])
    rng = np.random.default_rng(0)
    indices = np.stack([np.arange(2, 3002), 3002 + rng.integers(2, 40, 3000)], axis=1).astype(np.int32)
    rows = SparseRows(np.arange(3001) * 2, indices.reshape(-1), np.ones(6000, dtype=np.float32), fields.n_features)
    roles = Roles(fields, np.array([True, False]), np.ones(2, dtype=bool))
    masked_items = MaskedItems(rows, roles, 0.2, seed=0)
    fixed = masked_items.take_constant(lambda one: len(one.rows) == 1)
    ones, weight = np.ones(3000, dtype=np.float32), []
    for sweep in range(5):
        drawn = masked_items.draw(sweep)
        assert drawn is not None
        weight.append(drawn.summed(ones).sum() + sum(one.summed(ones).sum() for one in fixed))
        again = masked_items.draw(sweep)
        assert again is not None
        assert np.array_equal(again.sources, drawn.sources)
        assert np.array_equal(again.rows.indices, drawn.rows.indices)
    assert np.mean(weight) == pytest.approx(0.2 * 3000, rel=0.03)
    assert len(set(weight)) == 5


def test_masked_items_have_the_pairs_of_their_sources():
    pairs = random_pairs(4)
    roles = Roles(one_field("item", 9), np.array([False]), np.array([True]))
    masked_items = MaskedItems(pairs.items, roles, 0.5, seed=1)
    drawn = masked_items.draw(2)
    assert drawn is not None
    found = drawn.pairs(observed(pairs), 25)
    dense = np.zeros((40, 25))
    dense[pairs.owners, pairs.observed] = pairs.weights
    expected = np.zeros((40, len(drawn.rows)))
    for source, code in zip(drawn.sources, drawn.code, strict=True):
        expected[:, code] += dense[:, source] * drawn.weight
    result = np.zeros_like(expected)
    result[np.repeat(np.arange(40), np.diff(found.indptr)), found.indices] = found.weights
    assert result == pytest.approx(expected, rel=1e-5)
