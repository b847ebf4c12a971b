"""Level new items with trained ones, so that lists contain both proportionally.

An item without training interactions is scored by its features and by the unknown row of the item id field. Its features
rank it among other new items, but its score has less variance than that of a trained item, and the top of a list is where
the variance is: without a correction, new items are almost never found. The unknown row is therefore shifted after
training. The shift is measured on trained items that are scored as if they were new, in the lists of training users
without what they have taken, and is the quantile at which a new item takes a place as often as a trained one; it is never
negative. No score of a trained item changes.

Where more than a quarter of a catalogue has no interactions, most of these items are hardly new. They are then lowered
instead, until they take next to no places.
"""

from dataclasses import dataclass

import numpy as np
import torch

from recall._arrays import Bool, Float32, Float64, Int64
from recall.config import RunConfig
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.evaluation.exact_topk import top_rows
from recall.evaluation.lists import ItemLists
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.layout import FeatureBlock
from recall.features.masking import id_blocks
from recall.features.vocabulary import UNKNOWN
from recall.models.torch.base import Model
from recall.models.torch.batch import SparseBatch
from recall.models.torch.cosine import Cosine
from recall.training.masking import NEWCOMER, Masking, Roles, uniform

_LIST = 20  # length of the lists in which places are counted: that of most published figures
_PRETENDED = 0.1  # share of the trained items that are scored as new ones
_USERS = 2000  # lists that are computed; twice as many moved no figure on toys and ml-100k
_DEAD_PLACES = 0.01  # of those in lists, for the items of a catalogue that is mostly without interactions
_DEAD = 50_000  # items without interactions that are scored
_FINEST, _LOWEST = 1e-3, -1e3  # shifts that are tried
_MOST = 0.25  # of a catalogue; where more of it has no interactions, most of these items are taken to be no longer on offer


@torch.no_grad()
def level_new_items(
    model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig, scalable: bool
) -> tuple[str, Float32]:
    """Shift the unknown row of the item id field, so that new items get their places.

    Under a cosine all items have one length; the vectors of new ones are shortened instead.

    Args:
        model: trained; changed in place.
        dataset: gives training users, what they have taken, and the items.
        encoder: of the model.
        config: `train.new_items` is how often a new item should be in a list, relative to a trained one.
        scalable: whether item vectors can be scaled: with a popularity factor.

    Returns:
        One line for the report, what was done or why nothing was; and float32 [n_item_features], what to add to 1 to scale the
        vectors of the items that have a feature.
    """
    levels = np.zeros(encoder.item_fields.n_features, dtype=np.float32)
    return _leveled(model, dataset, encoder, config, levels if scalable else None), levels


def _leveled(model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig, levels: Float32 | None) -> str:
    """Level new items by the model's weights, or by `levels` under a cosine."""
    block = _id_block(encoder)
    trains = dataset.offer.candidates
    share = float((~trains).mean())
    reason = _obstacle(config, block)
    if block is None or reason:
        return reason
    rows, row = encoder.encode_items(dataset.items), block.offset + UNKNOWN
    if (rows.take(np.flatnonzero(trains)).indices == row).any():
        return f"as learnt: trained items that field {block.name!r} leaves out share the row of new ones"
    lists = _Lists.of(model, dataset, encoder, config)
    if share > _MOST:
        shift, places = _lower(model, row, rows, trains, lists)
        done = f"lowered by {-shift:.3g}" if shift else "as learnt"
        return (
            f"{done}, to {places:.1%} of the places: {share:.0%} of all items have no interactions, and most of them are taken "
            "to be no longer on offer; leave such items out of the items table, or name data.available_from"
        )
    if len(id_blocks(encoder, "item")) == len(encoder.item_blocks):
        return "as learnt: no field tells one new item from another"
    if isinstance(model, Cosine) and levels is None:
        return "as learnt: under a cosine all items have one length, and new ones compete as equals"
    return _raise(model, row, rows, trains, lists, config, levels)


