"""In-memory delta segment: the latest upserted items, encoded as a bundle's items.

A delta is immutable. Each batch of changes creates a new delta that shares the unchanged data with the previous one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl

from recall._arrays import Float32, Int64
from recall._ids import check_id
from recall._tensors import servable
from recall.bundle.reader import Bundle
from recall.errors import DataError, RequestError
from recall.features.csr import SparseRows
from recall.index.bitmap import Mask, RowBitmap
from recall.store.items.coercion import CatalogColumns
from recall.store.items.log_position import LogRow, parse_values, to_json
from recall.store.items.segment import Segment

_INITIAL_ROWS = 64  # capacity of a new buffer


class GrowableArray:
    """Append-only float32 matrix with spare capacity.

    Successive deltas share one buffer; each uses the rows that existed when it was created. Rows are written once, so an older
    delta stays valid.
    """

    def __init__(self, dim: int) -> None:
        self._array = np.empty((_INITIAL_ROWS, dim), dtype=np.float32)
        self._used = 0

    def append(self, rows: Float32, vectors: Float32) -> "tuple[GrowableArray, Float32]":
        """Append vectors, in place if no later delta has and there is capacity.

        Args:
            rows: float32 [m, dim], the rows that a delta uses: the first m of this buffer.
            vectors: float32 [k, dim], vectors to append.

        Returns:
            The buffer with the result, and its first rows: float32 [m + k, dim].
        """
        count = len(rows) + len(vectors)
        buffer = self
        if len(rows) != self._used or count > len(self._array):
            buffer = GrowableArray(rows.shape[1])
            buffer._array = np.empty((max(2 * count, _INITIAL_ROWS), rows.shape[1]), dtype=np.float32)
            buffer._array[: len(rows)] = rows
        buffer._array[len(rows) : count] = vectors
        buffer._used = count
        return buffer, buffer._array[:count]


class EncodedItems(NamedTuple):
    """Items with their vectors.

    Attributes:
        ids: String [m], m >= 1, distinct.
        items: table [m] with the columns of the catalogue.
        vectors: float32 [m, dim], finite.
    """

    ids: Sequence[str]
    items: pl.DataFrame
    vectors: Float32


@dataclass(frozen=True, slots=True, eq=False)
class SlotIds:
    """Ids of the slots of a delta.

    Attributes:
        names: id of each slot, dead ones included.
        slots: live slot of each id.
    """

    names: tuple[str, ...]
    slots: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, rows: Int64) -> list[str]:
        """Return the ids of slots."""
        return [self.names[row] for row in rows.tolist()]

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the slots of ids: int64 [m], -1 for an id without a live slot."""
        return np.fromiter((self.slots.get(item_id, -1) for item_id in ids), dtype=np.int64, count=len(ids))

    def argsort(self) -> Int64:
        """Return all slots by rising id: int64 [len]."""
        return np.array(sorted(range(len(self.names)), key=self.names.__getitem__), dtype=np.int64)

    def count_up_to(self, order: Int64, text: str) -> int:
        """Return the number of slots with an id <= a text.

        Args:
            order: int64 [len], slots sorted by id.
            text: any text.
        """
        return bisect_right(order, text, key=self.names.__getitem__)


