"""Baselines: popularity, content, and the oracle of made-up data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Floats, Int64
from recall.bundle.reader import Bundle
from recall.config import EvaluationConfig
from recall.data.contexts import items_before
from recall.data.dataset import Dataset
from recall.data.synthetic import Synthetic
from recall.data.synthetic_catalogue import DAYPARTS, DEVICES
from recall.evaluation.exact_topk import ItemLists, rank_metrics, top_of_scores
from recall.evaluation.protocol import held_out
from recall.features.csr import SparseRows


@dataclass(frozen=True, slots=True)
class Popularity:
    """A ranking of all items that is the same for every request.

    Attributes:
        order: int64 [items], item rows, best first; equal scores by rising row.
        place: int64 [items], the place of each item in `order`.
    """

    order: Int64
    place: Int64

    @staticmethod
    def ranked(scores: Int64 | Floats) -> "Popularity":
        """Rank items by training interactions, or another score: int64 or float [items]."""
        order = np.argsort(-scores, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return Popularity(order, place)

    def top(self, masked: ItemLists, n: int) -> Int64:
        """Return the n best items that are not masked, for each of q requests.

        Nothing is scored: the j-th masked item of a request, at position `place` of the ranking, has `place - j` unmasked items
        before it, and moves every answer from there on down by one.

        Args:
            masked: q lists of item rows, without repeats.
            n: length of the lists.

        Returns:
            int64 [q, min(n, items)], -1 where fewer items are left.
        """
        n = min(n, len(self.order))
        requests = len(masked)
        if not n:
            return np.zeros((requests, 0), dtype=np.int64)
        request = masked.owners
        # one key sorts ten times as fast as two
        sorted_place = np.sort(request * len(self.order) + self.place[masked.items]) % len(self.order)
        before = sorted_place - (np.arange(len(request)) - masked.indptr[request])
        near = before < n
        moves = np.bincount(request[near] * n + before[near], minlength=requests * n).reshape(requests, n)
        places = np.arange(n) + np.cumsum(moves, axis=1)  # [q, n]
        left = places < len(self.order)
        return np.where(left, self.order[np.where(left, places, 0)], -1)


# The content baseline: items with features similar to those of the user's training items.

_BLOCK = 1 << 22  # scores, or numbers of dense profiles, in memory at once: 16 MB


def item_features(bundle: Bundle) -> SparseRows | None:
    """Return the feature row of each item without fields of the id, at unit length.

    Features are those that the model reads, with its weights. None when there is no other field.
    """
    encoder = bundle.encoder
    ids = encoder.id_blocks("item")
    if len(ids) == len(encoder.item_blocks):
        return None
    rows = encoder.encode_items(bundle.items()).without(ids)
    owner = rows.owners
    length = np.sqrt(np.bincount(owner, weights=rows.weights.astype(np.float64) ** 2, minlength=len(rows)))
    weights = rows.weights / np.maximum(length, np.finfo(np.float32).tiny)[owner]
    return SparseRows(rows.indptr, rows.indices, weights.astype(np.float32), rows.n_features)


def content_lists(features: SparseRows, profiles: ItemLists, masked: ItemLists, n: int) -> Int64:
    """Rank items by the cosine between their features and a profile.

    Items with equal features are in the same random order in all lists: tables are often sorted by popularity, which is not
    content.

    Args:
        features: one row of unit length for each item, from `item_features`.
        profiles: q lists of item rows; a profile is the sum of their features.
        masked: q lists of item rows that cannot be returned.
        n: length of the lists.

    Returns:
        int64 [q, min(n, items)], best first; -1 only for an empty profile.
    """
    n = min(n, len(features))
    result = np.full((len(profiles), n), -1, dtype=np.int64)
    order = np.random.default_rng(0).permutation(len(features))
    shuffled, masked = features.take(order), ItemLists(masked.indptr, np.argsort(order).astype(np.int32)[masked.items])
    step = max(1, _BLOCK // max(len(features), features.n_features))
    for first in range(0, len(profiles), step):
        last = min(first + step, len(profiles))
        part = profiles.between(first, last)
        # dividing by the length of the profile as well would change no order
        scores: Float32 = np.ascontiguousarray(shuffled.weighted_sum(_profiles(features, part)).T)
        scores[part.lengths == 0] = -np.inf
        top = top_of_scores(scores, masked.between(first, last), n)
        result[first:last] = np.where(top < 0, -1, order[top])
    return result


def _profiles(features: SparseRows, lists: ItemLists) -> Float32:
    """Dense sums of the feature rows of each list: float32 [n_features, lists]."""
    taken = features.take(lists.items)
    owner = np.repeat(lists.owners, np.diff(taken.indptr))
    summed = SparseRows.from_coo(owner, taken.indices, taken.weights, len(lists), features.n_features)
    dense = np.zeros((features.n_features, len(lists)), dtype=np.float32)
    dense[summed.indices, summed.owners] = summed.weights
    return dense


# The best that any model could do on made-up data: rank by the very utility that the choices were drawn from.


def oracle(shop: Synthetic, dataset: Dataset, config: EvaluationConfig, split: int) -> dict[str, float]:
    """Evaluate the ranking by true utility, on the requests and masks of a model.

    Args:
        shop: the tables with their truth.
        dataset: the same tables, loaded.
        config: protocol and metrics.
        split: the part to evaluate on.
    """
    parts = dataset.events["split"].to_numpy()
    held = held_out(dataset, config, dataset.select(split), np.flatnonzero(parts < split))
    events = dataset.events[held.event]
    user_id, item_id = dataset.schema.user_id, dataset.schema.item_id
    users = _rows(shop.users["user_id"].to_list(), dataset.users[user_id].to_list())
    items = _rows(shop.items["item_id"].to_list(), dataset.items[item_id].to_list())
    before = items_before(dataset, held.user, held.before, 1)
    last = np.append(before.items, 0)[before.indptr[:-1].clip(max=len(before.items))]
    phi = shop.truth.user_vectors(
        users[events["user"].to_numpy()],
        _rows(DEVICES, events["device"].to_list()),
        _rows(DAYPARTS, events["daypart"].to_list()),
        np.where(np.diff(before.indptr) > 0, items[last], -1),
    )
    return rank_metrics(phi, shop.truth.item_vectors()[items], held.relevant, held.masked, config.at)


def _rows(known: Sequence[str], asked: Sequence[str]) -> Int64:
    places = {value: row for row, value in enumerate(known)}
    return np.array([places[value] for value in asked], dtype=np.int64)
