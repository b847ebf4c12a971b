"""Explain the score of an item, and why an item is not in an answer."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recall._arrays import Float64, Int64
from recall.bundle.reader import Bundle
from recall.config.schema import Side
from recall.features.csr import FeatureLayout, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.values import to_request_values
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.serving.layout import Attribution, entry_parts, field_parts
from recall.serving.filters.columns import FilterResolver
from recall.serving.query import Query, QueryBuilder
from recall.serving.request import (
    Absence,
    Contribution,
    Explanation,
    FeatureValue,
    Reason,
    Request,
    ScoredItem,
    ValueContribution,
)
from recall.serving.rerank.item_columns import ItemColumns
from recall.serving.rerank.pipeline import rerank
from recall.serving.scoring import Ranking
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks, row_of

# Contributions by pair of fields, which sum to the score of an item.

BOOSTS = "boosts"
"""Name of the user field in contributions of boosts."""

_ROUNDING = 1e-12  # contributions up to this part of the largest are rounding errors of float64


def contributions(
    parts: Attribution,
    users: FeatureLayout,
    items: FeatureLayout,
    popularity: float = 1.0,
    boosts: Mapping[str, float] | None = None,
) -> tuple[Contribution, ...]:
    """Return the contributions to a score by fields, the largest first, without zeros.

    Args:
        parts: parts of the score of one user and one item.
        users: fields of the user side.
        items: fields of the item side.
        popularity: factor of the part that is the same for all users.
        boosts: part of each boost, by name.
    """
    found = [
        Contribution(user, (item,), value)
        for user, row in zip(users.names, parts.across.tolist(), strict=True)
        for item, value in zip(items.names, row, strict=True)
    ]
    found += [
        Contribution(None, (item,), popularity * value) for item, value in zip(items.names, parts.first.tolist(), strict=True)
    ]
    found += [
        Contribution(None, (one, other), popularity * value)
        for one, row in zip(items.names, parts.second.tolist(), strict=True)
        for other, value in zip(items.names, row, strict=True)
    ]
    found += [Contribution(BOOSTS, (name,), value) for name, value in (boosts or {}).items()]
    return largest_first(found)


def difference(more: tuple[Contribution, ...], less: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
    """Subtract contributions by pair of fields; the largest first, without zeros.

    Args:
        more: the minuend.
        less: the subtrahend.
    """
    left = {one[:2]: one.value for one in more}
    for user, items, value in less:
        left[user, items] = left.get((user, items), 0.0) - value
    return largest_first([Contribution(*pair, value) for pair, value in left.items()])


def largest_first(found: list[Contribution]) -> tuple[Contribution, ...]:
    """Sort by falling absolute value, without zeros and rounding errors."""
    least = _ROUNDING * max((abs(one.value) for one in found), default=0.0)
    return tuple(sorted((one for one in found if abs(one.value) > least), key=lambda one: -abs(one.value)))


# Features, described by the values of the tables.


def feature_values(encoder: FeatureEncoder, side: Side, row: SparseRows) -> list[FeatureValue]:
    """Describe the entries of a row of features.

    Args:
        encoder: of the bundle.
        side: side of the feature space.
        row: one row.
    """
    blocks, fields = encoder.item_blocks, encoder.item_fields
    if side == "user":
        blocks, fields = encoder.user_blocks, encoder.user_fields
    found = []
    for place, feature, weight in zip(fields.of(row.indices).tolist(), row.indices.tolist(), row.weights.tolist(), strict=True):
        block = blocks[place]
        within = feature - block.offset
        if within in (UNKNOWN, MISSING):
            found.append(FeatureValue(block.name, None, weight, "unknown" if within == UNKNOWN else "missing"))
            continue
        of = encoder.histories[block.field] if block.field in encoder.histories else encoder.columns[block.field]
        found.append(FeatureValue(block.name, of.describe(within, weight), weight, "learnt"))
    return found


_FEW = 200  # items up to which encoding one by one is faster than as a table
MOST_VALUES = 1000
"""Largest number of contributions of values in an explanation."""


class Explainer:
    """Explains scores, and why items are not in answers. Thread-safe.

    Attributes:
        query_builder: builds queries.
        columns: columns of the items.
        eligibility: resolves filters.
    """

    def __init__(self, bundle: Bundle, query_builder: QueryBuilder, columns: ItemColumns, eligibility: FilterResolver) -> None:
        """Use the parts of one recommender."""
        self._bundle = bundle
        self.query_builder = query_builder
        self.columns = columns
        self.eligibility = eligibility

    def explain(self, request: Request, query: Query, catalogue: CatalogSnapshot, row: int, *, values: bool) -> Explanation:
        """Explain the score of one row. Raises RequestError.

        Args:
            request: as for `Recommender.explain`.
            query: the query of the request.
            catalogue: snapshot of the catalogue.
            row: in [0, size).
            values: include the contributions of single values.
        """
        rows = np.array([row])
        items = self._items(catalogue, rows)
        boosts = self.columns.boost_parts(catalogue, request.boosts, row)
        by_values, rest = _by_values(self._bundle, request, query, items) if values else (None, 0.0)
        return Explanation(
            item_id=catalogue.ids(rows)[0],
            score=float(Ranking.of(request, query.vector, catalogue, self.columns).scores(rows)[0]),
            contributions=self._by_fields(request, query, items, boosts),
            user_offset=query.offset,
            values=by_values,
            rest=rest if by_values is None else rest + sum(boosts.values()),
            bundle=self._bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=query.degraded + catalogue.degraded,
        )

    def contributions(
        self, request: Request, query: Query, catalogue: CatalogSnapshot, rows: Int64
    ) -> list[tuple[Contribution, ...]]:
        """Return the contributions to the scores of some rows. Raises RequestError.

        Args:
            request: as for `Recommender.recommend`.
            query: the query of the request.
            catalogue: snapshot of the catalogue.
            rows: int64 [m], each in [0, size).
        """
        items = self._items(catalogue, rows)
        return [
            self._by_fields(
                request, query, items.take(np.array([place])), self.columns.boost_parts(catalogue, request.boosts, row)
            )
            for place, row in enumerate(rows.tolist())
        ]

    def absence(self, request: Request, catalogue: CatalogSnapshot, item_id: str) -> Absence:
        """Return the rank of an item, and the reasons why it is not in the answer.

        Args:
            request: as for `Recommender.why_not`.
            catalogue: snapshot of the catalogue.
            item_id: the item.

        Raises:
            RequestError: The catalogue lacks the item, or the request cannot be answered.
        """
        row = row_of(catalogue, item_id)
        now = datetime.datetime.now(datetime.UTC)
        query = self.query_builder.build(request, catalogue)
        scope, excluded = self.eligibility.resolve(request, catalogue, query.allowed, query.excluded, now)
        case = _Case(self, request, catalogue, row, query, scope, excluded, now)
        answer = rerank(request, query.vector, excluded, scope, catalogue, self.columns)
        places = np.flatnonzero(answer.rows == row)
        ranking = Ranking.of(request, query.vector, catalogue, self.columns)
        rank, eligible = ranking.place(row, excluded, scope)
        others, scores, _ = ranking.first(request.n, np.append(excluded, row), scope, exact=True)
        score = float(ranking.scores(np.array([row]))[0])
        own, last, missing = None, None, None
        if len(others) == request.n:
            last = ScoredItem(catalogue.ids(others[-1:])[0], float(scores[-1]))
            missing = last.score - score
            own, its = self.contributions(request, query, catalogue, np.array([row, others[-1]]))
        return Absence(
            item_id=item_id,
            listed=int(places[0]) + 1 if len(places) else None,
            reasons=() if len(places) else tuple(case.reasons(rank)),
            score=score,
            rank=rank,
            eligible=eligible,
            last=last,
            missing=missing,
            contributions=() if own is None else difference(its, own),
            exact=answer.exact,
            bundle=catalogue.bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=query.degraded + catalogue.degraded,
        )

    def _by_fields(
        self, request: Request, query: Query, item: SparseRows, boosts: Mapping[str, float]
    ) -> tuple[Contribution, ...]:
        encoder = self._bundle.encoder
        parts = field_parts(self._bundle.tables, query.encoded.rows, item, encoder.user_fields, encoder.item_fields)
        return contributions(parts, encoder.user_fields, encoder.item_fields, request.popularity, boosts)

    def _items(self, catalogue: CatalogSnapshot, rows: Int64) -> SparseRows:
        """Return rows in the item feature space: [m]."""
        encoder = self._bundle.encoder
        table = catalogue.table(rows).select(encoder.items.columns)
        if not 0 < len(rows) <= _FEW:
            return encoder.encode_items(table)
        return SparseRows.vstack([encoder.encode_item(values) for values in to_request_values(table).iter_rows(named=True)])


def _by_values(bundle: Bundle, request: Request, query: Query, item: SparseRows) -> tuple[tuple[ValueContribution, ...], float]:
    """Return the largest contributions of values, and the sum of the others."""
    encoder, popularity = bundle.encoder, request.popularity
    parts = entry_parts(bundle.tables, query.encoded.rows, item)
    of_user, of_item = feature_values(encoder, "user", query.encoded.rows), feature_values(encoder, "item", item)
    field_of = encoder.item_fields.of(item.indices).tolist()
    found: list[tuple[float, FeatureValue | None, tuple[FeatureValue, ...]]] = [
        (value, of_user[one], (of_item[other],)) for one, other, value in _filled(parts.across)
    ]
    found += [(popularity * value, None, (of_item[place],)) for place, value in enumerate(parts.first.tolist())]
    for one, other, value in _filled(parts.second):
        pair = sorted((one, other), key=field_of.__getitem__)  # in the order of the fields
        found.append((popularity * value, None, tuple(of_item[place] for place in pair)))
    found.sort(key=lambda one: -abs(one[0]))
    listed = tuple(ValueContribution(user, items, value) for value, user, items in found[:MOST_VALUES] if value)
    return listed, sum(value for value, _, _ in found[MOST_VALUES:])


def _filled(values: Float64) -> Iterator[tuple[int, int, float]]:
    """Yield row, column and value of the nonzero numbers of a table."""
    rows, columns = np.nonzero(values)
    return zip(rows.tolist(), columns.tolist(), values[rows, columns].tolist(), strict=True)


@dataclass(frozen=True, eq=False)
class _Case:
    """A request, and an item that may not be in its answer.

    Attributes:
        by: the explainer.
        request: the request.
        catalogue: snapshot of the answer.
        row: row of the item, in [0, size).
        query: the query of the request.
        scope, excluded: rows that may be returned, None for all, and rows that must not.
        now: time of the request.
    """

    by: Explainer
    request: Request
    catalogue: CatalogSnapshot
    row: int
    query: Query
    scope: SegmentMasks | None
    excluded: Int64
    now: datetime.datetime

    def reasons(self, rank: int) -> Iterator[Reason]:
        """Yield the reasons why an item of this rank is not in the answer."""
        yield from self._ineligible()
        request = self.request
        if self._listed(request):
            return
        if rank > request.n:
            yield Reason("score", "", f"{rank - 1} eligible items score higher, and n is {request.n}")
        sufficient = rank > request.n
        for place in range(len(request.rules)):
            if self._listed(replace(request, rules=[*request.rules[:place], *request.rules[place + 1 :]])):
                yield Reason("rule", f"/rules/{place}", "without this rule it would be listed")
                sufficient = True
        if request.channels is not None and self._listed(replace(request, channels=None)):
            yield Reason("channels", "/channels", "without channels it would be listed")
            sufficient = True
        if sufficient:
            return
        if request.rules or request.channels is not None:
            yield Reason("rules", "/rules", "the rules and channels together leave it out")
        else:
            yield Reason("search", "", "an approximate search did not find it")

    def _ineligible(self) -> Iterator[Reason]:
        request = self.request
        excluded = self._positions(request.exclude)
        for position in excluded:
            yield Reason("excluded", f"/exclude/{position}", "the request excludes it")
        # the query's rows are excluded or seen, or both: without `exclude`, only the seen ones are left
        query = self.by.query_builder.build(replace(request, exclude=()), self.catalogue) if excluded else self.query
        if self.row in query.excluded:
            in_history = self._positions(request.history or ())
            where = f"/history/{in_history[0]}" if in_history else "/exclude_seen"
            yield Reason("seen", where, "the user has seen it, and the request excludes seen items")
        if request.allow is not None and not self._positions(request.allow):
            yield Reason("allow", "/allow", "it is not among the items that the request allows")
        for where in self.by.eligibility.failing_keys(request, self.catalogue, self.row, self.now):
            yield Reason("filter", where, "it does not match this part of the filter")

    def _positions(self, ids: Sequence[str]) -> list[int]:
        """Return the positions of the item in a list of ids, in any form of its id."""
        return np.flatnonzero(self.catalogue.rows(ids) == self.row).tolist()

    def _listed(self, request: Request) -> bool:
        """Return whether it would be in the answer to another request if it were eligible."""
        only = np.array([self.row])
        scope = None if self.scope is None else self.scope | self.catalogue.masks(only)
        excluded = self.excluded[self.excluded != self.row]
        return self.row in rerank(request, self.query.vector, excluded, scope, self.catalogue, self.by.columns).rows
