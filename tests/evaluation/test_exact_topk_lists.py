import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recall.evaluation.exact_topk import ItemLists

lists_of_items = st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=6)


def build(lists):
    owners = np.array([r for r, items in enumerate(lists) for _ in items], dtype=np.int64)
    items = np.array([item for items in lists for item in items], dtype=np.int64)
    return ItemLists.from_pairs(owners, items, len(lists))


@given(lists_of_items)
def test_from_pairs_sorts_lists_and_drops_duplicates(lists):
    built = build(lists)
    assert len(built) == len(lists)
    assert [built[r].tolist() for r in range(len(lists))] == [sorted(set(items)) for items in lists]
    assert built.lengths.tolist() == [len(set(items)) for items in lists]
    assert built.indptr.dtype == np.int64
    assert built.items.dtype == np.int32


@given(lists_of_items, st.data())
def test_take_and_between_agree_with_indexing(lists, data):
    built = build(lists)
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8)) if lists else []
    taken = built.take(np.array(rows, dtype=np.int64))
    assert [taken[p].tolist() for p in range(len(rows))] == [built[r].tolist() for r in rows]
    first = data.draw(st.integers(0, len(lists)))
    last = data.draw(st.integers(first, len(lists)))
    part = built.between(first, last)
    assert [part[p].tolist() for p in range(len(part))] == [built[r].tolist() for r in range(first, last)]


@given(lists_of_items, st.integers(1, 5), st.randoms(use_true_random=False))
def test_contains_agrees_with_sets(lists, width, random):
    rows = np.array([[random.randint(-1, 14) for _ in range(width)] for _ in lists], dtype=np.int64).reshape(-1, width)
    expected = [[item in set(items) for item in row] for items, row in zip(lists, rows.tolist(), strict=True)]
    assert build(lists).contains(rows).tolist() == expected


def test_the_empty_marker_is_never_contained():
    lists = ItemLists.from_pairs(np.array([0, 1]), np.array([3, 3]), 2)
    assert not lists.contains(np.array([[-1], [-1]])).any()


def test_empty_lists_are_supported():
    empty = ItemLists.empty(3)
    assert len(empty) == 3
    assert empty.lengths.tolist() == [0, 0, 0]
    assert not empty.contains(np.zeros((3, 2), dtype=np.int64)).any()


@given(lists_of_items, lists_of_items)
def test_shared_agrees_with_sets(lists, others):
    others = (others + [[]] * len(lists))[: len(lists)]
    expected = [item in others[r] for r, items in enumerate(lists) for item in sorted(set(items))]
    assert build(lists).shared(build(others)).tolist() == expected
