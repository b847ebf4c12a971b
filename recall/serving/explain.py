"""Explains scores of one bundle's items."""

from collections.abc import Iterator, Mapping

import numpy as np

from recall._arrays import Float64, Int64
from recall.bundle.reader import Bundle
from recall.features.csr import SparseRows
from recall.features.values import as_requested
from recall.models.serving.attribution import entry_parts
from recall.serving.explain_fields import contributions
from recall.serving.feature_names import item_values, user_values
from recall.serving.query import Prepared
from recall.serving.request import Request
from recall.serving.rerank.boosted import gains_by_name
from recall.serving.rerank.item_columns import Facets
from recall.serving.rerank.ranking import Ranking
from recall.serving.response import Contribution, Explanation, FeatureValue, ValueContribution
from recall.store.items.snapshot import Catalogue

_FEW = 200  # items that are encoded sooner one by one than as a table
MOST_VALUES = 1000
"""Contributions of values that are told."""


class Explainer:
    """Takes scores apart; threads share it."""

    def __init__(self, bundle: Bundle, facets: Facets) -> None:
        """Explains the scores of a bundle, whose further columns are `facets`."""
        self._bundle = bundle
        self._facets = facets

    def explain(self, request: Request, prepared: Prepared, catalogue: Catalogue, row: int, *, values: bool) -> Explanation:
        """The whole explanation of one row's score, with what values bring if that is wanted. Raises RequestError."""
        rows = np.array([row])
        items = self._items(catalogue, rows)
        gains = gains_by_name(request, catalogue, self._facets, row)
        told, rest = _by_values(self._bundle, request, prepared, items) if values else (None, 0.0)
        return Explanation(
            item_id=catalogue.ids(rows)[0],
            score=float(Ranking.of(request, prepared.vector, catalogue, self._facets).scores(rows)[0]),
            contributions=self._by_fields(request, prepared, items, gains),
            user_offset=prepared.offset,
            values=told,
            rest=rest if told is None else rest + sum(gains.values()),
            bundle=self._bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=prepared.degraded + catalogue.degraded,
        )

    def contributions(
        self, request: Request, prepared: Prepared, catalogue: Catalogue, rows: Int64
    ) -> list[tuple[Contribution, ...]]:
        """What the score of each of some rows, int64 [m], comes from. Raises RequestError when a boost is not known."""
        items = self._items(catalogue, rows)
        return [
            self._by_fields(
                request, prepared, items.take(np.array([place])), gains_by_name(request, catalogue, self._facets, row)
            )
            for place, row in enumerate(rows.tolist())
        ]

    def _by_fields(
        self, request: Request, prepared: Prepared, item: SparseRows, gains: Mapping[str, float]
    ) -> tuple[Contribution, ...]:
        encoder = self._bundle.encoder
        parts = self._bundle.tables.explain(prepared.encoded.rows, item)
        return contributions(parts, encoder.user_fields, encoder.item_fields, request.popularity, gains)

    def _items(self, catalogue: Catalogue, rows: Int64) -> SparseRows:
        """Items in the item feature space."""
        encoder = self._bundle.encoder
        table = catalogue.table(rows).select(encoder.items.columns)
        if not 0 < len(rows) <= _FEW:
            return encoder.encode_items(table)
        return SparseRows.below([encoder.encode_item(values) for values in as_requested(table).iter_rows(named=True)])


def _by_values(
    bundle: Bundle, request: Request, prepared: Prepared, item: SparseRows
) -> tuple[tuple[ValueContribution, ...], float]:
    """What values bring to the score of one item, the largest first, and the sum of what was left out of that list."""
    encoder, dial = bundle.encoder, request.popularity
    parts = entry_parts(bundle.tables, prepared.encoded.rows, item)
    of_user, of_item = user_values(encoder, prepared.encoded.rows), item_values(encoder, item)
    field_of = encoder.item_fields.of(item.indices).tolist()
    found: list[tuple[float, FeatureValue | None, tuple[FeatureValue, ...]]] = [
        (value, of_user[one], (of_item[other],)) for one, other, value in _filled(parts.across)
    ]
    found += [(dial * value, None, (of_item[place],)) for place, value in enumerate(parts.first.tolist())]
    for one, other, value in _filled(parts.second):
        pair = sorted((one, other), key=field_of.__getitem__)  # as fields are named
        found.append((dial * value, None, tuple(of_item[place] for place in pair)))
    found.sort(key=lambda one: -abs(one[0]))
    listed = tuple(ValueContribution(user, items, value) for value, user, items in found[:MOST_VALUES] if value)
    return listed, sum(value for value, _, _ in found[MOST_VALUES:])


def _filled(values: Float64) -> Iterator[tuple[int, int, float]]:
    """Where numbers of a table are not zero, and what they are."""
    rows, columns = np.nonzero(values)
    return zip(rows.tolist(), columns.tolist(), values[rows, columns].tolist(), strict=True)