@dataclass(frozen=True, eq=False)
class Delta:
    """Upserted items in slots 0 to m - 1.

    An item that changes again gets a new slot; the old one is dead.

    Attributes:
        sequence: sequence of the last change contained.
        item_ids: ids of the slots.
        item_vectors: float32 [m, dim], vectors of the slots.
        live: bool [m], False for dead slots.
        longest: upper bound of the vectors' Euclidean lengths.
        refused: why an item cannot be encoded with this bundle, by id. Such items are not served.
    """

    sequence: int
    item_ids: SlotIds
    item_vectors: Float32
    live: Mask
    longest: float
    refused: Mapping[str, str]
    _tables: tuple[pl.DataFrame, ...]  # values of the slots, in parts; each is more than twice as long as the next
    _buffer: GrowableArray

    @classmethod
    def empty(cls, sequence: int, dim: int, refused: Mapping[str, str] | None = None) -> "Delta":
        """Return a delta without items.

        Args:
            sequence: sequence of the last change in older segments.
            dim: dimension of the vectors.
            refused: as the attribute.
        """
        vectors, live = np.empty((0, dim), dtype=np.float32), np.empty(0, dtype=bool)
        return cls(sequence, SlotIds((), {}), vectors, live, 0.0, refused or {}, (), GrowableArray(dim))

    @property
    def count(self) -> int:
        """Number of live slots."""
        return len(self.item_ids.slots)

    @cached_property
    def _items(self) -> pl.DataFrame:
        return pl.concat(self._tables) if self._tables else pl.DataFrame()

    def items(self) -> pl.DataFrame:
        """Return the values of all slots: a table [m], without columns if m is 0."""
        return self._items

    def item_column(self, name: str) -> pl.Series:
        """Return one column: [m]."""
        return self._items[name]

    def some_items(self, rows: Int64) -> pl.DataFrame:
        """Return the values of slots."""
        return self._items[rows]

    def segment(self, first: int) -> Segment:
        """Return the delta as a segment; its slot 0 is row `first` of the catalogue."""
        return Segment(first, self, RowBitmap.of_mask(~self.live), _derived={"longest": self.longest})

    def with_changes(
        self,
        sequence: int,
        ids: Sequence[str],
        upserts: EncodedItems | None,
        refused: Mapping[str, str],
    ) -> "Delta":
        """Return the delta after more changes; at most one thread may call it at a time.

        Args:
            sequence: sequence of the last change.
            ids: distinct ids of the changed items.
            upserts: the upserted items among them; None if there are none.
            refused: why upserts cannot be encoded, by id; the ids are among `ids`.
        """
        slots, live = dict(self.item_ids.slots), self.live
        dead = [slot for item_id in ids if (slot := slots.pop(item_id, None)) is not None]
        if dead:
            live = live.copy()
            live[dead] = False
        names = self.item_ids.names
        vectors, longest, tables, buffer = self.item_vectors, self.longest, self._tables, self._buffer
        if upserts is not None:
            new_ids, table, new_vectors = upserts
            slots |= zip(new_ids, range(len(names), len(names) + len(new_ids)), strict=True)
            names = (*names, *new_ids)
            live = np.concatenate([live, np.ones(len(new_ids), dtype=bool)])
            buffer, vectors = buffer.append(vectors, new_vectors)
            longest = max(longest, float(np.sqrt(np.einsum("ij,ij->i", new_vectors, new_vectors, dtype=np.float64).max())))
            tables = _merge_parts((*tables, table))
        changed = set(ids)
        errors = {item_id: why for item_id, why in self.refused.items() if item_id not in changed} | dict(refused)
        after = Delta(sequence, SlotIds(names, slots), vectors, live, longest, errors, tables, buffer)
        return after._without_dead_slots() if len(names) > 2 * len(slots) + _INITIAL_ROWS else after

    def _without_dead_slots(self) -> "Delta":
        """Return a copy without dead slots."""
        live = np.flatnonzero(self.live)
        buffer, vectors = GrowableArray(self.item_vectors.shape[1]).append(self.item_vectors[:0], self.item_vectors[live])
        names = tuple(self.item_ids.slots)
        return replace(
            self,
            item_ids=SlotIds(names, dict(zip(names, range(self.count), strict=True))),
            item_vectors=vectors,
            live=np.ones(self.count, dtype=bool),
            _tables=(self._items[live],) if self.count else (),
            _buffer=buffer,
        )


def _merge_parts(parts: tuple[pl.DataFrame, ...]) -> tuple[pl.DataFrame, ...]:
    """Concatenate short parts, like carries of a binary counter: O(log n) copies."""
    while len(parts) > 1 and len(parts[-2]) <= 2 * len(parts[-1]):
        parts = (*parts[:-2], pl.concat(parts[-2:], rechunk=True))
    return parts


_ENCODE_SINGLY_UP_TO = 256
"""Batch size up to which items are encoded one by one: 100 items of a generated shop take 1.2 ms, as a table 4.6 ms."""

Values = Mapping[str, Mapping[str, object]]
"""Values by column, by item id."""


