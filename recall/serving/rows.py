"""Columns of the items of an answer, and further lists of items like those taken."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from recall._arrays import Int64
from recall.serving.request import Request
from recall.serving.rerank.item_columns import ItemColumns
from recall.serving.response import Row, ScoredItem, Scores, Similar
from recall.serving.scoring import Similarity
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks

Found = TypeVar("Found", Scores, Similar)


def with_fields(found: Found, request: Request, catalogue: CatalogSnapshot, columns: ItemColumns) -> Found:
    """Return an answer with the columns that its request names.

    Args:
        found: the answer.
        request: its fields are taken.
        catalogue: that the answer comes from.
        columns: of the items.
    """
    if not request.fields:
        return found
    rows = catalogue.rows([one.item_id for one in found.items])
    return replace(found, fields=tuple(columns.values(catalogue, rows, request.fields)))


def because_rows(
    request: Request,
    history: Sequence[str],
    listed: Int64,
    catalogue: CatalogSnapshot,
    bounds: tuple[SegmentMasks | None, Int64],
    similarity: Similarity,
    columns: ItemColumns,
) -> tuple[Row, ...]:
    """Return a list of similar items for each of the user's latest items.

    No item is in two of them, or in the answer's own list. Rules and channels do not apply.

    Args:
        request: how many lists, of how many items, with which fields.
        history: items that the user took, latest first.
        listed: int64 [m], rows of the answer's own list.
        catalogue: as it is now.
        bounds: the rows that may be returned, None for all, and rows that must not.
        similarity: finds them.
        columns: of the items.
    """
    scope, excluded = bounds
    excluded = np.concatenate([excluded, listed])
    taken = catalogue.rows(list(dict.fromkeys(history))) if history else listed[:0]
    found = []
    for source in taken[taken >= 0][: request.because].tolist():
        rows, cosines = similarity.nearest(catalogue, source, request.n, excluded, scope)
        if len(rows):
            excluded = np.concatenate([excluded, rows])
            item_id, *ids = catalogue.ids(np.array([source, *rows.tolist()]))
            own, *values = columns.values(catalogue, np.array([source, *rows.tolist()]), request.fields) or ({},)
            name = own.get(request.fields[0], item_id) if request.fields else item_id
            items = tuple(map(ScoredItem, ids, cosines.tolist()))
            found.append(Row(item_id, f"Because you took {name}", items, tuple(values)))
    return tuple(found)
