"""Contexts: distinct user-side inputs among interactions, with their items."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recall._arrays import Float32, Int32, Int64, Integers
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

    Of interactions at one time, those further up in the file are earlier. The split does not matter: the past is known.

    Args:
        dataset: its events are sorted by user and time.
        positions: int64 [m], positions in `dataset.events`, in any order.
        longest: maximum number of previous items.

    Returns:
        m histories.
    """
    return items_before(dataset, dataset.events["user"].to_numpy()[positions], positions, longest)


def items_before(dataset: Dataset, users: Integers, before: Int64, longest: int) -> History:
    """Return the latest items of users at given moments, most recent first.

    Held-out items are in no history, because they count as not yet on offer.

    Without times the items have no order, and a history holds what else the user took, see `_other_items`.

    Args:
        dataset: its events are sorted by user and time.
        users: integer [m].
        before: int64 [m], how many of all events come before the moment.
        longest: maximum number of items.

    Returns:
        m histories.
    """
    if not dataset.ordered:
        return _other_items(dataset, users, before, longest)
    user = dataset.events["user"].to_numpy()
    item = dataset.events["item"].to_numpy()
    if dataset.hold_out == "items":
        there = dataset.events["split"].to_numpy() <= TRAIN
        before = np.concatenate([[0], np.cumsum(there)])[before]
        user, item = user[there], item[there]
    starts = np.searchsorted(user, users)  # the user's first interaction: events are sorted by user
    lengths = np.minimum(before - starts, longest)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.repeat(before - 1 + indptr[:-1], lengths) - np.arange(indptr[-1])
    return History(indptr, item[source])


def _other_items(dataset: Dataset, users: Integers, positions: Int64, longest: int) -> History:
    """Return what else users took, for interactions without an order.

    An interaction that trains has the user's other training interactions, but none with its own item, which would give the
    target away. One that is held out has those of the parts before its own, and the moment after all interactions of the user
    has all that train. Of more than `longest`, an interaction that trains has the ones that follow it in the file, round the
    end; one that is held out has the last.

    Args:
        dataset: its events are sorted by user.
        users: integer [m].
        positions: int64 [m], positions in `dataset.events`; past the user's last one for the moment after all.
        longest: maximum number of items.

    Returns:
        m histories.
    """
    split, item, owner = (dataset.events[name].to_numpy() for name in ("split", "item", "user"))
    after = positions == len(owner)
    positions = positions - after
    part = np.where(after | (owner[positions] != users), VALID, np.maximum(split[positions], TRAIN))
    lengths, taken = np.zeros(len(positions), dtype=np.int64), []
    for number in np.unique(part):
        rows, known = np.flatnonzero(part == number), split <= TRAIN if number == TRAIN else split < number
        of_known, items, own = owner[known], item[known], (np.cumsum(known) - 1)[positions[rows]]
        starts, ends = (np.searchsorted(of_known, users[rows], side) for side in ("left", "right"))
        found = np.minimum(ends - starts - (number == TRAIN), longest)
        row = np.repeat(np.arange(len(rows)), found)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(found) - found, found) + 1
        if number == TRAIN:
            others = items[starts[row] + (own[row] - starts[row] + nth) % (ends - starts)[row]]
            apart = others != item[positions[rows]][row]
            row, others = row[apart], others[apart]
        else:
            others = items[ends[row] - nth]
        lengths[rows] = np.bincount(row, minlength=len(rows))
        taken.append((rows[row], others))
    row, others = (np.concatenate(parts) for parts in zip(*taken, strict=True)) if taken else (lengths, item[:0])
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return History(indptr, others[np.argsort(row, kind="stable")])


_AT_ONCE = 1 << 21  # (interaction, lag) pairs in one batch, about 50 MB. Chosen, not tuned.


@dataclass(frozen=True, slots=True)
class Contexts:
    """Interactions with the same user-side input share one context.

    Attributes:
        features: C rows in the user feature space.
        context: int32 [m], the context of each of the m interactions.
        event: int64 [C], the position in `dataset.events` of that interaction, the first in order; in
            `dataset.negatives` where the contexts are of those.
    """

    features: SparseRows
    context: Int32
    event: Int64

    def __len__(self) -> int:
        return len(self.event)


@dataclass(frozen=True, slots=True)
class Positives:
    """Items of each context in CSR form, distinct in a context and in order of rows.

    Attributes:
        indptr: int64 [C + 1].
        items: int32 [nnz], rows of the catalogue.
        weights: float32 [nnz], summed over the interactions of the context with the item.
    """

    indptr: Int64
    items: Int32
    weights: Float32


def build_contexts(dataset: Dataset, encoder: FeatureEncoder, positions: Int64, before: Int64 | None = None) -> Contexts:
    """Return the contexts of some interactions.

    With a history field each interaction is a context of its own. Otherwise two interactions share one when they agree
    in every context column, and in the user where any field reads the user.

    Args:
        dataset: the interactions.
        encoder: fitted on its training part.
        positions: int64 [m], positions in `dataset.events`.
        before: int64 [m], how many of all events come before the moment of each history; default `positions`.

    Raises:
        DataError: A column does not hold what its field reads.
    """
    return _contexts(dataset, encoder, dataset.events, positions, positions if before is None else before)


