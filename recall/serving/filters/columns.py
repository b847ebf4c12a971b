"""Filter columns of a segment with cached bitmaps, and filters of requests."""

import datetime
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Lock

import numpy as np
import polars as pl
from polars.datatypes import DataType

from recall._arrays import Int64
from recall._cache import Cache
from recall.bundle.reader import Bundle
from recall.config.schema import Schema
from recall.errors import DataError, RequestError, did_you_mean, pointer
from recall.features.canonical import LIST, TEXT, type_of_dtype
from recall.features.encoder import FeatureEncoder
from recall.index.bitmap import RowBitmap
from recall.index.query import CodedColumn, CodeRanges, Kind, Plan
from recall.index.query import Predicate as PushedPredicate
from recall.serving.filters.column import Column, Form
from recall.serving.filters.compile import compile_filter, evaluate
from recall.serving.filters.parse import Predicate, parse
from recall.serving.request import Request
from recall.store.items.segment import Segment
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks

_MAX_CACHED, _MAX_CACHED_BYTES = 1024, 64 << 20  # bitmaps by plan
_OVERHEAD = 1024  # bytes of a cached bitmap without its bits: the plan, and Python objects
_RANGE_BYTES = 128  # bytes of one range in a plan


class FilterColumns:
    """The immutable columns of a segment, with a cache of bitmaps. Thread-safe."""

    def __init__(
        self, size: int, forms: Mapping[str, Form | None], read: Callable[[str], pl.Series], lenient: bool = False
    ) -> None:
        """Describe the columns; each is read when it is first used.

        Args:
            size: rows of the segment.
            forms: form of each column, by its name; None for a column that cannot be compared.
            read: returns a column, [size].
            lenient: if text cannot be read as the kind that it is compared as, it matches nothing; else the filter is refused.
        """
        self.size = size
        self._forms = forms
        self._read = read
        self._lenient = lenient
        self._cache: Cache[Plan, RowBitmap] = Cache(_MAX_CACHED, _MAX_CACHED_BYTES, _bytes)
        self._columns: dict[tuple[str, Kind], Column] = {}
        self._opening = Lock()

    def over(self, frame: pl.DataFrame) -> "FilterColumns":
        """Return the columns of further items, in the same forms.

        A column that `frame` lacks has only missing values. The columns are lenient: an item that is added later must not make
        filters fail that the published catalogue accepts.
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
            now: the present, with a zone; default: the time of the clock.

        Raises:
            RequestError: A column is unknown, or is compared with a value of another kind.
        """
        return self.matching(self.plan(predicate, now or datetime.datetime.now(datetime.UTC)))

    def plan(self, predicate: Predicate, now: datetime.datetime) -> Plan:
        """Compile a predicate to a plan over the codes of these columns.

        Args:
            predicate: from `parse`.
            now: the present, with a zone.

        Raises:
            RequestError: As for `select`.
        """
        return compile_filter(predicate, self.form, self.column, now)

    def matching(self, plan: Plan) -> RowBitmap:
        """Return the rows of a plan, the same object while it is cached."""
        found = self._cache.get(plan)
        return found if found is not None else self._cache.setdefault(plan, evaluate(plan, self.size, self._rows))

    def ready(self, predicate: Predicate) -> bool:
        """Return whether `select` would be fast: its bitmap is cached, or it raises.

        Args:
            predicate: from `parse`.
        """
        now = datetime.datetime.now(datetime.UTC)
        try:
            plan = compile_filter(predicate, self.form, lambda name, kind: self._columns[name, kind], now)
        except KeyError:  # a column is not read yet
            return False
        except RequestError:
            return True
        return self._cache.get(plan) is not None

    def form(self, name: str, where: str) -> Form:
        """Return the form of a column.

        Args:
            name: of the column.
            where: JSON pointer, used in the error.

        Raises:
            RequestError: Items do not have such a column, or a filter cannot use it.
        """
        if name not in self._forms:
            raise RequestError("items have no such column", where=where, hint=did_you_mean(name[:256], self.names))
        form = self._forms[name]
        if form is None:
            raise RequestError(f"column {name!r} has a type that filters cannot compare", where=where)
        return form

    def column(self, name: str, kind: Kind) -> Column:
        """Return a column with values of a kind.

        Args:
            name: of the column.
            kind: type that its values are compared as.

        Raises:
            DataError: The values are not of that kind.
        """
        found = self._columns.get((name, kind))
        if found is None:
            with self._opening:
                found = self._columns.get((name, kind))
                if found is None:
                    form = self._forms[name]
                    assert form is not None  # checked by `form`
                    found = self._columns[name, kind] = Column.of(self._read(name), form, kind, self._lenient)
        return found

    def _rows(self, ranges: CodeRanges) -> RowBitmap:
        """Return the rows of a condition, cached because filters may share it."""
        found = self._cache.get(ranges)
        if found is None:
            found = self._cache.setdefault(ranges, self.column(ranges.column, ranges.kind).select(ranges.ranges))
        return found


def forms_of(
    types: Mapping[str, DataType], schema: Schema | None = None, canonical_types: Mapping[str, str] | None = None
) -> dict[str, Form | None]:
    """Return the forms of columns by name; None for a column that cannot be compared.

    Args:
        types: dtypes of the columns.
        schema: schema with the separators of bags.
        canonical_types: types of the columns that the bundle records, which determine what text is compared as.
    """
    separators, recorded = schema.separators("item") if schema is not None else {}, canonical_types or {}
    return {name: Form.of(dtype, separators.get(name, ""), recorded.get(name, TEXT)) for name, dtype in types.items()}


