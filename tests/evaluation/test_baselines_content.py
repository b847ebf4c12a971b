import numpy as np

from recall.evaluation.baselines import content_lists
from recall.evaluation.exact_topk import ItemLists
from recall.features.csr import SparseRows


def lists(*rows):
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return ItemLists.from_pairs(owners, np.array([item for row in rows for item in row], dtype=np.int64), len(rows))


def features(*columns):
    """Rows with one feature of weight 1 each."""
    count = len(columns)
    return SparseRows.from_coo(np.arange(count), np.array(columns), np.ones(count, np.float32), count, max(columns) + 1)


def test_items_with_more_of_the_profile_come_first():
    rows = features(0, 1, 0, 2, 1)
    found = content_lists(rows, lists([0, 2, 1], [3], []), lists([0], [], []), 3)
    assert found[0, 0] == 2
    assert set(found[0, 1:]) == {1, 4}
    assert found[1, 0] == 3
    assert (found[2] == -1).all()


def test_equal_items_are_in_an_order_that_is_not_the_tables():
    count = 1000
    found = content_lists(features(*[0] * count), lists([5], [6]), lists([5], [6, 7]), 20)
    assert 300 < found[0].mean() < 700
    assert not np.isin(found[0], [5]).any()
    assert not np.isin(found[1], [6, 7]).any()
    kept = [row[~np.isin(row, [5, 6, 7])] for row in found]
    shared = min(map(len, kept))
    assert np.array_equal(kept[0][:shared], kept[1][:shared])
