import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recall.evaluation.baselines import Popularity
from recall.evaluation.exact_topk import ItemLists, top_rows


def test_items_are_sorted_by_frequency_then_row():
    popularity = Popularity.ranked(np.array([1, 5, 0, 5]))
    assert popularity.top(ItemLists.empty(2), 3).tolist() == [[1, 3, 0]] * 2
    masked = ItemLists.from_pairs(np.array([0, 0, 1]), np.array([1, 0, 2]), 2)
    assert popularity.top(masked, 3).tolist() == [[3, 2, -1], [1, 3, 0]]


@given(st.data())
def test_popularity_is_exact_search_over_counts(data):
    counts = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=12)))
    items = st.integers(0, len(counts) - 1)
    masks = data.draw(st.lists(st.sets(items), min_size=1, max_size=5))
    pairs = np.array([(r, item) for r, mask in enumerate(masks) for item in mask], np.int64).reshape(-1, 2)
    masked = ItemLists.from_pairs(pairs[:, 0], pairs[:, 1], len(masks))
    n = data.draw(st.integers(1, 15))
    expected = top_rows(np.ones((len(masks), 1), np.float32), counts[:, None].astype(np.float32), masked, n)
    assert Popularity.ranked(counts).top(masked, n).tolist() == expected.tolist()


def test_an_empty_catalogue_has_no_popular_items():
    assert Popularity.ranked(np.zeros(0, np.int64)).top(ItemLists.empty(2), 5).shape == (2, 0)