def _obstacle(config: RunConfig, block: FeatureBlock | None) -> str:
    """Why the level stays as it was learnt; empty where it does not."""
    if config.train.new_items == 0:
        return "as learnt: train.new_items is 0"
    if block is None:
        return "by their features, as all items: no field has a row for each item id"
    if config.train.objective == "logistic":
        return "as learnt: scores are log-odds, which a shift would falsify"
    return ""


@dataclass(frozen=True, slots=True)
class _Lists:
    """Requests whose lists are computed.

    Attributes:
        encoder: of the model.
        phi: float32 [q, dim], the next request of each of some training users.
        taken: q lists of item rows that cannot be in its answer.
    """

    encoder: FeatureEncoder
    phi: Float32
    taken: ItemLists

    @staticmethod
    def of(model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig) -> "_Lists":
        """Draw the users."""
        user, item = (dataset.events[name].to_numpy() for name in ("user", "item"))
        training = dataset.training
        last = training[np.diff(user[training], append=-1) != 0]
        if len(last) > _USERS:
            last = np.sort(np.random.default_rng(config.seed).choice(last, _USERS, replace=False))
        contexts = build_contexts(dataset, encoder, last, last + 1)
        features = contexts.features.take(contexts.context)
        taken = ItemLists.empty(len(last))
        if config.evaluation.mask == "user":
            taken = ItemLists.from_pairs(user[training], item[training], len(dataset.users)).take(user[last])
        phi = model.user_vectors(SparseBatch.of(features, fields=encoder.user_fields)).numpy()
        return _Lists(encoder, phi, taken)

    def entries(self, old: Float32, new: Float32, old_rows: Int64, new_rows: Int64, ratio: bool = False) -> Float64:
        """Return `_entries` of these lists; rows are of the catalogue.

        Args:
            old: vectors of trained items.
            new: vectors of items scored as new.
            old_rows: of the catalogue.
            new_rows: of the catalogue.
            ratio: as for `_entries`.
        """
        return _entries(self.phi, old, new, self.taken.among(old_rows), self.taken.among(new_rows), ratio)


def _raise(
    model: Model, row: int, rows: SparseRows, trains: Bool, lists: _Lists, config: RunConfig, levels: Float32 | None
) -> str:
    """Bring new items to their share of places, measured on trained ones."""
    trained, encoder = np.flatnonzero(trains), lists.encoder
    pretended = trained[uniform(trained, config.seed, 0) < _PRETENDED]
    others = np.setdiff1d(trained, pretended)
    if len(pretended) < 2 or len(others) < _LIST:
        return "as learnt: there are too few items to measure another level"
    roles = Roles.of(encoder.item_fields, rows.take(trained), encoder)
    patterns = np.full(len(pretended), NEWCOMER, np.int8)
    masked = Masking(roles)(rows.take(pretended), patterns, np.zeros((len(pretended), len(roles.fields))))
    new, old = (_vectors(model, part, encoder) for part in (masked, rows.take(others)))
    factor = config.train.new_items
    often, share = "as often as" if factor == 1 else f"{factor:g} times as often as", factor * len(pretended) / len(trained)
    if levels is not None and isinstance(model, Cosine):
        scale = min(1.0, max(0.0, _quantile(lists.entries(old, new, others, pretended, ratio=True), share)))
        levels[row] = scale - 1
        return f"scaled by {scale:.3g}, to be in lists at most {often} a trained one"
    level = max(0.0, _quantile(lists.entries(old, new, others, pretended), share))
    if not np.isfinite(level):
        return "as learnt: users have taken so many of the items that no list is full without new ones"
    if level == 0:
        return f"as learnt: each is in lists at least {config.train.new_items:g} times as often as a trained one"
    model.item_weights[row] += level
    return f"raised by {level:.3g}, to be in lists {often} a trained one"


