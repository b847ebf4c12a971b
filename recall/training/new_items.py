"""Level new items with trained ones, so that a list holds both in proportion to their numbers.

An item without training interactions is scored by its features and by the unknown row of the item id field. Its features
rank it among other new items, but its score has less variance than that of a trained item, and the top of a list is where
the variance is: without a correction, new items are almost never found. The unknown row is therefore shifted after
training. The shift is measured on trained items that are scored as if they were new, in the lists of training users
without what they have taken, and is the quantile at which a new item takes a place as often as a trained one; it is never
negative. A second direction of the same row corrects the lists of unknown users, whose scores have another spread. No score
of a trained item changes.
"""

from dataclasses import dataclass

import numpy as np
import torch

from recall._arrays import Float32, Float64
from recall.config import RunConfig
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.evaluation.lists import ItemLists
from recall.evaluation.ranking import top_rows
from recall.evaluation.unknown import unknown_user
from recall.features.blocks import Block
from recall.features.encoder import FeatureEncoder
from recall.features.masking import id_blocks
from recall.features.sparse import SparseRows
from recall.models.batch import SparseBatch
from recall.models.contract import Model
from recall.models.cosine import Cosine
from recall.training.masking import NEWCOMER, Masking, uniform
from recall.training.roles import Roles
from recall.vocabulary import UNKNOWN

_LIST = 20  # length of the lists in which places are counted: that of most published figures
_PRETENDED = 0.1  # share of the trained items that are scored as new ones
_USERS = 2000  # lists that are looked at; twice as many moved no figure on toys and ml-100k
_PROBED = 256  # new items over which the effect of the unknown row's factors is averaged
_RIDGE = 0.01  # of the mean variance; .001 to .1 give the same figures on toys, .1 a little less on ml-100k
_MOST = 0.25  # of a catalogue; where more of it has no interactions, most of these items are taken to be no longer on offer


@dataclass(frozen=True, slots=True)
class NewItemLevel:
    """What was done for items without training interactions.

    Attributes:
        note: one line for the report.
        shift: what a new item's score was raised by, averaged over users; 0 where nothing was done.
    """

    note: str
    shift: float = 0.0