class ItemReader:
    """Coerces and encodes items with the schema and the model of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Read nothing yet; the bundle's columns are read with the first item."""
        self._bundle = bundle
        self._last_encoded: tuple[list[tuple[str, bytes]], EncodedItems] | None = None

    @cached_property
    def columns(self) -> CatalogColumns:
        """The columns of the bundle's items."""
        encoder = self._bundle.encoder
        return CatalogColumns(self._bundle.item_types(), encoder.schema, encoder.types.items)

    def read(self, items: Values) -> dict[str, dict[str, object]]:
        """Return the values of items in the types of the catalogue's columns.

        Raises:
            RequestError: An id is invalid or repeated, a column is unknown, or a value has the wrong type; `where` is a JSON
                pointer that counts the items from 0.
        """
        coerced = {}
        for position, (item_id, features) in enumerate(items.items()):
            where = f"/items/{position}/item_id"
            check_id(item_id, where)
            canonical_id = self.columns.id(item_id)
            if canonical_id in coerced:
                what = f"item {canonical_id!r} is there twice"
                raise RequestError(what, where=where, why=f"{item_id!r} is the same id", hint="Give each item once")
            coerced[canonical_id] = self.columns.read(item_id, features, f"/items/{position}/features")
        return coerced

    def encode(self, items: Values) -> EncodedItems:
        """Encode at least one item from `read`.

        Raises:
            RequestError: A field cannot read the values of an item, or its vector is too large or not finite; the message
                names the item.
        """
        try:
            encoded = self._encode(items)
            self._last_encoded = [(item_id, to_json(values)) for item_id, values in items.items()], encoded
            return encoded
        except (DataError, RequestError):
            for position, (item_id, values) in enumerate(items.items()):
                try:
                    self._encode({item_id: values})
                except (DataError, RequestError) as error:
                    named = f"{error.where}: " if error.where and not error.where.startswith("/") else ""
                    where = f"/items/{position}" + (error.where if error.where.startswith("/") else "/features")
                    what = f"item {item_id!r}: {named}{error.what}"
                    raise RequestError(what, where=where, why=error.why, hint=error.hint) from None
            raise

    def encode_rows(self, rows: Iterable[LogRow]) -> tuple[EncodedItems | None, dict[str, str]]:
        """Encode the upserts of a log, which may have been accepted with another bundle.

        Columns that this bundle lacks are ignored. The batch that `encode` encoded last is not encoded again.

        Args:
            rows: changes in order, one of each item; deletions are ignored.

        Returns:
            The encoded items (None if there are none), and why the others cannot be encoded, by id.
        """
        last, upserts = self._last_encoded, [row for row in rows if row.features is not None]
        if last is not None and last[0] == [(row.item_id, row.features) for row in upserts]:
            return last[1], {}
        values: dict[str, dict[str, object]] = {}
        refused: dict[str, str] = {}
        for row in upserts:
            features = {name: value for name, value in (parse_values(row) or {}).items() if name in self.columns.names}
            try:
                values[row.item_id] = self.columns.read(row.item_id, features, "")
            except RequestError as error:
                refused[row.item_id] = str(error)
        while values:
            try:
                return self._encode(values), refused
            except (DataError, RequestError):
                for item_id in list(values):
                    try:
                        self.encode({item_id: values[item_id]})
                    except RequestError as error:
                        refused[item_id] = str(error)
                        del values[item_id]
        return None, refused

    def _encode(self, items: Values) -> EncodedItems:
        """Encode items; raises DataError or RequestError."""
        ids = tuple(items)
        frame = self.columns.frame(ids, list(items.values()))
        singly = len(ids) <= _ENCODE_SINGLY_UP_TO
        rows = self._encode_one_by_one(items) if singly else self._bundle.encoder.encode_items(frame)
        if len(rows) == 1:  # a single row is summed in a different order: duplicate it, so that the vector is bit-identical
            rows = rows.take(np.zeros(2, dtype=np.int64))
        with np.errstate(over="ignore", invalid="ignore"):
            vectors: Float32 = self._bundle.tables.item_vectors(rows)[: len(ids)]
        if not servable(vectors).all():
            what = "is too large to be scored" if np.isfinite(vectors).all() else "holds NaN or an infinity"
            raise DataError(f"the vector {what}", hint="Look at this item's features")
        return EncodedItems(ids, frame, vectors)

    def _encode_one_by_one(self, items: Values) -> SparseRows:
        """Encode few items faster than `encode_items`, with features in the same order."""
        encoder, key = self._bundle.encoder, self._bundle.encoder.schema.item_id
        rows = [encoder.items.encode_one({**values, key: item_id})[0] for item_id, values in items.items()]
        indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        entries = list(chain.from_iterable(rows))
        indices = np.array([index for index, _ in entries], dtype=np.int32)
        weights = np.array([weight for _, weight in entries], dtype=np.float32)
        order = np.lexsort((indices, np.repeat(np.arange(len(rows)), np.diff(indptr))))  # stable
        return SparseRows(indptr, indices[order], weights[order], encoder.n_item_features)