def _lower(model: Model, row: int, rows: SparseRows, trains: Bool, lists: _Lists) -> tuple[float, float]:
    """Lower items without interactions until they take next to no places.

    Returns:
        The shift, and their share of the places.
    """
    trained, dead = np.flatnonzero(trains), np.flatnonzero(~trains)
    looked_at = max(1, len(dead) // _DEAD)  # one in so many
    dead = dead[::looked_at]
    old, without = _vectors(model, rows.take(trained), lists.encoder), rows.take(dead)
    start = float(model.item_weights[row])

    def places(shift: float) -> float:
        model.item_weights[row] = start + shift
        new = _vectors(model, without, lists.encoder)
        entries = lists.entries(old, new, trained, dead)
        # a place that no trained item can fill is theirs whatever their level
        return float(looked_at * (np.isfinite(entries) & (entries < 0)).sum() / (_LIST * len(entries)))

    low, high = 0.0, 0.0  # as in a bisection: too many places at `high`, few enough at `low`
    while places(low) > _DEAD_PLACES and low > _LOWEST:
        low, high = min(2 * low, -_FINEST), low
    while high - low > max(_FINEST, 0.05 * abs(low)):
        middle = (low + high) / 2
        low, high = (low, middle) if places(middle) > _DEAD_PLACES else (middle, high)
    return low, places(low)


def _id_block(encoder: FeatureEncoder) -> FeatureBlock | None:
    """Return the first block with a row for each item id, and one for unknown ids."""
    for block in id_blocks(encoder, "item"):
        field = encoder.columns[block.field]
        if field.vocabulary is not None and len(field.columns) == 1:
            return block
    return None


def _vectors(model: Model, rows: SparseRows, encoder: FeatureEncoder) -> Float32:
    vectors: Float32 = model.item_vectors(SparseBatch.of(rows, fields=encoder.item_fields)).numpy()
    return vectors


def _entries(
    phi: Float32, old: Float32, new: Float32, old_taken: ItemLists, new_taken: ItemLists, ratio: bool = False
) -> Float64:
    """Return the shifts at which the first, second, ... new item enters each list.

    Args:
        phi: float32 [q, dim].
        old: float32 [n, dim], of trained items.
        new: float32 [m, dim], of items scored as new ones.
        old_taken: q lists of rows of `old` that cannot be in the list.
        new_taken: q lists of rows of `new` that cannot be in the list.
        ratio: return factors of the scores of new items instead of shifts.

    Returns:
        float64 [q, min(20, m)], rising along each row: the j-th new item enters a list of 20 where it passes the trained item
        on place 21 - j. An infinity where there is no such item.
    """
    above = _top_scores(phi, new, new_taken)
    below = np.full((len(phi), _LIST), -np.inf)  # a list that is not full has room
    trained = _top_scores(phi, old, old_taken)
    below[:, _LIST - trained.shape[1] :] = trained[:, ::-1]
    below = below[:, : above.shape[1]]
    entries = np.full(above.shape, np.inf)
    there = ~np.isneginf(above)
    found, others = above[there], below[there]
    # a score below zero does not fall where its vector is shortened
    ratios = np.divide(others, found, out=np.full(found.shape, np.inf), where=found > 0)
    needed = ratios if ratio else others - found
    entries[there] = np.where(np.isneginf(others), -np.inf, needed)
    return entries


def _top_scores(phi: Float32, psi: Float32, taken: ItemLists) -> Float64:
    """Return the highest scores, falling, -inf where missing: float64 [q, min(20, n)]."""
    rows = top_rows(phi, psi, taken, _LIST)
    scores = np.empty(rows.shape, dtype=np.float64)
    for place in range(rows.shape[1]):
        scores[:, place] = np.einsum("qd,qd->q", phi, psi[rows[:, place]])
    scores[rows < 0] = -np.inf
    return scores


def _quantile(entries: Float64, share: float) -> float:
    """Return the shift at which new items take a share of all places, by `_entries`."""
    places = round(share * _LIST * len(entries))
    return float(np.sort(entries, axis=None)[min(places, entries.size - 1)])
