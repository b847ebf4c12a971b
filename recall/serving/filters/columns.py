"""Filterable columns of the items of a catalogue, opened on first use."""

import datetime
from collections.abc import Callable, Mapping
from threading import Lock

import polars as pl
from polars.datatypes import DataType

from recall._cache import Cache
from recall.config.schema import Schema
from recall.errors import RequestError, did_you_mean
from recall.features.canonical import TEXT
from recall.index.bitmap import RowBitmap
from recall.serving.filters.ast import Predicate
from recall.serving.filters.column import Column
from recall.serving.filters.compile import bound
from recall.serving.filters.plan import Clause, Rows, evaluate
from recall.serving.filters.values import Form, Kind

_OVERHEAD = 1024  # bytes of a cached selection beside its bits: its clause, and Python's objects
_RANGE = 128  # bytes of one range in a clause


class Attributes:
    """The columns of one catalogue, which never change. Threads share it."""

    def __init__(
        self, size: int, forms: Mapping[str, Form | None], read: Callable[[str], pl.Series], lenient: bool = False
    ) -> None:
        """Columns that are read when they are needed; `of` takes a table that is there.

        Args:
            size: rows of the catalogue.
            forms: how each column is read, by its name; None for one that nothing can be compared with.
            read: gives a column, [size].
            lenient: let text that is not of the kind it is compared as match nothing; else it refuses the filter.
        """
        self.size = size
        self._forms = forms
        self._read = read
        self._lenient = lenient
        self._cache = selection_cache()
        self._columns: dict[tuple[str, Kind], Column] = {}
        self._opening = Lock()

    @staticmethod
    def of(frame: pl.DataFrame, schema: Schema | None = None) -> "Attributes":
        """Return the columns of a table [size].

        Args:
            frame: the items.
            schema: text that a bag field of it reads is split into bags.
        """
        return Attributes(len(frame), forms_of(frame.schema, schema), frame.get_column)

    def over(self, frame: pl.DataFrame) -> "Attributes":
        """Return the columns of further items, read like these.

        A column that `frame` lacks has no value, and one that is new is ignored. Where text is compared as numbers or times,
        text that cannot be parsed matches nothing: a later item must not break filters that the catalogue supports.
        """

        def read(name: str) -> pl.Series:
            return frame[name] if name in frame.columns else pl.Series(name, [None] * len(frame), dtype=pl.String)

        return Attributes(len(frame), self._forms, read, lenient=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that a filter may name, in order."""
        return tuple(name for name, form in self._forms.items() if form is not None)

    def select(self, predicate: Predicate, now: datetime.datetime | None = None) -> RowBitmap:
        """Return the rows that a predicate matches; the same object while cached.

        Args:
            predicate: from `parse`.
            now: the present, for windows that ask for it; with a zone. Default: the clock.

        Raises:
            RequestError: It names an unknown column, or compares one with a value of another kind.
        """
        clause = bound(predicate, self, now if now is not None else datetime.datetime.now(datetime.UTC))
        found = self._cache.get(clause)
        return found if found is not None else self._cache.setdefault(clause, self._selected(clause))

    def ready(self, predicate: Predicate, now: datetime.datetime | None = None) -> bool:
        """Return whether `select` would answer, or fail, at once from the cache.

        Args:
            predicate: from `parse`.
            now: as for `select`.
        """
        try:
            clause = bound(predicate, _Opened(self), now if now is not None else datetime.datetime.now(datetime.UTC))
        except _UnopenedError:
            return False
        except RequestError:
            return True
        return self._cache.get(clause) is not None

    def opened(self, name: str, kind: Kind) -> Column | None:
        """Return an open column, or None.

        Args:
            name: of the column.
            kind: what its values are compared as.
        """
        return self._columns.get((name, kind))

    def form(self, name: str, where: str) -> Form:
        """Return how a column is read.

        Args:
            name: of the column.
            where: JSON pointer for the error.

        Raises:
            RequestError: There is no such filterable column.
        """
        if name not in self._forms:
            raise RequestError("items have no such column", where=where, hint=did_you_mean(name[:256], self.names))
        form = self._forms[name]
        if form is None:
            raise RequestError(f"column {name!r} is of a type that cannot be filtered by", where=where)
        return form

    def column(self, name: str, kind: Kind) -> Column:
        """Open a column.

        Args:
            name: of the column.
            kind: what its values are compared as.

        Raises:
            DataError: A value is not of that kind.
        """
        found = self._columns.get((name, kind))
        if found is None:
            with self._opening:
                found = self._columns.get((name, kind))
                if found is None:
                    form = self._forms[name]
                    assert form is not None  # `form` has refused it
                    found = self._columns[name, kind] = Column.of(self._read(name), form, kind, self._lenient)
        return found

    def _selected(self, clause: Clause) -> RowBitmap:
        if not isinstance(clause, Rows):
            return evaluate(clause, self.size, self._part)
        return self.column(clause.column, clause.kind).select(clause.ranges)

    def _part(self, clause: Clause) -> RowBitmap:
        """Evaluate a part of a clause; conditions are cached for other filters."""
        if not isinstance(clause, Rows):
            return self._selected(clause)
        found = self._cache.get(clause)
        return found if found is not None else self._cache.setdefault(clause, self._selected(clause))


class _UnopenedError(Exception):
    """A column has to be opened first."""


class _Opened:
    """The columns that were opened before."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes

    def form(self, name: str, where: str) -> Form:
        return self._attributes.form(name, where)

    def column(self, name: str, kind: Kind) -> Column:
        found = self._attributes.opened(name, kind)
        if found is None:
            raise _UnopenedError
        return found


def forms_of(
    types: Mapping[str, DataType], schema: Schema | None = None, canonical_types: Mapping[str, str] | None = None
) -> dict[str, Form | None]:
    """How columns are read, by name.

    Args:
        types: dtypes of the columns.
        schema: its bag fields say how text is cut.
        canonical_types: types of the columns as the bundle records them, which decide what text is compared as.
    """
    cuts, recorded = schema.separators("item") if schema is not None else {}, canonical_types or {}
    return {name: Form.of(dtype, cuts.get(name, ""), recorded.get(name, TEXT)) for name, dtype in types.items()}


def selection_cache(most: int = 1024, most_bytes: int = 64 << 20) -> Cache[Clause, RowBitmap]:
    """Create a cache of row bitmaps by clause.

    Args:
        most: maximum number of entries.
        most_bytes: maximum size.
    """
    return Cache(most, most_bytes, _bytes)


def _bytes(clause: Clause, selection: RowBitmap) -> int:
    listed = vars(selection).get("rows")
    ranges = len(clause.ranges) if isinstance(clause, Rows) else 0
    return _OVERHEAD + _RANGE * ranges + selection.bits.nbytes + (listed.nbytes if listed is not None else 0)
