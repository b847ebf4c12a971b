"""Encode changed items as a bundle's catalogue stores them: values and a vector."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain

import numpy as np

from recall._arrays import Float32
from recall._ids import check_id
from recall._tensors import servable
from recall.bundle.reader import Bundle
from recall.errors import DataError, RequestError
from recall.features.csr import SparseRows
from recall.store.items.coercion import CatalogColumns
from recall.store.items.delta import EncodedItems
from recall.store.items.log_position import LogRow, to_json, values_of

_FEW = 256
"""Items that are encoded one by one, as a table has costs of its own: of a generated shop, 100 take 1.2 and 4.6 ms."""

Values = Mapping[str, Mapping[str, object]]
"""Values by column, by item id."""


class ItemReader:
    """Reads items as those of one bundle are read."""

    def __init__(self, bundle: Bundle) -> None:
        """Nothing of the bundle is read before the first item comes."""
        self._bundle = bundle
        self._given: tuple[list[tuple[str, bytes]], EncodedItems] | None = None

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

    def given(self, items: Values) -> EncodedItems:
        """Items from `read`, at least one, with their vectors.

        Raises:
            RequestError: a field cannot read the values of an item, or its vector is not finite, or too large; names the item.
        """
        try:
            encoded = self._encoded(items)
            self._given = [(one, to_json(values)) for one, values in items.items()], encoded
            return encoded
        except (DataError, RequestError):
            for position, (item_id, values) in enumerate(items.items()):
                try:
                    self._encoded({item_id: values})
                except (DataError, RequestError) as error:
                    named = f"{error.where}: " if error.where and not error.where.startswith("/") else ""
                    where = f"/items/{position}" + (error.where if error.where.startswith("/") else "/features")
                    what = f"item {item_id!r}: {named}{error.what}"
                    raise RequestError(what, where=where, why=error.why, hint=error.hint) from None
            raise

    def fitting(self, rows: Iterable[LogRow]) -> tuple[EncodedItems | None, dict[str, str]]:
        """Encode the items of changes that were made to some bundle, perhaps not this one.

        Columns that this bundle lacks are ignored. The batch that `given` has encoded last is not encoded twice.

        Args:
            rows: changes in order, one of each item; deletions are ignored.

        Returns:
            The items that fit, and by id why the others do not.
        """
        last, upserts = self._given, [row for row in rows if row.features is not None]
        if last is not None and last[0] == [(row.item_id, row.features) for row in upserts]:
            return last[1], {}
        values: dict[str, dict[str, object]] = {}
        refused: dict[str, str] = {}
        for row in upserts:
            known = {name: value for name, value in (values_of(row) or {}).items() if name in self.columns.names}
            try:
                values[row.item_id] = self.columns.read(row.item_id, known, "")
            except RequestError as error:
                refused[row.item_id] = str(error)
        while values:
            try:
                return self._encoded(values), refused
            except (DataError, RequestError):
                for item_id in list(values):
                    try:
                        self.given({item_id: values[item_id]})
                    except RequestError as error:
                        refused[item_id] = str(error)
                        del values[item_id]
        return None, refused

    def _encoded(self, items: Values) -> EncodedItems:
        """Encode items; raises DataError or RequestError."""
        ids = tuple(items)
        frame = self.columns.frame(ids, list(items.values()))
        rows = self._encoded_singly(items) if len(ids) <= _FEW else self._bundle.encoder.encode_items(frame)
        if len(rows) == 1:  # a row alone is summed in another order than among others: the vector is to be the same
            rows = rows.take(np.zeros(2, dtype=np.int64))
        with np.errstate(over="ignore", invalid="ignore"):
            vectors: Float32 = self._bundle.tables.item_vectors(rows)[: len(ids)]
        if not servable(vectors).all():
            what = "is too large to be scored" if np.isfinite(vectors).all() else "holds NaN or an infinity"
            raise DataError(f"the vector {what}", hint="Look at this item's features")
        return EncodedItems(ids, frame, vectors)

    def _encoded_singly(self, items: Values) -> SparseRows:
        """Encode items without the fixed costs of `encode_items`, features in its order."""
        encoder, key = self._bundle.encoder, self._bundle.encoder.schema.item_id
        rows = [encoder.items.encode_one({**values, key: item_id})[0] for item_id, values in items.items()]
        indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        entries = list(chain.from_iterable(rows))
        indices = np.array([index for index, _ in entries], dtype=np.int32)
        weights = np.array([weight for _, weight in entries], dtype=np.float32)
        order = np.lexsort((indices, np.repeat(np.arange(len(rows)), np.diff(indptr))))  # stable
        return SparseRows(indptr, indices[order], weights[order], encoder.n_item_features)
