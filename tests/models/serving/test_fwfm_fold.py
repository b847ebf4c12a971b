"""Truncated singular values of the field weights of an FwFM."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.features.csr import FeatureLayout
from recall.models.serving.fwfm import FwFMTables
from recall.models.serving.layout import field_parts
from tests.models.torch.worlds import rows_of


def tables_with(between: np.ndarray, k: int = 3, seed: int = 0) -> FwFMTables:
    """Create random tables with the weights `between` user and item fields."""
    rng = np.random.default_rng(seed)
    users, items = (FeatureLayout.of_sizes([(f"f{field}", 2) for field in range(count)]) for count in between.shape)
    n_user = len(users)
    weights = rng.normal(size=(n_user + len(items),) * 2)
    weights = weights + weights.T
    weights[:n_user, n_user:], weights[n_user:, :n_user] = between, between.T

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return FwFMTables(
        users,
        items,
        drawn(users.n_features, k),
        drawn(users.n_features),
        drawn(items.n_features, k),
        drawn(items.n_features),
        0.5,
        weights.astype(np.float32),
        between.astype(np.float32),
        np.eye(len(items), dtype=np.float32),
    )


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_the_number_of_parts_is_at_most_the_rank(users: int, items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, min(users, items) + 1))
    tables = tables_with(rng.normal(size=(users, rank)) @ rng.normal(size=(rank, items)))
    folded = tables.folded(None, 1e-6)
    assert folded.rank <= rank
    assert folded.dim == folded.rank * folded.k + 1
    assert folded.lost < 1e-5
    user_rows, item_rows = rows_of(rng, tables.user_fields, 4), rows_of(rng, tables.item_fields, 5)
    whole = tables.user_vectors(user_rows) @ tables.item_vectors(item_rows).T
    shorter = folded.user_vectors(user_rows) @ folded.item_vectors(item_rows).T
    np.testing.assert_allclose(shorter, whole, atol=1e-4 * max(1.0, float(np.abs(whole).max())), rtol=0)


def test_the_loss_of_a_smaller_rank_is_reported() -> None:
    between = np.diag([4.0, 3.0, 0.0])
    tables = tables_with(between)
    assert [tables.folded(rank, 0.0).lost for rank in (1, 2, 3)] == pytest.approx([3 / 5, 0, 0], abs=1e-6)
    assert tables.folded(1, 0.0).rank == 1
    assert tables.folded(9, 0.0).rank <= 3
    np.testing.assert_allclose(tables.folded(1, 0.0).across, np.diag([4.0, 0.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize(("tolerance", "rank"), [(0.0, 3), (0.2, 2), (0.6, 1), (0.99, 1)])
def test_a_tolerance_drops_small_singular_values(tolerance: float, rank: int) -> None:
    assert tables_with(np.diag([4.0, 2.0, 0.5])).folded(None, tolerance).rank == rank


def test_zero_weights_give_one_part() -> None:
    folded = tables_with(np.zeros((2, 3))).folded(None, 1e-6)
    assert (folded.rank, folded.lost) == (1, 0.0)


def test_a_truncated_model_scores_and_explains_consistently() -> None:
    rng = np.random.default_rng(3)
    folded = tables_with(rng.normal(size=(4, 3)), seed=4).folded(1, 0.0)
    users, items = rows_of(rng, folded.user_fields, 3), rows_of(rng, folded.item_fields, 3)
    served = folded.user_vectors(users) @ folded.item_vectors(items).T
    scores = folded.scores(users, items) - folded.user_offset(users)[:, None]
    np.testing.assert_allclose(served, scores, atol=1e-4)
    one = np.array([1])
    parts = field_parts(folded, users.take(one), items.take(one), folded.user_fields, folded.item_fields)
    assert parts.total == pytest.approx(float(scores[1, 1]), abs=1e-5)
