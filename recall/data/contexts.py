"""Contexts: distinct user-side inputs among interactions, with their items."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recall._arrays import Int32, Int64, Integers
from recall.data.dataset import Dataset
from recall.data.split import TRAIN, VALID
from recall.errors import DataError
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.fitting import context_frame
from recall.features.history import History
from recall.features.values import Distinct


def previous_items(dataset: Dataset, positions: Int64, longest: int) -> History:
    """Return the items of the same user's earlier interactions, most recent first.

    Interactions at the same time are in the order of the file. All parts of the split are included, because a request knows
    the past of its user.

    Args:
        dataset: data set with events sorted by user and time.
        positions: int64 [m], positions in `dataset.events`, in any order.
        longest: maximum number of previous items.

    Returns:
        m histories.
    """
    return items_before(dataset, dataset.events["user"].to_numpy()[positions], positions, longest)


def items_before(dataset: Dataset, users: Integers, before: Int64, longest: int) -> History:
    """Return the latest items of users at given moments, most recent first.

    No history includes held-out items, because they represent items that are not yet on offer. Without times the items have
    no order, and a history has the other items of the user, see `_other_items`.

    Args:
        dataset: data set with events sorted by user and time.
        users: integer [m], user of each history.
        before: int64 [m], number of events before the moment of each history.
        longest: maximum number of items.

    Returns:
        m histories.
    """
    if not dataset.ordered:
        return _other_items(dataset, users, before, longest)
    user = dataset.events["user"].to_numpy()
    item = dataset.events["item"].to_numpy()
    if dataset.hold_out == "items":
        offered = dataset.events["split"].to_numpy() <= TRAIN
        before = np.concatenate([[0], np.cumsum(offered)])[before]
        user, item = user[offered], item[offered]
    starts = np.searchsorted(user, users)  # the user's first interaction: events are sorted by user
    lengths = np.minimum(before - starts, longest)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.repeat(before - 1 + indptr[:-1], lengths) - np.arange(indptr[-1])
    return History(indptr, item[source])


def _other_items(dataset: Dataset, users: Integers, positions: Int64, longest: int) -> History:
    """Return the other items of each user, for interactions without an order.

    The history of a training interaction has the user's other training interactions, without its own item, which would leak
    the target. That of a held-out interaction has the parts before its own. The moment after all interactions of a user has
    all training interactions. If there are more than `longest`, a training interaction gets those that follow it in the
    file, cyclically, and a held-out one the last.

    Args:
        dataset: data set with events sorted by user.
        users: integer [m], user of each history.
        positions: int64 [m], positions in `dataset.events`; one past the last of the user for the moment after all.
        longest: maximum number of items.

    Returns:
        m histories.
    """
    split, item, owner = (dataset.events[name].to_numpy() for name in ("split", "item", "user"))
    after = positions == len(owner)
    positions = positions - after
    part = np.where(after | (owner[positions] != users), VALID, np.maximum(split[positions], TRAIN))
    lengths, chunks = np.zeros(len(positions), dtype=np.int64), []
    for number in np.unique(part):
        rows, known = np.flatnonzero(part == number), split <= TRAIN if number == TRAIN else split < number
        of_known, items, own_positions = owner[known], item[known], (np.cumsum(known) - 1)[positions[rows]]
        starts, ends = (np.searchsorted(of_known, users[rows], side) for side in ("left", "right"))
        n_others = np.minimum(ends - starts - (number == TRAIN), longest)
        row = np.repeat(np.arange(len(rows)), n_others)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(n_others) - n_others, n_others) + 1
        if number == TRAIN:
            others = items[starts[row] + (own_positions[row] - starts[row] + nth) % (ends - starts)[row]]
            distinct = others != item[positions[rows]][row]
            row, others = row[distinct], others[distinct]
        else:
            others = items[ends[row] - nth]
        lengths[rows] = np.bincount(row, minlength=len(rows))
        chunks.append((rows[row], others))
    row, others = (np.concatenate(parts) for parts in zip(*chunks, strict=True)) if chunks else (lengths, item[:0])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return History(indptr, others[np.argsort(row, kind="stable")])


_BATCH_PAIRS = 1 << 21  # (interaction, lag) pairs in one batch, about 50 MB. Chosen, not tuned.


@dataclass(frozen=True, slots=True)
class Contexts:
    """Distinct user-side inputs; interactions with the same input share a context.

    Attributes:
        features: C rows in the user feature space.
        context: int32 [m], context of each of the m interactions.
        event: int64 [C], position of the first interaction of each context in `dataset.events`, or in `dataset.negatives`
            for contexts of negatives.
    """

    features: SparseRows
    context: Int32
    event: Int64

    def __len__(self) -> int:
        return len(self.event)


def build_contexts(dataset: Dataset, encoder: FeatureEncoder, positions: Int64, before: Int64 | None = None) -> Contexts:
    """Return the contexts of some interactions.

    With a history field each interaction has its own context. Otherwise two interactions share a context if they have the
    same values in all context columns, and the same user if any field reads the user.

    Args:
        dataset: the interactions.
        encoder: encoder fitted on the training part.
        positions: int64 [m], positions in `dataset.events`.
        before: int64 [m], number of events before the moment of each history; default `positions`.

    Raises:
        DataError: A column does not hold what its field reads.
    """
    return _contexts(dataset, encoder, dataset.events, positions, positions if before is None else before)


def negative_contexts(dataset: Dataset, encoder: FeatureEncoder, positions: Int64) -> Contexts:
    """Return the contexts of negatives, which were shown and not taken.

    Their histories have the interactions before them.

    Args:
        dataset: data set with negatives.
        encoder: encoder fitted on the training part.
        positions: int64 [m], positions in `dataset.negatives`.

    Raises:
        DataError: There is no label column, or a column does not hold what its field reads.
    """
    if dataset.negatives is None:
        raise DataError("there are no negatives without a label", where="data.label", hint="Name the column of labels, 1 or 0")
    before = dataset.negatives["before"].to_numpy()[positions]
    return _contexts(dataset, encoder, dataset.negatives, positions, before)


def _contexts(
    dataset: Dataset,
    encoder: FeatureEncoder,
    rows: pl.DataFrame,
    positions: Int64,
    before: Int64,
) -> Contexts:
    """Return the contexts of the rows at `positions` [m], after `before` [m] events."""
    if encoder.histories:
        context = np.arange(len(positions), dtype=np.int32)
    else:
        distinct = Distinct.of(rows.select(_keys(dataset, encoder))[positions])
        positions, before, context = positions[distinct.first], before[distinct.first], distinct.codes
    return Contexts(SparseRows.vstack(_encode_batches(dataset, encoder, rows, positions, before)), context, positions)


def _keys(dataset: Dataset, encoder: FeatureEncoder) -> list[str]:
    """Return the columns that interactions of a context share, without a history."""
    read = {*encoder.users.columns, *encoder.contexts.columns}
    keys = [name for name in dataset.context_columns if name in read]
    return keys + (["user"] if read - set(keys) else [])


def part_of(dataset: Dataset, encoder: FeatureEncoder, part: int, parts: int) -> Dataset:
    """Return one of several parts of a dataset with about equally many training rows.

    The parts are disjoint in users and contexts. If no field reads the user, they are disjoint in contexts only, and have
    training events only.

    Args:
        dataset: the complete data set.
        encoder: encoder fitted on the training part.
        part: number of the part, from 0.
        parts: number of parts.

    Returns:
        The data set with the interactions of the part, and all users and items; the offer is that of the complete data set.
    """
    keys = ["user"] if encoder.histories else _keys(dataset, encoder)
    events, negatives = dataset.events, dataset.negatives
    if "user" in keys:
        counts = np.bincount(events["user"].to_numpy()[dataset.training], minlength=len(dataset.users))
        first_user, last_user = np.searchsorted(_assign_parts(counts, parts), [part, part + 1])
        first, last = np.searchsorted(events["user"].to_numpy(), [first_user, last_user]).tolist()
        events = events[first:last]
        if negatives is not None:
            low, high = np.searchsorted(negatives["user"].to_numpy(), [first_user, last_user]).tolist()
            negatives = negatives[low:high].with_columns(pl.col("before") - first)
    else:
        events = _rows_of_part(events, keys, part, parts)
        if negatives is not None:  # no field reads a history, which would need the events before
            negatives = _rows_of_part(negatives, keys, part, parts).with_columns(before=pl.lit(0, pl.Int64))
    return replace(dataset, events=events, negatives=negatives, complete_offer=dataset.offer)


def _rows_of_part(rows: pl.DataFrame, keys: list[str], part: int, parts: int) -> pl.DataFrame:
    """Return the rows that train in one of several parts; equal keys are in one part."""
    training = rows.filter(pl.col("split") == TRAIN)
    codes = Distinct.of(training.select(keys)).codes
    return training.filter(_assign_parts(np.bincount(codes), parts)[codes] == part)


def _assign_parts(counts: Int64, parts: int) -> Int64:
    """Return the part of each owner of `counts` [n] rows, rising: int64 [n]."""
    middle = np.cumsum(counts) - counts / 2
    part: Int64 = np.minimum(middle * parts / max(counts.sum(), 1), parts - 1).astype(np.int64)
    return part


def positives(dataset: Dataset, contexts: Contexts, positions: Int64) -> SparseRows:
    """Return the distinct items of each context, with weights.

    Args:
        dataset: the interactions.
        contexts: made by `build_contexts` from the same positions.
        positions: int64 [m].

    Returns:
        A row for each context, over the items; weights are summed over the interactions of the context with the item.
    """
    events = dataset.events.select("item", "weight")[positions]
    shape = len(contexts), len(dataset.items)
    return SparseRows.from_coo(contexts.context, events["item"].to_numpy(), events["weight"].to_numpy(), *shape)


def _encode_batches(
    dataset: Dataset,
    encoder: FeatureEncoder,
    rows: pl.DataFrame,
    positions: Int64,
    before: Int64,
) -> Iterator[SparseRows]:
    """Yield the user features of some rows in batches, which bounds memory."""
    users = encoder.users.encode(dataset.users)
    histories = encoder.history_group(dataset.items[dataset.schema.item_id])
    piece = max(1, _BATCH_PAIRS // max(histories.longest, 16))
    for first in range(0, max(len(positions), 1), piece):
        events = rows[positions[first : first + piece]]
        user = events["user"].to_numpy()
        history = histories.encode(items_before(dataset, user, before[first : first + piece], histories.longest))
        parts = [users.take(user), history]
        if encoder.contexts.fields:
            parts.append(encoder.contexts.encode(context_frame(encoder.contexts.columns, events, dataset.users)))
        yield SparseRows.hstack(parts)
