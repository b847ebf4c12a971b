"""Columns of a segment, read when a filter first names them, and cached bitmaps."""

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
from recall.serving.filters.column import Column, Form, Kind
from recall.serving.filters.compile import CodeRanges, Plan, compile_filter, evaluate
from recall.serving.filters.parse import Predicate

_MOST, _MOST_BYTES = 1024, 64 << 20  # bitmaps that are kept by plan
_OVERHEAD = 1024  # bytes of a cached selection beside its bits: its plan, and Python's objects
_RANGE = 128  # bytes of one range in a plan


class FilterColumns:
    """The columns of one catalogue, which never change. Threads share it."""

    def __init__(
        self, size: int, forms: Mapping[str, Form | None], read: Callable[[str], pl.Series], lenient: bool = False
    ) -> None:
        """Columns that are read when they are needed.

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
        self._cache: Cache[Plan, RowBitmap] = Cache(_MOST, _MOST_BYTES, _bytes)
        self._columns: dict[tuple[str, Kind], Column] = {}
        self._opening = Lock()

    def over(self, frame: pl.DataFrame) -> "FilterColumns":
        """Return further items as columns that are read as these are.

        A column that `frame` lacks has no values; one that is not here is ignored.

        Where text is compared as numbers or times, a text that is none matches nothing: one item that came later is to
        spoil no filter that the catalogue bears.
        """

        def read(name: str) -> pl.Series:
            return frame[name] if name in frame.columns else pl.Series(name, [None] * len(frame), dtype=pl.String)

        return FilterColumns(len(frame), self._forms, read, lenient=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that a filter may name, in order."""
        return tuple(name for name, form in self._forms.items() if form is not None)

    def select(self, predicate: Predicate, now: datetime.datetime | None = None) -> RowBitmap:
        """Return the rows that a predicate matches, the same object while it is cached.

        Args:
            predicate: from `parse`.
            now: the present, for windows that ask for it; with a zone. The clock is read when it is left out.

        Raises:
            RequestError: it names a column that is not there, or compares one with what it cannot hold.
        """
        plan = compile_filter(predicate, self.form, self.column, now or datetime.datetime.now(datetime.UTC))
        found = self._cache.get(plan)
        return found if found is not None else self._cache.setdefault(plan, evaluate(plan, self.size, self._rows))

    def ready(self, predicate: Predicate) -> bool:
        """Return whether `select` would return or raise without reading a column.

        Args:
            predicate: from `parse`.
        """
        now = datetime.datetime.now(datetime.UTC)
        try:
            plan = compile_filter(predicate, self.form, lambda name, kind: self._columns[name, kind], now)
        except KeyError:  # a column has to be opened first
            return False
        except RequestError:
            return True
        return self._cache.get(plan) is not None

    def form(self, name: str, where: str) -> Form:
        """Return how a column is read.

        Args:
            name: of the column.
            where: JSON pointer, used in the error.

        Raises:
            RequestError: Items do not have a column that a filter may name so.
        """
        if name not in self._forms:
            raise RequestError("items have no such column", where=where, hint=did_you_mean(name[:256], self.names))
        form = self._forms[name]
        if form is None:
            raise RequestError(f"column {name!r} is of a type that cannot be filtered by", where=where)
        return form

    def column(self, name: str, kind: Kind) -> Column:
        """Return a column with its values as a kind.

        Args:
            name: of the column.
            kind: what its values are compared as.

        Raises:
            DataError: The values are not of that kind.
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

    def _rows(self, ranges: CodeRanges) -> RowBitmap:
        """Select the rows of a condition, which other filters may share."""
        found = self._cache.get(ranges)
        if found is None:
            found = self._cache.setdefault(ranges, self.column(ranges.column, ranges.kind).select(ranges.ranges))
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


def _bytes(plan: Plan, selection: RowBitmap) -> int:
    listed = vars(selection).get("rows")
    ranges = len(plan.ranges) if isinstance(plan, CodeRanges) else 0
    return _OVERHEAD + _RANGE * ranges + selection.bits.nbytes + (listed.nbytes if listed is not None else 0)
