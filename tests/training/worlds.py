"""Small training problems as sparse rows."""

import numpy as np

from recall.features.csr import FeatureLayout, SparseRows
from recall.training.pairs import ObservedPairs


def one_field(name, n_features):
    return FeatureLayout.of_sizes([(name, n_features)])


def random_rows(rng, n, n_features, longest):
    lengths = rng.integers(1, longest + 1, n)
    indices = np.concatenate([rng.choice(n_features, length, replace=False) for length in lengths]).astype(np.int32)
    weights = rng.uniform(0.5, 1.5, lengths.sum()).astype(np.float32)
    return SparseRows(np.concatenate([[0], np.cumsum(lengths)]), indices, weights, n_features)


def random_pairs(seed, contexts=40, items=25, share=0.2):
    """Draw contexts and items with several weighted features, and a random share of all pairs as observed."""
    rng = np.random.default_rng(seed)
    seen = rng.random((contexts, items)) < share
    seen[np.arange(contexts), rng.integers(0, items, contexts)] = True
    return ObservedPairs(
        random_rows(rng, contexts, 12, 4),
        random_rows(rng, items, 9, 3),
        np.concatenate([[0], np.cumsum(seen.sum(1))]),
        np.nonzero(seen)[1].astype(np.int32),
        rng.uniform(0.5, 2.0, seen.sum()).astype(np.float32),
        one_field("user", 12),
        one_field("item", 9),
    )


def one_hot(n):
    return SparseRows(np.arange(n + 1), np.arange(n, dtype=np.int32), np.ones(n, dtype=np.float32), n)


def two_blocks(rng, users=60, items=40, each=12):
    """Create two groups of users that each like one half of the items. Returns the pairs and the held-out likes."""
    held_out = np.zeros((users, items), dtype=bool)
    seen = np.zeros((users, items), dtype=bool)
    for user in range(users):
        liked = np.arange(items // 2) + (items // 2) * (user % 2)
        chosen = rng.permutation(liked)
        seen[user, chosen[:each]] = True
        held_out[user, chosen[each:]] = True
    pairs = ObservedPairs(
        one_hot(users),
        one_hot(items),
        np.concatenate([[0], np.cumsum(seen.sum(1))]),
        np.nonzero(seen)[1].astype(np.int32),
        np.ones(seen.sum(), dtype=np.float32),
        one_field("user", users),
        one_field("item", items),
    )
    return pairs, seen, held_out


def dense(rows):
    x = np.zeros((len(rows), rows.n_features))
    np.add.at(x, (np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.indices), rows.weights)
    return x
