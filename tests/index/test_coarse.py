import numpy as np

from recall.index.coarse import CoarseQuantizer


def test_cells_follow_the_variance_of_users() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, (4000, 2)).astype(np.float32)
    along_second = np.stack([np.full(200, 1e-4), rng.standard_normal(200)], axis=1).astype(np.float32)
    cells = CoarseQuantizer.fit(vectors, along_second, 8, seed=0)
    spread = cells.centroids.max(axis=0) - cells.centroids.min(axis=0)
    assert spread[1] > 1.5  # they divide the range of the second
    assert spread[0] < 0.5  # and ignore the first


def test_a_centroid_is_the_mean_of_its_cell() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(0, 10, (6, 5))
    vectors = (means[rng.integers(0, 6, 240)] + 0.01 * rng.standard_normal((240, 5))).astype(np.float32)
    cells = CoarseQuantizer.fit(vectors, rng.standard_normal((50, 5)).astype(np.float32), 6, seed=3)
    assigned = cells.assign(vectors)
    for cell in set(assigned):
        np.testing.assert_allclose(cells.centroids[cell], vectors[assigned == cell].mean(axis=0), atol=0.05)


def test_one_user_is_enough() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((100, 9)).astype(np.float32)
    cells = CoarseQuantizer.fit(vectors, np.ones((1, 9), dtype=np.float32), 4, seed=0)
    assert np.isfinite(cells.centroids).all()
    assert set(cells.assign(vectors)) == {0, 1, 2, 3}
