import numpy as np
import pytest
import torch

from recall.models.torch.base import SparseBatch
from recall.training.negatives import MinedNegatives, Negatives
from tests.training.test_sgd import model_of, scores_of
from tests.training.worlds import random_pairs


def mined(share, pool=5):
    pairs = random_pairs(4, contexts=30, items=40)
    model = model_of(pairs, scale=1.0)
    source = MinedNegatives(model, pairs, Negatives(pairs, 0.5), share, pool, seed=0)
    source.begin(0)
    return pairs, model, source


def test_hard_negatives_are_unobserved_top_items():
    pairs, model, source = mined(1.0)
    drawn = source.draw(np.arange(30), 200, np.random.default_rng(0))
    top = np.argsort(-scores_of(model, pairs), axis=1, kind="stable")[:, :5]
    for context in range(30):
        own = set(pairs.observed[pairs.indptr[context] : pairs.indptr[context + 1]].tolist())
        fit = set(top[context].tolist()) - own
        found = set(drawn[context].tolist())
        assert not found & own
        if fit:
            assert found == fit


def test_a_share_of_negatives_is_mined():
    pairs, model, source = mined(0.25)
    top = np.argsort(-scores_of(model, pairs), axis=1, kind="stable")[:, :5]
    drawn = source.draw(np.zeros(1, dtype=np.int64), 40_000, np.random.default_rng(0))[0]
    own = pairs.observed[: pairs.indptr[1]]
    hard = np.setdiff1d(top[0], own)
    law = np.maximum(np.bincount(pairs.observed, minlength=40), 1) ** 0.5
    law[own] = 0
    expected = 0.25 + 0.75 * law[hard].sum() / law.sum()
    assert np.isin(drawn, hard).mean() == pytest.approx(expected, abs=0.03)


def test_hard_negatives_use_the_model_at_the_start_of_the_epoch():
    pairs, model, source = mined(1.0)
    before = source.draw(np.arange(30), 50, np.random.default_rng(0))
    with torch.no_grad():
        model.item_factors.neg_()
        model.item_weights.neg_()
    source.begin(1)
    after = source.draw(np.arange(30), 50, np.random.default_rng(0))
    assert (before != after).mean() > 0.5
    assert torch.isfinite(model.item_vectors(SparseBatch.of(pairs.items))).all()