def coded_columns(items: pl.DataFrame, encoder: FeatureEncoder) -> list[CodedColumn]:
    """Return the columns for filters, as codes that an index engine may store.

    A column with values of another kind than its type is left out: this process evaluates filters on it.

    Args:
        items: the published items.
        encoder: encoder of the bundle.
    """
    found = []
    for name, form in forms_of(items.schema, encoder.schema, encoder.types.items).items():
        if form is not None:
            with suppress(DataError):
                column = Column.of(items[name], form, form.kind)
                codes = column.entry_codes.astype(np.int32)
                found.append(CodedColumn(name, form.kind, codes, column.entry_rows))
    return found


def _bytes(plan: Plan, bitmap: RowBitmap) -> int:
    rows = vars(bitmap).get("rows")  # the cached property
    ranges = len(plan.ranges) if isinstance(plan, CodeRanges) else 0
    return _OVERHEAD + _RANGE_BYTES * ranges + bitmap.bits.nbytes + (rows.nbytes if rows is not None else 0)


# Resolve a request's filter, allow list and exclusions to rows of a catalogue.

MANY = 5_000
"""Number of excluded rows above which they are removed from the masks; fewer rows are skipped in the search."""

_NONE: Int64 = np.empty(0, dtype=np.int64)


class FilterResolver:
    """Resolves filters over the segments of a catalogue. Thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        """Describe the columns; each is read when it is first used. Raises BundleError."""
        dtypes, recorded, schema = bundle.item_types(), bundle.encoder.types.items, bundle.encoder.schema
        forms = forms_of(dtypes, schema, recorded)
        self.types = {
            name: recorded.get(name, TEXT) if dtypes[name] == pl.String else type_of_dtype(dtypes[name])
            for name, form in forms.items()
            if form is not None
        }
        """Type of each column that a filter may name, such as "float64" or "list of text"."""
        for name in schema.separators("item"):
            if name in self.types and not self.types[name].startswith(LIST):
                self.types[name] = LIST + self.types[name]
        self.columns = FilterColumns(len(bundle.item_ids), forms, bundle.item_column)

    def resolve(
        self, request: Request, catalogue: CatalogSnapshot, allowed: Int64 | None, excluded: Int64, now: datetime.datetime
    ) -> tuple[SegmentMasks | None, Int64]:
        """Return masks of the rows to search within, None for all, and the excluded rows.

        Args:
            request: its filter is used.
            catalogue: of the same bundle.
            allowed: int64 [m], the only rows that may be returned, repeats allowed; None allows all.
            excluded: int64 [m], rows that must not be returned.
            now: the present, with a zone.

        Raises:
            RequestError: The filter is malformed, or names an unknown column.
        """
        masks = None
        if request.filter is not None:
            predicate = parse(request.filter)
            published, *later = self._by_segment(catalogue)
            plan = published.plan(predicate, now)
            selected = (published.matching(plan), *(one.select(predicate, now) for one in later))
            masks = SegmentMasks(selected, PushedPredicate(request.filter, plan))
            if masks.everything:
                masks = None
        if allowed is not None:
            only = catalogue.masks(allowed)
            masks = only if masks is None else masks & only
        if len(excluded) > MANY:
            if masks is None:
                masks = SegmentMasks(tuple(RowBitmap.everything(one.size) for one in catalogue.segments))
            return masks - catalogue.masks(excluded), _NONE
        return masks, excluded

    def check(self, request: Request, now: datetime.datetime) -> None:
        """Check a filter without selecting rows.

        Args:
            request: its filter is checked.
            now: the present, with a zone.

        Raises:
            RequestError: The filter is malformed or does not fit the columns.
        """
        if request.filter is not None:
            compile_filter(parse(request.filter), self.columns.form, self.columns.column, now)

    def failing_keys(self, request: Request, catalogue: CatalogSnapshot, row: int, now: datetime.datetime) -> list[str]:
        """Return JSON pointers to the keys of a filter that one row does not match.

        Args:
            request: its filter is used.
            catalogue: of the same bundle.
            row: in [0, size).
            now: the present, with a zone.

        Raises:
            RequestError: The filter is malformed or does not fit the columns.
        """
        segment = catalogue.segment_of(row)
        columns = self._by_segment(catalogue)[catalogue.segments.index(segment)]
        return [
            pointer("filter", key)
            for key, condition in (request.filter or {}).items()
            if not columns.select(parse({key: condition}), now).holds(np.array([row - segment.first]))[0]
        ]

    def ready_for(self, request: Request) -> bool:
        """Return whether a request's filter is cached, invalid, or None.

        Another filter may take a while to evaluate.
        """
        if request.filter is None:
            return True
        try:
            return self.columns.ready(parse(request.filter))
        except RequestError:
            return True

    def _by_segment(self, catalogue: CatalogSnapshot) -> list[FilterColumns]:
        """Return the columns of each segment, in the forms of the bundle's columns."""
        later = (one.derived("filters", partial(self._over, one)) for one in catalogue.segments[1:])
        return [self.columns, *later]

    def _over(self, segment: Segment) -> FilterColumns:
        return self.columns.over(segment.content.items())
