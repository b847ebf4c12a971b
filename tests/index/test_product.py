from functools import cache

import faiss
import numpy as np
import pytest

from recall.index.ivf import IvfIndex
from recall.index.lists import Lists
from recall.index.product import product_lists
from tests.index.test_contract import brute_force, users_like_a_model, vectors_like_a_model


@cache
def model_vectors() -> np.ndarray:
    return vectors_like_a_model(4000, 17, 0)


@cache
def model_users() -> np.ndarray:
    return users_like_a_model(300, 17, 1)


def test_inner_products_are_those_before_the_map() -> None:
    lists = Lists.build(model_vectors(), model_users(), 8, seed=0)
    whole = product_lists(lists)
    first = faiss.downcast_VectorTransform(whole.chain.at(0))
    matrix = faiss.vector_to_array(first.A).reshape(first.d_out, first.d_in)
    inner = faiss.downcast_index(whole.index)
    assert inner.pq.M == 12  # 17 components, padded to 24, two a code
    centroids = inner.quantizer.reconstruct_n(0, 8)
    np.testing.assert_allclose(
        model_users() @ matrix.T @ centroids.T, model_users() @ lists.cells.centroids.T, rtol=1e-2, atol=1.0
    )


def test_codes_are_precise_where_users_look() -> None:
    """Users who look in four of sixteen directions only: codes spent on those find what codes spent on all do not."""
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((6000, 16)).astype(np.float32)
    narrow = (rng.standard_normal((200, 16)) * ([1.0] * 4 + [0.01] * 12)).astype(np.float32)

    def found(queries: np.ndarray, asked: np.ndarray) -> float:
        index = IvfIndex.build(Lists.build(vectors, queries, 4, seed=0), "pq").with_refine(2)
        rows = index.search(asked, 20).rows
        return float(
            np.mean([len(set(one) & set(brute_force(vectors, q, 20))) / 20 for one, q in zip(rows, asked, strict=True)])
        )

    blind = rng.standard_normal((200, 16)).astype(np.float32)
    assert found(narrow, narrow[:60]) > found(blind, narrow[:60]) + 0.05


@pytest.mark.parametrize("size", [1, 5, 40])
def test_fewer_vectors_than_code_words(size: int) -> None:
    index = IvfIndex.build(Lists.build(model_vectors()[:size], model_users(), 1, seed=0), "pq")
    assert sorted(index.search(model_users()[:1], size).rows[0]) == list(range(size))
