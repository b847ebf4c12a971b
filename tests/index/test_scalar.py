from functools import cache

import faiss
import numpy as np
import pytest

from recall.index.engine import brute_force
from recall.index.lists import Lists
from recall.index.ranking import pad
from recall.index.scalar import TYPES, scalar_lists
from tests.index.test_contract import users_like_a_model, vectors_like_a_model


@cache
def model_vectors() -> np.ndarray:
    return vectors_like_a_model(5000, 17, 0)


@cache
def model_users() -> np.ndarray:
    return users_like_a_model(200, 17, 1)


@pytest.mark.parametrize("kind", TYPES)
def test_scores_by_codes_are_near_the_true_ones(kind: str) -> None:
    lists = Lists.build(model_vectors(), model_users(), 16, seed=0)
    inverted = scalar_lists(lists, kind)
    params = faiss.SearchParametersIVF()
    params.nprobe = 16
    scores, rows = inverted.search(pad(model_users()), 10, params=params)
    true = np.einsum("qd,qnd->qn", model_users(), model_vectors()[rows]) * lists.scale
    spread = np.abs(true).max()
    assert np.abs(scores - true).max() < {"ivf": 0.001, "ivf_int8": 0.02}[kind] * spread


def test_the_longest_items_are_not_cut_short() -> None:
    """One item far beyond all others: a range learnt from a sample would miss it."""
    vectors = model_vectors().copy()
    vectors[4321] *= 50
    lists = Lists.build(vectors, model_users(), 4, seed=0)
    inverted = scalar_lists(lists, "ivf_int8")
    params = faiss.SearchParametersIVF()
    params.nprobe = 4
    best = vectors[4321][None]
    scores, rows = inverted.search(pad(best), 1, params=params)
    assert rows[0, 0] == 4321 == brute_force(vectors, best, 1)[1][0, 0]
    assert scores[0, 0] == pytest.approx(float(best[0] @ best[0] * lists.scale), rel=0.02)
