import numpy as np

from recall.features.fields import Fields
from recall.features.sparse import SparseRows
from recall.training.pairs import ObservedPairs

USERS = Fields.of_sizes([("a", 5), ("b", 7)])
ITEMS = Fields.of_sizes([("c", 6)])


def pairs_of(rng, contexts=300, items=80):
    a, b = rng.integers(2, 5, contexts), rng.integers(7, 12, (contexts, 2))
    b[:, 1] = np.where(b[:, 1] == b[:, 0], 7 + (b[:, 0] - 6) % 5, b[:, 1])
    indices = np.concatenate([a[:, None], b], axis=1).astype(np.int32).reshape(-1)
    users = SparseRows(np.arange(contexts + 1) * 3, indices, np.full(len(indices), 0.5, np.float32), 12)
    catalogue = SparseRows(
        np.arange(items + 1), rng.integers(2, 6, items).astype(np.int32), np.ones(items, dtype=np.float32), 6
    )
    lengths = rng.integers(1, 6, contexts)
    observed = np.concatenate([np.sort(rng.choice(items, length, replace=False)) for length in lengths]).astype(np.int32)
    weights = rng.random(len(observed)).astype(np.float32) + 0.1
    return ObservedPairs(users, catalogue, np.concatenate([[0], np.cumsum(lengths)]), observed, weights, USERS, ITEMS)


def as_triples(pairs, rows):
    """(feature row of the context, feature row of the item, weight) of every pair of the given contexts."""
    triples = []
    for context in rows:
        for entry in range(pairs.indptr[context], pairs.indptr[context + 1]):
            triples.append((context, int(pairs.observed[entry]), float(pairs.weights[entry])))
    return triples


def test_dropping_leaves_what_was_there_and_adds_copies_with_unknown_values():
    pairs = pairs_of(np.random.default_rng(0))
    dropped = pairs.with_dropped_values(0.3, np.random.default_rng(1))
    n, m = len(pairs.contexts), len(pairs.items)
    assert len(dropped.contexts) > n
    assert len(dropped.items) > m
    original = [triple for triple in as_triples(dropped, range(n)) if triple[1] < m]
    assert original == as_triples(pairs, range(n))
    copies = dropped.contexts.take(np.arange(n, len(dropped.contexts)))
    stand_ins = np.isin(copies.indices, [0, 1, 5, 6])
    assert 0.3 < stand_ins.mean() < 0.7
    assert {0, 1, 5, 6} <= set(copies.indices.tolist())
    # a bag of two values at weight .5 each becomes one unknown or missing value of weight 1
    assert np.allclose(copies.weights[np.isin(copies.indices, [5, 6])], 1.0)
    for row in range(len(copies)):
        part = copies.indices[copies.indptr[row] : copies.indptr[row + 1]]
        assert len(set(part.tolist())) == len(part)


def test_a_missing_row_that_the_data_train_is_left_to_them():
    pairs = pairs_of(np.random.default_rng(6))
    pairs.contexts.indices[0] = 1
    dropped = pairs.with_dropped_values(0.5, np.random.default_rng(7))
    copies = dropped.contexts.take(np.arange(len(pairs.contexts), len(dropped.contexts)))
    assert (copies.indices == 1).sum() <= 1
    assert (copies.indices == 6).sum() > 10


def test_item_copies_are_observed_where_their_item_was():
    pairs = pairs_of(np.random.default_rng(2))
    dropped = pairs.with_dropped_values(0.4, np.random.default_rng(3))
    m = len(pairs.items)
    copied = np.flatnonzero(np.bincount(dropped.observed, minlength=len(dropped.items))[m:])
    assert len(copied) > 0
    by_item = {}
    for context, item, weight in as_triples(dropped, range(len(dropped.contexts))):
        by_item.setdefault(item, []).append((context, weight))
    sources = [sorted(by_item[item]) for item in range(m) if item in by_item]
    for copy in copied + m:
        assert sorted(by_item[copy]) in sources


def test_no_share_changes_nothing():
    pairs = pairs_of(np.random.default_rng(4))
    assert pairs.with_dropped_values(0.0, np.random.default_rng(5)) is pairs