@torch.no_grad()
def level_new_items(model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig) -> NewItemLevel:
    """Shift the unknown row of the item id field so that new items take their share of the places in lists.

    Args:
        model: trained; changed in place.
        dataset: gives training users, what they have taken, and the items.
        encoder: of the model.
        config: `train.new_items` is how often a new item should stand in a list, beside a trained one.

    Returns:
        What was done, or why nothing was.
    """
    block = _id_block(encoder)
    rows = encoder.encode_items(dataset.items)
    counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(dataset.items))
    trained, without = np.flatnonzero(counts > 0), int((~dataset.offer.candidates).sum())
    reason = _obstacle(model, encoder, config, block, without / len(counts))
    if block is None or reason:
        return NewItemLevel(reason)
    if np.isin(rows.take(trained).indices, [block.offset + UNKNOWN]).any():
        return NewItemLevel(f"as learnt: trained items that field {block.name!r} leaves out share the row of new ones")
    pretended = trained[uniform(trained, config.seed, 0) < _PRETENDED]
    others = np.setdiff1d(trained, pretended)
    if len(pretended) < 2 or len(others) < _LIST:
        return NewItemLevel("as learnt: there are too few items to measure another level")

    fields = encoder.item_fields
    roles = Roles.of(fields, rows.take(trained), encoder, "item")
    masked = Masking(roles)(
        rows.take(pretended), np.full(len(pretended), NEWCOMER, np.int8), np.zeros((len(pretended), len(roles.fields)))
    )
    new, old = (_vectors(model, part, encoder) for part in (masked, rows.take(others)))
    phi, taken = _requests(model, dataset, encoder, config)
    share = config.train.new_items * len(pretended) / len(trained)
    stranger = model.user_vectors(SparseBatch.of(unknown_user(encoder), fields=encoder.user_fields)).numpy()
    known = _raise(_entries(phi, old, new, taken.among(others), taken.among(pretended)), share)
    nobody = ItemLists.empty(1)
    unknown = _raise(_entries(stranger, old, new, nobody, nobody), share)
    if not (np.isfinite(known) and np.isfinite(unknown)):
        return NewItemLevel("as learnt: users have taken so many of the items that no list is full without new ones")

    if known == unknown == 0:
        return NewItemLevel(f"as learnt: they take more than {share:.1%} of the places")
    row = block.offset + UNKNOWN
    probe = masked.take(np.arange(0, len(pretended), max(1, len(pretended) // _PROBED)))
    effect = _effect(model, probe, encoder, row)
    factors, weight = _solve(phi @ effect.T, (stranger @ effect.T)[0], known, unknown)
    model.item_weights[row] += weight
    model.item_factors[row] += torch.from_numpy(factors.astype(np.float32)).view_as(model.item_factors[row])
    return NewItemLevel(
        f"raised by {known:.3g} for known users and {unknown:.3g} for unknown ones, to {share:.1%} of the places", known
    )


def _obstacle(model: Model, encoder: FeatureEncoder, config: RunConfig, block: Block | None, without: float) -> str:
    """Why the level stays as it was learnt; empty where it does not."""
    if config.train.new_items == 0:
        return "as learnt: train.new_items is 0"
    if block is None:
        return "by their features, as all items: no field has a row for each item id"
    if len(id_blocks(encoder, "item")) == len(encoder.item_blocks):
        return "as learnt: no field tells one new item from another"
    if config.train.objective == "logistic":
        return "as learnt: scores are log-odds, which a shift would falsify"
    if isinstance(model, Cosine):
        return "as learnt: under a cosine all items have one length, and new ones compete as equals"
    if without > _MOST:
        return (
            f"as learnt: {without:.0%} of the items have no interactions, and most are taken to be no longer on offer; "
            "leave such items out of the items table, or name data.available_from"
        )
    return ""


def _id_block(encoder: FeatureEncoder) -> Block | None:
    """The first block with a row for each item id, and one for unknown ids."""
    for block in id_blocks(encoder, "item"):
        field = encoder.columns[block.field]
        if field.vocabulary is not None and len(field.columns) == 1:
            return block
    return None


def _vectors(model: Model, rows: SparseRows, encoder: FeatureEncoder) -> Float32:
    vectors: Float32 = model.item_vectors(SparseBatch.of(rows, fields=encoder.item_fields)).numpy()
    return vectors


def _requests(model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig) -> tuple[Float32, ItemLists]:
    """The next request of some training users: float32 [q, dim], and q lists of items that cannot be in its answer."""
    user, item = (dataset.events[name].to_numpy() for name in ("user", "item"))
    training = dataset.training
    last = training[np.diff(user[training], append=-1) != 0]
    if len(last) > _USERS:
        last = np.sort(np.random.default_rng(config.seed).choice(last, _USERS, replace=False))
    contexts = build_contexts(dataset, encoder, last, last + 1)
    features = contexts.features.take(contexts.context)
    phi: Float32 = model.user_vectors(SparseBatch.of(features, fields=encoder.user_fields)).numpy()
    if config.evaluation.mask != "user":
        return phi, ItemLists.empty(len(last))
    return phi, ItemLists.from_pairs(user[training], item[training], len(dataset.users)).take(user[last])


def _entries(phi: Float32, old: Float32, new: Float32, old_taken: ItemLists, new_taken: ItemLists) -> Float64:
    """Shifts at which the first, second, ... new item enters each list.

    Args:
        phi: float32 [q, dim].
        old: float32 [n, dim], of trained items.
        new: float32 [m, dim], of items scored as new ones.
        old_taken, new_taken: q lists of rows of each that cannot be in the list.

    Returns:
        float64 [q, min(20, m)], rising along each row: the j-th new item enters a list of 20 where it passes the trained item
        on place 21 - j. An infinity where there is no such item.
    """
    ranked = [_top_scores(phi, *part) for part in ((old, old_taken), (new, new_taken))]
    below, above = ranked[0][:, ::-1], ranked[1]
    width = above.shape[1]
    return np.where(np.isneginf(below[:, :width]), -np.inf, np.where(np.isneginf(above), np.inf, below[:, :width] - above))


def _top_scores(phi: Float32, psi: Float32, taken: ItemLists) -> Float64:
    """The highest scores, falling, with -inf where items are lacking: float64 [q, min(20, n)]."""
    rows = top_rows(phi, psi, taken, _LIST)
    scores = np.empty(rows.shape, dtype=np.float64)
    for place in range(rows.shape[1]):
        scores[:, place] = np.einsum("qd,qd->q", phi, psi[rows[:, place]])
    scores[rows < 0] = -np.inf
    return scores


def _raise(entries: Float64, share: float) -> float:
    """The shift, at least 0, at which new items take a share of all places, from the result of `_entries`."""
    places = round(share * _LIST * len(entries))
    return max(0.0, float(np.sort(entries, axis=None)[min(places, entries.size - 1)]))


def _effect(model: Model, rows: SparseRows, encoder: FeatureEncoder, row: int) -> Float64:
    """What a unit of each factor of one feature adds to an item vector: float64 [factors, dim], averaged over item rows.

    An item vector is linear in the factors of one feature that occurs once in it.
    """
    start = _vectors(model, rows, encoder).astype(np.float64)
    factors = model.item_factors[row].view(-1)
    kept = factors.clone()
    effect = np.empty((len(factors), start.shape[1]))
    for position in range(len(factors)):
        factors[position] += 1.0
        effect[position] = (_vectors(model, rows, encoder) - start).mean(axis=0)
        factors.copy_(kept)
    return effect


def _solve(known: Float64, unknown: Float64, level: float, level_unknown: float) -> tuple[Float64, float]:
    """Find factors and a first-order weight that shift the scores of unknown users by one level and those of others by another.

    Among the factors that do so, those are taken that vary the shift least from one known user to another.

    Args:
        known: float64 [q, factors], what a unit of each factor adds to the scores of q known users.
        unknown: float64 [factors], the same for an unknown user.
        level: mean shift of known users.
        level_unknown: shift of unknown users.

    Returns:
        float64 [factors], and the weight.
    """
    mean = known.mean(axis=0)
    apart = unknown - mean
    centred = known - mean
    covariance = centred.T @ centred / len(known)
    ridge = _RIDGE * np.trace(covariance) / max(len(mean), 1)
    if not len(mean) or ridge == 0 or not apart.any():
        return np.zeros(len(mean)), level
    direction = np.linalg.solve(covariance + ridge * np.eye(len(mean)), apart)
    factors = direction * ((level_unknown - level) / (apart @ direction))
    return factors, level - float(mean @ factors)
