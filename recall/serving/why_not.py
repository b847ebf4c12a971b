"""What keeps an item out of the answer to a request."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from recall._arrays import Int64
from recall.serving.explain import Explainer, difference
from recall.serving.filters.resolve import FilterResolver
from recall.serving.query import Query, QueryBuilder
from recall.serving.request import Request
from recall.serving.rerank.item_columns import ItemColumns
from recall.serving.rerank.pipeline import rerank
from recall.serving.response import Absence, Reason, ScoredItem
from recall.serving.scoring import Ranking
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks, row_of


@dataclass(frozen=True, eq=False)
class Absences:
    """Looks for items in the answers of one bundle; threads share it.

    Attributes:
        query_builder: of the requests to it.
        eligibility, columns: of its items.
        explainer: of their scores.
    """

    query_builder: QueryBuilder
    eligibility: FilterResolver
    columns: ItemColumns
    explainer: Explainer

    def of(self, request: Request, catalogue: CatalogSnapshot, item_id: str) -> Absence:
        """Find the rank of an item, and what keeps it out of the answer.

        Args:
            request: as for `Recommender.why_not`.
            catalogue: as it is now.
            item_id: the item.

        Raises:
            RequestError: The catalogue lacks the item, or the request cannot be answered.
        """
        row = row_of(catalogue, item_id)
        now = datetime.datetime.now(datetime.UTC)
        query = self.query_builder.build(request, catalogue)
        scope, excluded = self.eligibility.resolve(request, catalogue, query.allowed, query.excluded, now)
        case = _Case(self, request, catalogue, item_id, row, query, scope, excluded, now)
        answer = rerank(request, query.vector, excluded, scope, catalogue, self.columns)
        places = np.flatnonzero(answer.rows == row)
        ranking = Ranking.of(request, query.vector, catalogue, self.columns)
        rank, eligible = ranking.place(row, excluded, scope)
        others, scores = ranking.first(request.n, np.append(excluded, row), scope)
        score = float(ranking.scores(np.array([row]))[0])
        own, last, missing = None, None, None
        if len(others) == request.n:
            last = ScoredItem(catalogue.ids(others[-1:])[0], float(scores[-1]))
            missing = last.score - score
            own, its = self.explainer.contributions(request, query, catalogue, np.array([row, others[-1]]))
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


@dataclass(frozen=True, eq=False)
class _Case:
    """One item that is looked for in one answer.

    Attributes:
        by: who looks.
        request: as it was asked.
        catalogue: as it was at one moment.
        item_id, row: the item.
        query: the request for the search.
        scope, excluded: bounds of the search.
        now: the present.
    """

    by: Absences
    request: Request
    catalogue: CatalogSnapshot
    item_id: str
    row: int
    query: Query
    scope: SegmentMasks | None
    excluded: Int64
    now: datetime.datetime

    def reasons(self, rank: int) -> Iterator[Reason]:
        """Yield what keeps an item of this rank out of the answer."""
        yield from self._ineligible()
        request = self.request
        if self._listed(request):
            return
        if rank > request.n:
            yield Reason("score", "", f"{rank - 1} eligible items score higher, and {request.n} were asked for")
        shaping = 0
        for place in range(len(request.rules)):
            if self._listed(replace(request, rules=[*request.rules[:place], *request.rules[place + 1 :]])):
                yield Reason("rule", f"/rules/{place}", "without this rule it would be listed")
                shaping += 1
        if request.channels is not None and self._listed(replace(request, channels=None)):
            yield Reason("channels", "/channels", "without channels it would be listed")
            shaping += 1
        if rank > request.n or shaping:
            return
        if request.rules or request.channels is not None:
            yield Reason("rules", "/rules", "the rules and channels together leave it out")
        else:
            yield Reason("search", "", "an approximate search has not found it")

    def _ineligible(self) -> Iterator[Reason]:
        request, item_id = self.request, self.item_id
        for place, one in enumerate(request.exclude):
            if one == item_id:
                yield Reason("excluded", f"/exclude/{place}", "the request excludes it")
        if self._seen():
            given = list(request.history or ())
            where = f"/history/{given.index(item_id)}" if item_id in given else "/exclude_seen"
            yield Reason("seen", where, "the user has had it, and the request leaves out what was seen")
        if request.allow is not None and item_id not in request.allow:
            yield Reason("allow", "/allow", "it is not among the items that the request allows")
        for where in self.by.eligibility.failing_keys(request, self.catalogue, self.row, self.now):
            yield Reason("filter", where, "it does not match this part of the filter")

    def _seen(self) -> bool:
        """Whether it is left out for having been seen, besides being excluded or not."""
        left_out = self.query.excluded
        if self.item_id in self.request.exclude:
            left_out = self.by.query_builder.build(replace(self.request, exclude=()), self.catalogue).excluded
        return self.row in left_out

    def _listed(self, request: Request) -> bool:
        """Whether it would be in the answer to another request, were it eligible."""
        only = np.array([self.row])
        scope = None if self.scope is None else self.scope | self.catalogue.masks(only)
        excluded = self.excluded[self.excluded != self.row]
        return self.row in rerank(request, self.query.vector, excluded, scope, self.catalogue, self.by.columns).rows