def negative_contexts(dataset: Dataset, encoder: FeatureEncoder, positions: Int64) -> Contexts:
    """Return the contexts in which something was shown and not taken.

    A history holds what had been taken until then.

    Args:
        dataset: with negatives.
        encoder: fitted on its training part.
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
    """Return the contexts of the rows at `positions` [m], `before` [m] events in."""
    if encoder.histories:
        first, context = np.arange(len(positions)), np.arange(len(positions), dtype=np.int32)
    else:
        distinct = Distinct.of(rows.select(_keys(dataset, encoder))[positions])
        first, context = distinct.first, distinct.codes
    event = positions[first]
    features = SparseRows.vstack(_encoded(dataset, encoder, rows, event, before[first]))
    return Contexts(features, context, event)


def _keys(dataset: Dataset, encoder: FeatureEncoder) -> list[str]:
    """Return the columns that interactions of a context share, without a history."""
    read = {*encoder.users.columns, *encoder.contexts.columns}
    keys = [name for name in dataset.context_columns if name in read]
    return keys + (["user"] if read - set(keys) else [])


def part_of(dataset: Dataset, encoder: FeatureEncoder, part: int, parts: int) -> Dataset:
    """Return one of several parts of a dataset, with about as many training rows.

    No context and no user is in two of them. Where no field reads the user, only contexts are not in two, and events that do
    not train are in none.

    Args:
        dataset: the whole.
        encoder: fitted on its training part.
        part: number of the part, from 0.
        parts: how many there are.

    Returns:
        The dataset with the interactions of the part and all users and items, which are on offer as in the whole.
    """
    keys = ["user"] if encoder.histories else _keys(dataset, encoder)
    events, negatives = dataset.events, dataset.negatives
    if "user" in keys:
        counts = np.bincount(events["user"].to_numpy()[dataset.training], minlength=len(dataset.users))
        first_user, last_user = np.searchsorted(_shares(counts, parts), [part, part + 1])
        first, last = np.searchsorted(events["user"].to_numpy(), [first_user, last_user]).tolist()
        events = events[first:last]
        if negatives is not None:
            low, high = np.searchsorted(negatives["user"].to_numpy(), [first_user, last_user]).tolist()
            negatives = negatives[low:high].with_columns(pl.col("before") - first)
    else:
        events = _rows_of_part(events, keys, part, parts)
        negatives = None if negatives is None else _rows_of_part(negatives, keys, part, parts)
    return replace(dataset, events=events, negatives=negatives, whole=dataset.offer)


def _rows_of_part(rows: pl.DataFrame, keys: list[str], part: int, parts: int) -> pl.DataFrame:
    """Return the rows that train in one of several parts; equal keys are in one part."""
    training = rows.filter(pl.col("split") == TRAIN)
    codes = Distinct.of(training.select(keys)).codes
    return training.filter(_shares(np.bincount(codes), parts)[codes] == part)


def _shares(counts: Int64, parts: int) -> Int64:
    """Return the part of each owner of `counts` [n] rows, rising: int64 [n]."""
    middle = np.cumsum(counts) - counts / 2
    found: Int64 = np.minimum(middle * parts / max(counts.sum(), 1), parts - 1).astype(np.int64)
    return found


def positives(dataset: Dataset, contexts: Contexts, positions: Int64) -> Positives:
    """Return the items of each context.

    Args:
        dataset: the interactions.
        contexts: made by `build_contexts` from the same positions.
        positions: int64 [m].
    """
    pairs = SparseRows.from_coo(
        contexts.context,
        dataset.events["item"].to_numpy()[positions],
        dataset.events["weight"].to_numpy()[positions],
        len(contexts),
        len(dataset.items),
    )
    return Positives(pairs.indptr, pairs.indices, pairs.weights)


def _encoded(
    dataset: Dataset,
    encoder: FeatureEncoder,
    rows: pl.DataFrame,
    positions: Int64,
    before: Int64,
) -> Iterator[SparseRows]:
    """Yield the user features of some rows in batches, which bounds memory."""
    users = encoder.users.encode(dataset.users)
    histories = encoder.histories_over(dataset.items[dataset.schema.item_id])
    piece = max(1, _AT_ONCE // max(histories.longest, 16))
    for first in range(0, max(len(positions), 1), piece):
        events = rows[positions[first : first + piece]]
        user = events["user"].to_numpy()
        history = histories.encode(items_before(dataset, user, before[first : first + piece], histories.longest))
        parts = [users.take(user), history]
        if encoder.contexts.fields:
            parts.append(encoder.contexts.encode(context_frame(encoder.contexts.columns, events, dataset.users)))
        yield SparseRows.hstack(parts)
