import numpy as np
import pytest

from recall.index.coarse import cut_into_cells, lists_for, moment_roots
from tests.index.test_base import users_like_a_model, vectors_like_a_model


def test_cells_follow_the_variance_of_users() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, (4000, 2)).astype(np.float32)
    along_second = np.stack([np.full(200, 1e-4), rng.standard_normal(200)], axis=1).astype(np.float32)
    centroids, _ = cut_into_cells(vectors, 1.0, along_second, 8, seed=0, threads=1)
    spread = centroids.max(axis=0) - centroids.min(axis=0)
    assert spread[1] > 1.5  # they divide the range of the second
    assert spread[0] < 0.5  # and ignore the first


def test_a_centroid_is_the_mean_of_its_cell() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(0, 10, (6, 5))
    vectors = (means[rng.integers(0, 6, 240)] + 0.01 * rng.standard_normal((240, 5))).astype(np.float32)
    centroids, cells = cut_into_cells(vectors, 0.5, rng.standard_normal((50, 5)).astype(np.float32), 6, seed=3, threads=1)
    for cell in set(cells):
        np.testing.assert_allclose(centroids[cell], 0.5 * vectors[cells == cell].mean(axis=0), atol=0.05)


def test_one_user_is_enough() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((100, 9)).astype(np.float32)
    centroids, cells = cut_into_cells(vectors, 1.0, np.ones((1, 9), dtype=np.float32), 4, seed=0, threads=1)
    assert np.isfinite(centroids).all()
    assert set(cells) == {0, 1, 2, 3}


def test_every_vector_is_in_its_best_cell() -> None:
    vectors, users = vectors_like_a_model(3000, 9, 0), users_like_a_model(200, 9, 1)
    centroids, cells = cut_into_cells(vectors, 4.0, users, 16, seed=0, threads=2)
    metric, _ = moment_roots(users, 1e-4)
    nearest = np.square((4 * vectors @ metric)[:, None] - (centroids @ metric)[None]).sum(axis=2).argmin(axis=1)
    assert (cells == nearest).mean() > 0.999
    assert len(centroids) == 16


@pytest.mark.parametrize(("size", "lists"), [(1, 1), (15, 1), (1000, 32), (100_000, 256), (1_000_000, 1024)])
def test_the_number_of_lists_grows_with_the_square_root(size: int, lists: int) -> None:
    assert lists_for(size) == lists
