from functools import cache

import numpy as np
import pytest

from recall.index.coarse import InvertedLists, lists_for
from tests.index.test_base import users_like_a_model, vectors_like_a_model


@cache
def model_vectors() -> np.ndarray:
    return vectors_like_a_model(3000, 9, 0)


def test_every_vector_is_in_its_best_cell() -> None:
    lists = InvertedLists.build(model_vectors(), users_like_a_model(200, 9, 1), 16, seed=0, threads=2)
    turned, centroids = model_vectors() * lists.scale @ lists.cells.metric, lists.cells.centroids @ lists.cells.metric
    nearest = np.square(turned[:, None] - centroids[None]).sum(axis=2).argmin(axis=1)
    assert (lists.assigned == nearest).mean() > 0.999
    assert lists.count == 16


def test_chunks_are_the_scaled_vectors_in_order() -> None:
    lists = InvertedLists.build(model_vectors(), model_vectors()[:10], 4, seed=0)
    vectors, cells = (np.concatenate(parts) for parts in zip(*lists.chunks(), strict=True))
    np.testing.assert_array_equal(vectors, model_vectors() * lists.scale)
    np.testing.assert_array_equal(cells, lists.assigned)


@pytest.mark.parametrize(("size", "lists"), [(1, 1), (15, 1), (1000, 32), (100_000, 256), (1_000_000, 1024)])
def test_the_number_of_lists_grows_with_the_square_root(size: int, lists: int) -> None:
    assert lists_for(size) == lists
