import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import DataError, TrainingError
from recall.evaluation import exact_topk
from recall.evaluation.exact_topk import ItemLists, rank_metrics, top_rows
from tests.evaluation import reference


@given(st.data())
def test_top_rows_match_a_full_sort_with_ties_by_row(data):
    queries, items, d = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 2))
    small = st.integers(-2, 2)  # few distinct values, so ties are common and products are exact
    phi = np.array(data.draw(st.lists(small, min_size=queries * d, max_size=queries * d)), np.float32).reshape(queries, d)
    psi = np.array(data.draw(st.lists(small, min_size=items * d, max_size=items * d)), np.float32).reshape(items, d)
    masks = [data.draw(st.sets(st.integers(0, items - 1))) for _ in range(queries)]
    pairs = np.array([(q, item) for q, mask in enumerate(masks) for item in mask], np.int64).reshape(-1, 2)
    n = data.draw(st.integers(1, 12))
    rows = top_rows(phi, psi, ItemLists.from_pairs(pairs[:, 0], pairs[:, 1], queries), n)
    assert rows.shape == (queries, min(n, items))
    for q in range(queries):
        expected = reference.top((psi @ phi[q]).tolist(), masks[q], n)
        assert rows[q].tolist() == expected + [-1] * (min(n, items) - len(expected))


@pytest.mark.parametrize("scored", [0, 1, 5, 9])
@pytest.mark.parametrize("masked", [0, 30, 195, 200])
def test_with_many_ties_the_first_rows_win(scored, masked):
    items, n = 200, 6
    random = np.random.default_rng(scored)
    psi = np.zeros((items, 1), dtype=np.float32)
    psi[random.choice(items, scored, replace=False), 0] = random.choice([1.0, 2.0], scored)
    mask = np.sort(random.choice(items, masked, replace=False))
    left_out = ItemLists.from_pairs(np.ones(masked, dtype=np.int64), mask, 2)  # the second of two queries
    rows = top_rows(np.ones((2, 1), dtype=np.float32), psi, left_out, n)
    for row, hidden in zip(rows, (set(), set(mask.tolist())), strict=True):
        expected = reference.top(psi[:, 0].tolist(), hidden, n)
        assert row.tolist() == expected + [-1] * (n - len(expected))


def test_blocking_does_not_change_results(monkeypatch):
    random = np.random.default_rng(0)
    phi, psi = random.normal(size=(50, 4)).astype(np.float32), random.normal(size=(30, 4)).astype(np.float32)
    masked = ItemLists.from_pairs(random.integers(0, 50, 200), random.integers(0, 30, 200), 50)
    whole = top_rows(phi, psi, masked, 7)
    monkeypatch.setattr(exact_topk, "_BLOCK", 7 * 30)
    assert (top_rows(phi, psi, masked, 7) == whole).all()
    assert not masked.contains(whole).any()


def test_a_block_world_is_ranked_perfectly_and_its_reverse_not_at_all():
    """Users and items in two blocks; the relevant items of a user are the five of the same block."""
    side = np.repeat([0, 1], 5)
    phi = psi = np.eye(2, dtype=np.float32)[side]
    relevant = ItemLists.from_pairs(*np.nonzero(side[:, None] == side), 10)
    right = rank_metrics(phi, psi, relevant, ItemLists.empty(10), (2, 5))
    assert right == pytest.approx(
        {"recall@2": 0.4, "recall@5": 1, **{f"{name}@{k}": 1 for name in ("hit_rate", "ndcg", "mrr", "map") for k in (2, 5)}}
    )
    assert set(rank_metrics(-phi, psi, relevant, ItemLists.empty(10), (2, 5)).values()) == {0.0}


def test_a_masked_relevant_item_is_a_miss():
    one = np.ones((1, 1), np.float32)
    relevant = ItemLists.from_pairs(np.array([0, 0]), np.array([0, 1]), 1)
    masked = ItemLists.from_pairs(np.array([0]), np.array([0]), 1)
    values = rank_metrics(one, np.array([[3.0], [2.0], [1.0]], np.float32), relevant, masked, (2,))
    assert values["recall@2"] == 0.5
    assert values["mrr@2"] == 1


def test_non_finite_vectors_are_refused():
    bad = np.array([[np.nan]], np.float32)
    with pytest.raises(TrainingError, match="phi"):
        top_rows(bad, np.ones((2, 1), np.float32), ItemLists.empty(1), 1)
    with pytest.raises(TrainingError, match="psi"):
        top_rows(np.ones((1, 1), np.float32), bad, ItemLists.empty(1), 1)


def test_no_requests_are_an_error():
    with pytest.raises(DataError, match="no interaction is held out"):
        rank_metrics(np.ones((0, 1), np.float32), np.ones((2, 1), np.float32), ItemLists.empty(0), ItemLists.empty(0), (1,))


def test_an_empty_catalogue_gives_empty_lists():
    assert top_rows(np.ones((2, 1), np.float32), np.ones((0, 1), np.float32), ItemLists.empty(2), 5).shape == (2, 0)


def test_a_large_catalogue_full_of_ties_is_ranked_by_row():
    random = np.random.default_rng(1)
    phi, psi = random.integers(-1, 2, (20, 3)).astype(np.float32), random.integers(-1, 2, (5000, 3)).astype(np.float32)
    rows = top_rows(phi, psi, ItemLists.empty(20), 10)
    for q in range(20):
        assert rows[q].tolist() == reference.top((psi @ phi[q]).tolist(), set(), 10)
