"""Re-rank a request with boosts, channels or rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Int64
from recall._ids import id_warnings
from recall.errors import RequestError
from recall.serving.request import Request
from recall.serving.rerank.base import Candidates, Groups, Mask, Scores, apply_rules, check_distinct
from recall.serving.rerank.channels import (
    AnyChannel,
    ChannelResult,
    Channels,
    FusedList,
    LatestChannel,
    ListChannel,
    ModelChannel,
    Order,
    PopularChannel,
    Source,
    fuse,
    read_channels,
)
from recall.serving.rerank.item_columns import ItemColumns
from recall.serving.rerank.rules import AnyRule, Dedupe, Pin, Quota, read_rules
from recall.serving.scoring import Ranking
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks


@dataclass(frozen=True, slots=True, eq=False)
class RankedList:
    """The list of a request.

    Attributes:
        rows: int64 [m], best first, m at most n.
        scores: floats [m].
        exact: whether the model's ranking is known to be exact; re-ranking always is.
        sources: channels of each row; None without channels.
        warnings: parts of the request without effect, in sentences.
    """

    rows: Int64
    scores: Scores
    exact: bool
    sources: list[tuple[Source, ...]] | None = None
    warnings: tuple[str, ...] = ()


def rerank(
    request: Request,
    vector: Float32,
    excluded: Int64,
    scope: SegmentMasks | None,
    catalogue: CatalogSnapshot,
    columns: ItemColumns,
) -> RankedList:
    """Search and re-rank.

    Args:
        request: its rules, channels, boosts and n are used.
        vector: float32 [dim], the query vector.
        excluded: int64 [m], rows that must not be returned.
        scope: the rows that may be; None for all.
        catalogue: snapshot to search.
        columns: columns of the items.

    Raises:
        RequestError: A rule, a channel or a boost is malformed, out of bounds, or does not fit the catalogue.
    """
    channels = None if request.channels is None else read_channels(request.channels)
    rules = read_rules(request.rules)
    check_pins(rules, request.n)
    pool = _Pool(Ranking.of(request, vector, catalogue, columns), columns, excluded, scope, channels)
    steps = [rule.step(pool, f"/rules/{place}") for place, rule in enumerate(rules)]
    found = apply_rules(pool.fetch, steps, request.n, catalogue.size)
    last = pool.fused
    sources = None if last is None else last.sources(last.places(found.rows))
    warnings = (*pool.warnings, *(text for step in steps for text in step.warnings))
    return RankedList(found.rows, found.scores, pool.exact, sources, warnings)


class _Pool:
    """The items for one request. Not thread-safe."""

    def __init__(
        self,
        ranking: Ranking,
        columns: ItemColumns,
        excluded: Int64,
        scope: SegmentMasks | None,
        channels: Channels | None,
    ) -> None:
        self._ranking, self._catalogue = ranking, ranking.catalogue
        self._columns = columns
        self._excluded = excluded
        self._scope = scope
        self._channels = channels
        self.exact = True
        self.fused: FusedList | None = None
        self.warnings: list[str] = []
        self._lists = (
            {
                one.name: self._channel_result(one, place, channels.depth)
                for place, one in enumerate(channels.lists)
                if not isinstance(one, ModelChannel)
            }
            if channels is not None
            else {}
        )

    def fetch(self, width: int, among: Mask | None) -> Candidates:
        """Return at least the first `width` of the ranking, or of the rows of a mask."""
        channels = self._channels
        if channels is None:
            return self._model(width, among)
        lists = []
        ranked = None
        for one in channels.lists:
            if isinstance(one, ModelChannel):
                ranked = self._model(max(width, channels.depth), None)
                lists.append(
                    ChannelResult(one.name, one.weight, ranked.rows[: channels.depth], ranked.scores[: channels.depth])
                )
            else:
                lists.append(self._lists[one.name])
        self.fused = found = fuse(lists, channels.merge, channels.k)
        everything = Candidates(found.rows, found.scores, complete=True)
        if ranked is not None:
            rest = ranked.rows[channels.depth :]
            rest = rest[~np.isin(rest, found.rows)]
            everything = everything.followed(Candidates(rest, np.zeros(len(rest)), ranked.complete))
        return everything if among is None else everything.take(among[everything.rows], complete=everything.complete)

    def rows(self, ids: Sequence[str]) -> Int64:
        return self._catalogue.rows(ids)

    def eligible(self, rows: Int64) -> Mask:
        return self._catalogue.eligible(rows, self._excluded, self._scope)

    def everything(self) -> Mask:
        return self._catalogue.mask(self._excluded, self._scope)

    def scores(self, rows: Int64) -> Scores:
        if self._channels is not None:
            self.fetch(1, None)
            assert self.fused is not None  # set by `fetch`
            places = self.fused.places(rows)
            return np.asarray(np.append(self.fused.scores, 0.0)[places])  # -1 is last
        return self._ranking.scores(rows)

    def taste(self, rows: Int64) -> Float32:
        return self._catalogue.vectors(rows)[:, self._columns.taste]

    def groups(self, column: str, where: str) -> Groups:
        return self._columns.groups(self._catalogue, column, where)

    def _model(self, width: int, among: Mask | None) -> Candidates:
        scope = self._scope if among is None else self._catalogue.masks_of(among)
        best = self._ranking.first(width, self._excluded, scope)
        self.exact &= best.exact
        return Candidates(best.rows, best.scores, complete=len(best.rows) < width)

    def _channel_result(self, channel: AnyChannel, place: int, depth: int) -> ChannelResult:
        where = f"/channels/lists/{place}"
        if isinstance(channel, ListChannel):
            rows, scores = self._of_request(channel, f"{where}/items")
        elif isinstance(channel, PopularChannel):
            rows, scores = self._first(self._columns.popular(self._catalogue, where), depth)
        else:
            assert isinstance(channel, LatestChannel)
            rows, scores = self._first(self._columns.latest(self._catalogue, channel.column, f"{where}/column"), depth)
        return ChannelResult(channel.name, channel.weight, rows[:depth], scores[:depth])

    def _first(self, orders: Sequence[Order], depth: int) -> tuple[Int64, Scores]:
        """Return the first eligible rows of several orders together."""
        parts = [order.first(depth, self.eligible) for order in orders]
        rows, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.lexsort((rows, -scores))[:depth]
        return rows[order], scores[order]

    def _of_request(self, channel: ListChannel, where: str) -> tuple[Int64, Scores]:
        rows = self._catalogue.rows(channel.items)
        check_distinct(channel.items, rows, where)
        strangers = [one for one, row in zip(channel.items, rows.tolist(), strict=True) if row < 0]
        self.warnings += id_warnings((strangers, f"ids of channel {channel.name!r} are not in the catalogue"))
        scores = np.linspace(1.0, 0.0, len(rows)) if channel.scores is None else np.array(channel.scores, dtype=np.float64)
        allowed = rows >= 0
        allowed[allowed] = self.eligible(rows[allowed])
        rows, scores = rows[allowed], scores[allowed]
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]


def check_pins(rules: Sequence[AnyRule], n: int) -> None:
    """Check that the positions of pins are within the list.

    Args:
        rules: rules of the request.
        n: results wanted.

    Raises:
        RequestError: A pin names a position beyond n.
    """
    for place, rule in enumerate(rules):
        beyond = [position for position in rule.items.values() if position > n] if isinstance(rule, Pin) else []
        if beyond:
            what = f"the position of a pin must be at most n = {n}, got {beyond[0]}"
            raise RequestError(what, where=f"/rules/{place}/items", hint="Ask for more results")


def check_reranking(request: Request, catalogue: CatalogSnapshot, columns: ItemColumns) -> None:
    """Check a request's rules, channels and boosts before its user is read.

    Args:
        request: checked by `recall.serving.query.check_request`.
        catalogue: snapshot to search.
        columns: columns of the items.

    Raises:
        RequestError: A rule, a channel or a boost is malformed, out of bounds, or names a column that items do not have.
    """
    rules = read_rules(request.rules)
    check_pins(rules, request.n)
    for place, rule in enumerate(rules):
        if isinstance(rule, Quota | Dedupe):
            columns.check_column(rule.column, f"/rules/{place}/column")
    if request.channels is not None:
        _check_channels(read_channels(request.channels), catalogue, columns)
    columns.check_boosts(catalogue, request.boosts)


def _check_channels(channels: Channels, catalogue: CatalogSnapshot, columns: ItemColumns) -> None:
    for place, one in enumerate(channels.lists):
        where = f"/channels/lists/{place}"
        if isinstance(one, LatestChannel):
            columns.latest(catalogue, one.column, f"{where}/column")
        elif isinstance(one, PopularChannel):
            columns.popular(catalogue, where)
