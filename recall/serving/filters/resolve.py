"""Resolve a request's filter, allow list and exclusions to rows of a catalogue."""

import datetime
from functools import partial

import numpy as np
import polars as pl

from recall._arrays import Int64
from recall.bundle.reader import Bundle
from recall.errors import RequestError, pointer
from recall.features.canonical import LIST, TEXT, of_dtype
from recall.index.bitmap import RowBitmap
from recall.serving.filters.columns import FilterColumns, forms_of
from recall.serving.filters.compile import compile_filter
from recall.serving.filters.parse import parse
from recall.serving.request import Request
from recall.store.items.segment import Segment
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks

MANY = 5_000
"""More excluded rows than these are taken out of the scope of a search; an index skips fewer while it scans."""

_NONE: Int64 = np.empty(0, dtype=np.int64)


class FilterResolver:
    """The columns of one bundle's items and of the delta segment. Thread-safe."""

    def __init__(self, bundle: Bundle) -> None:
        """Columns are read when a filter first names them. Raises BundleError."""
        dtypes, recorded, schema = bundle.item_types(), bundle.encoder.types.items, bundle.encoder.schema
        forms = forms_of(dtypes, schema, recorded)
        self.types = {
            name: recorded.get(name, TEXT) if dtypes[name] == pl.String else of_dtype(dtypes[name])
            for name, form in forms.items()
            if form is not None
        }
        """Type of every column that a filter may name, such as "float64" or "list of text"."""
        for name in schema.separators("item"):
            if name in self.types and not self.types[name].startswith(LIST):
                self.types[name] = LIST + self.types[name]
        self.columns = FilterColumns(len(bundle.item_ids), forms, bundle.item_column)

    def resolve(
        self, request: Request, catalogue: CatalogSnapshot, allowed: Int64 | None, excluded: Int64, now: datetime.datetime
    ) -> tuple[SegmentMasks | None, Int64]:
        """Return what to search within, None for everything, and the rows to pass over.

        Args:
            request: its filter is taken.
            catalogue: of the same bundle.
            allowed: int64 [m], the only rows that may be returned, repeats allowed; None allows all.
            excluded: int64 [m], rows that must not be returned.
            now: the present, with a zone.

        Raises:
            RequestError: the filter is none, or does not fit the catalogue.
        """
        masks = None
        if request.filter is not None:
            predicate = parse(request.filter)
            masks = SegmentMasks(tuple(one.select(predicate, now) for one in self._by_segment(catalogue)), request.filter)
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
        """Return JSON pointers of the keys of a filter that one row does not match.

        Args:
            request: its filter is taken.
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
        """Return whether a request's filter is cached, refused, or absent.

        A new filter may take a while to evaluate.
        """
        if request.filter is None:
            return True
        try:
            return self.columns.ready(parse(request.filter))
        except RequestError:
            return True

    def _by_segment(self, catalogue: CatalogSnapshot) -> list[FilterColumns]:
        """Return the columns of each segment; later ones are read as the bundle's are."""
        later = (one.derived("filters", partial(self._over, one)) for one in catalogue.segments[1:])
        return [self.columns, *later]

    def _over(self, segment: Segment) -> FilterColumns:
        return self.columns.over(segment.content.items())
