"""In-memory delta: the latest upserted items, encoded as those of a bundle.

A delta never changes. Each batch of changes makes a new one, which shares with the one before all that stayed the same.
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

_FIRST = 64  # vectors that there is room for at first


class GrowableArray:
    """Vectors below each other, with room for more.

    Deltas share it, and each sees as many rows as there were when it was made: rows are never written twice.
    """

    def __init__(self, dim: int) -> None:
        self._array = np.empty((_FIRST, dim), dtype=np.float32)
        self._used = 0

    def append(self, seen: Float32, vectors: Float32) -> "tuple[GrowableArray, Float32]":
        """Append vectors to the rows of a delta, in place unless a different one did.

        Args:
            seen: float32 [m, dim], the first rows of this array.
            vectors: float32 [k, dim].

        Returns:
            The array that holds them, and its first rows: float32 [m + k, dim].
        """
        count = len(seen) + len(vectors)
        room = self
        if len(seen) != self._used or count > len(self._array):
            room = GrowableArray(seen.shape[1])
            room._array = np.empty((max(2 * count, _FIRST), seen.shape[1]), dtype=np.float32)
            room._array[: len(seen)] = seen
        room._array[len(seen) : count] = vectors
        room._used = count
        return room, room._array[:count]


class EncodedItems(NamedTuple):
    """New items.

    Attributes:
        ids: at least one, each once.
        items: [len(ids)], with the columns of the catalogue.
        vectors: float32 [len(ids), dim], finite.
    """

    ids: Sequence[str]
    items: pl.DataFrame
    vectors: Float32


@dataclass(frozen=True, slots=True, eq=False)
class SlotIds:
    """Ids of the slots of a delta.

    Attributes:
        names: the id in each slot.
        slots: the slot of each id that is alive.
    """

    names: tuple[str, ...]
    slots: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def ids(self, rows: Int64) -> list[str]:
        """Return the ids of slots."""
        return [self.names[row] for row in rows.tolist()]

    def rows(self, ids: Sequence[str]) -> Int64:
        """Return the slots of ids: int64 [m], -1 where none is alive."""
        return np.fromiter((self.slots.get(one, -1) for one in ids), dtype=np.int64, count=len(ids))

    def order(self) -> Int64:
        """Return all slots by rising id: int64 [len]."""
        return np.array(sorted(range(len(self.names)), key=self.names.__getitem__), dtype=np.int64)

    def place(self, order: Int64, text: str) -> int:
        """Count the slots whose id does not come after a text.

        Args:
            order: slots by rising id.
            text: any text.
        """
        return bisect_right(order, text, key=self.names.__getitem__)


@dataclass(frozen=True, eq=False)
class Delta:
    """Changes up to a sequence.

    Items are in slots 0 to m - 1; the slot of an item that was replaced or deleted is dead.

    Attributes:
        sequence: the last change that is in.
        item_ids: ids of the slots.
        item_vectors: float32 [m, dim], of the slots.
        live: bool [m], the slots that are not dead.
        longest: no vector's Euclidean length exceeds it.
        refused: by id, why a change could not be made to fit this catalogue. Such an item is left out.
    """

    sequence: int
    item_ids: SlotIds
    item_vectors: Float32
    live: Mask
    longest: float
    refused: Mapping[str, str]
    _tables: tuple[pl.DataFrame, ...]  # of the values; each is more than twice as long as the next
    _buffer: GrowableArray

    @classmethod
    def empty(cls, sequence: int, dim: int, refused: Mapping[str, str] | None = None) -> "Delta":
        """Return a delta without items.

        Args:
            sequence: the last change that older segments hold.
            dim: length of a vector.
            refused: changes that could not be made to fit so far, as the attribute.
        """
        vectors, live = np.empty((0, dim), dtype=np.float32), np.empty(0, dtype=bool)
        return cls(sequence, SlotIds((), {}), vectors, live, 0.0, refused or {}, (), GrowableArray(dim))

    @property
    def count(self) -> int:
        """Items that are alive."""
        return len(self.item_ids.slots)

    @cached_property
    def _items(self) -> pl.DataFrame:
        return pl.concat(self._tables) if self._tables else pl.DataFrame()

    def items(self) -> pl.DataFrame:
        """Return the values of all slots [m]; without columns if m is 0."""
        return self._items

    def item_column(self, name: str) -> pl.Series:
        """Return one column: [m]."""
        return self._items[name]

    def some_items(self, rows: Int64) -> pl.DataFrame:
        """Return the values of slots."""
        return self._items[rows]

    def segment(self, first: int) -> Segment:
        """Return the slots as the segment that begins at a row of the catalogue."""
        return Segment(first, self, RowBitmap.of_mask(~self.live), _derived={"longest": self.longest})

    def with_changes(
        self,
        sequence: int,
        ids: Sequence[str],
        given: EncodedItems | None,
        refused: Mapping[str, str],
    ) -> "Delta":
        """Return the delta after more changes; at most one thread may call it at a time.

        Args:
            sequence: of the last of them.
            ids: all that changed, each once.
            given: those that are not deleted, if any.
            refused: changes that do not fit, by id; they are among `ids`.
        """
        slots, live = dict(self.item_ids.slots), self.live
        dead = [slot for one in ids if (slot := slots.pop(one, None)) is not None]
        if dead:
            live = live.copy()
            live[dead] = False
        names = self.item_ids.names
        vectors, longest, parts, room = self.item_vectors, self.longest, self._tables, self._buffer
        if given is not None:
            new, frame, added = given
            slots |= zip(new, range(len(names), len(names) + len(new)), strict=True)
            names = (*names, *new)
            live = np.concatenate([live, np.ones(len(new), dtype=bool)])
            room, vectors = room.append(vectors, added)
            longest = max(longest, float(np.sqrt(np.einsum("ij,ij->i", added, added, dtype=np.float64).max())))
            parts = _merge_parts((*parts, frame))
        again = set(ids)
        wrong = {one: why for one, why in self.refused.items() if one not in again} | dict(refused)
        after = Delta(sequence, SlotIds(names, slots), vectors, live, longest, wrong, parts, room)
        return after._without_dead_slots() if len(names) > 2 * len(slots) + _FIRST else after

    def _without_dead_slots(self) -> "Delta":
        """Return the same without dead slots."""
        living = np.flatnonzero(self.live)
        room, vectors = GrowableArray(self.item_vectors.shape[1]).append(self.item_vectors[:0], self.item_vectors[living])
        names = tuple(self.item_ids.slots)
        return replace(
            self,
            item_ids=SlotIds(names, dict(zip(names, range(self.count), strict=True))),
            item_vectors=vectors,
            live=np.ones(self.count, dtype=bool),
            _tables=(self._items[living],) if self.count else (),
            _buffer=room,
        )


def _merge_parts(parts: tuple[pl.DataFrame, ...]) -> tuple[pl.DataFrame, ...]:
    """Concatenate parts as a binary counter carries: each row is copied log times."""
    while len(parts) > 1 and len(parts[-2]) <= 2 * len(parts[-1]):
        parts = (*parts[:-2], pl.concat(parts[-2:], rechunk=True))
    return parts


_FEW = 256
"""Items that are encoded one by one, as a table has costs of its own: of a generated shop, 100 take 1.2 and 4.6 ms."""

Values = Mapping[str, Mapping[str, object]]
"""Values by column, by item id."""


class ItemReader:
    """Reads items as those of one bundle are read."""

    def __init__(self, bundle: Bundle) -> None:
        """Nothing of the bundle is read before the first item comes."""
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
            RequestError: An id is invalid or repeated, a column is unknown or cannot hold its value; `where` is a JSON pointer
                that counts the items from 0.
        """
        read = {}
        for position, (item_id, features) in enumerate(items.items()):
            where = f"/items/{position}/item_id"
            check_id(item_id, where)
            known_as = self.columns.id(item_id)
            if known_as in read:
                what = f"item {known_as!r} is there twice"
                raise RequestError(what, where=where, why=f"{item_id!r} is the same id", hint="Give each item once")
            read[known_as] = self.columns.read(item_id, features, f"/items/{position}/features")
        return read

    def encode(self, items: Values) -> EncodedItems:
        """Items from `read`, at least one, with their vectors.

        Raises:
            RequestError: a field cannot read the values of an item, or its vector is not finite, or too large; names the item.
        """
        try:
            encoded = self._encode(items)
            self._last_encoded = [(one, to_json(values)) for one, values in items.items()], encoded
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
        """Encode the items of changes that were made to some bundle, perhaps not this one.

        Columns that this bundle lacks are ignored. The batch that `given` has encoded last is not encoded twice.

        Args:
            rows: changes in order, one of each item; deletions are ignored.

        Returns:
            The items that fit, and by id why the others do not.
        """
        last, upserts = self._last_encoded, [row for row in rows if row.features is not None]
        if last is not None and last[0] == [(row.item_id, row.features) for row in upserts]:
            return last[1], {}
        values: dict[str, dict[str, object]] = {}
        refused: dict[str, str] = {}
        for row in upserts:
            known = {name: value for name, value in (parse_values(row) or {}).items() if name in self.columns.names}
            try:
                values[row.item_id] = self.columns.read(row.item_id, known, "")
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
        rows = self._encode_one_by_one(items) if len(ids) <= _FEW else self._bundle.encoder.encode_items(frame)
        if len(rows) == 1:  # a row alone is summed in another order than among others: the vector is to be the same
            rows = rows.take(np.zeros(2, dtype=np.int64))
        with np.errstate(over="ignore", invalid="ignore"):
            vectors: Float32 = self._bundle.tables.item_vectors(rows)[: len(ids)]
        if not servable(vectors).all():
            what = "is too large to be scored" if np.isfinite(vectors).all() else "holds NaN or an infinity"
            raise DataError(f"the vector {what}", hint="Look at this item's features")
        return EncodedItems(ids, frame, vectors)

    def _encode_one_by_one(self, items: Values) -> SparseRows:
        """Encode items without the fixed costs of `encode_items`, features in its order."""
        encoder, key = self._bundle.encoder, self._bundle.encoder.schema.item_id
        rows = [encoder.items.encode_one({**values, key: item_id})[0] for item_id, values in items.items()]
        indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        entries = list(chain.from_iterable(rows))
        indices = np.array([index for index, _ in entries], dtype=np.int32)
        weights = np.array([weight for _, weight in entries], dtype=np.float32)
        order = np.lexsort((indices, np.repeat(np.arange(len(rows)), np.diff(indptr))))  # stable
        return SparseRows(indptr, indices[order], weights[order], encoder.n_item_features)
