"""The content baseline: items whose features are most like those of the items that a user has in training."""

import numpy as np

from recall._arrays import Float32, Int64
from recall.bundle.reader import Bundle
from recall.evaluation.exact_topk import top_of_scores
from recall.evaluation.lists import (
    ItemLists,
)
from recall.features.csr import SparseRows
from recall.features.masking import id_blocks, without

_BLOCK = 1 << 22  # scores, or numbers of dense profiles, held at once: 16 MB


def item_features(bundle: Bundle) -> SparseRows | None:
    """The feature row of each item without fields that read the id, scaled to unit length; None when no other field exists.

    Features are those that the model reads, weighted as it reads them.
    """
    encoder = bundle.encoder
    ids = id_blocks(encoder, "item")
    if len(ids) == len(encoder.item_blocks):
        return None
    rows = without(encoder.encode_items(bundle.items()), ids)
    owner = np.repeat(np.arange(len(rows)), np.diff(rows.indptr))
    length = np.sqrt(np.bincount(owner, weights=rows.weights.astype(np.float64) ** 2, minlength=len(rows)))
    weights = rows.weights / np.maximum(length, np.finfo(np.float32).tiny)[owner]
    return SparseRows(rows.indptr, rows.indices, weights.astype(np.float32), rows.n_features)


def content_lists(features: SparseRows, profiles: ItemLists, masked: ItemLists, n: int) -> Int64:
    """Rank items by the cosine between their features and a profile, the sum over the items of a list.

    Args:
        features: one row of unit length for each item, from `item_features`.
        profiles: q lists of item rows, which each profile is the sum of.
        masked: q lists of item rows that cannot be returned.
        n: length of the lists.

    Returns:
        int64 [q, min(n, items)], best first; only -1 for an empty profile, which is like nothing.
    """
    n = min(n, len(features))
    result = np.full((len(profiles), n), -1, dtype=np.int64)
    step = max(1, _BLOCK // max(len(features), features.n_features))
    for first in range(0, len(profiles), step):
        last = min(first + step, len(profiles))
        part = profiles.between(first, last)
        # dividing by the length of the profile as well would change no order
        scores: Float32 = np.ascontiguousarray(features.weighted_sum(_profiles(features, part)).T)
        scores[part.lengths == 0] = -np.inf
        result[first:last] = top_of_scores(scores, masked.between(first, last), n)
    return result


def _profiles(features: SparseRows, lists: ItemLists) -> Float32:
    """Dense sums of the feature rows of each list: float32 [n_features, lists]."""
    taken = features.take(lists.items)
    owner = np.repeat(lists.owners, np.diff(taken.indptr))
    summed = SparseRows.gathered(owner, taken.indices, taken.weights, len(lists), features.n_features)
    dense = np.zeros((features.n_features, len(lists)), dtype=np.float32)
    dense[summed.indices, np.repeat(np.arange(len(lists)), np.diff(summed.indptr))] = summed.weights
    return dense
