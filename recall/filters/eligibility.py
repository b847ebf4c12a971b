"""Which rows one request may be answered with: what its filter and its allow list leave, less what it has seen."""

import datetime
from collections.abc import Mapping

import numpy as np

from recall.features.sparse import Int64
from recall.filters.attributes import Attributes
from recall.filters.parsing import parse
from recall.index.selection import Selection

MANY = 5_000
"""More excluded rows than these are taken out of the selection; an index passes over fewer as it meets them."""

_NONE: Int64 = np.empty(0, dtype=np.int64)


def eligible(
    attributes: Attributes,
    filter_: Mapping[str, object] | None,
    allowed: Int64 | None,
    excluded: Int64,
    now: datetime.datetime,
) -> tuple[Selection | None, Int64]:
    """What an index is asked to search within and to pass over.

    Args:
        attributes: of the catalogue.
        filter_: as a request has it; None leaves every item.
        allowed: int64 [m], the only rows that may be returned, repeats allowed; None allows all.
        excluded: int64 [m], rows that must not be returned.
        now: the present, with a zone.

    Returns:
        The rows that may be returned, None for all, and those of them that may not.

    Raises:
        RequestError: the filter is none, or does not fit the catalogue.
    """
    within = None if filter_ is None else attributes.select(parse(filter_), now)
    if allowed is not None:
        rows = allowed if within is None else allowed[within.holds(allowed)]
        within = Selection.of_rows(rows, attributes.size)
    if len(excluded) > MANY:
        rest = Selection.everything(attributes.size) if within is None else within
        return rest - Selection.of_rows(excluded, attributes.size), _NONE
    return None if within is not None and within.count == within.size else within, excluded
