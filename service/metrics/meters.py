"""Everything that the service counts and times, with its names."""

import os
import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from itertools import islice

from starlette.types import Scope

from recall.answer import Recommendations
from service.metrics.instruments import Counter, Histogram, Layout, Rows, shared_rows
from service.problems import Kind

STATUSES = (200, 204, 304, 307, *sorted({kind.status for kind in Kind}))
"""Statuses that are counted one by one."""
OTHER = "other"
"""What is not told apart from others."""
STAGES = ("queue", "search", "parse", "recommend", "explain", "score", "encode", "read", "total", OTHER)
"""Parts of the time that an answer takes, as its Server-Timing header names them; and what a recommendation waits for its turn,
where it waits, and searches, from its user's record to the ids of its list."""
PARTS = ("items", "users", "bundle", OTHER)
"""Parts of the service that an answer may have to do without."""
SWAPS = ("served", "refused", "fell_back")
RESTARTS = ("ended", "hung")
SHED = ("full", "old", "late", "gone")
REFUSED = (Kind.NO_KEY.slug, Kind.FORBIDDEN.slug, Kind.LIMITED.slug, Kind.INVALID.slug, Kind.HOST.slug, Kind.CROSS_SITE.slug)

_MOST_ROUTES = 64
_REQUESTS = (
    *(0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
_PARTS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
_COMMITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Route:
    """What is counted of one path."""

    __slots__ = ("duration", "path", "statuses")

    def __init__(self, path: str, duration: Histogram, statuses: Mapping[int, Counter]) -> None:
        self.path = path
        self.duration = duration
        self.statuses = statuses

    def answered(self, status: int, seconds: float) -> None:
        """A request was answered, or its client has gone."""
        self.duration.observe(seconds)
        self.statuses.get(status, self.statuses[0]).add()


class Meters:
    """All instruments of one process.

    Attributes:
        layout: of a row.
        rows: of all processes.
        routes: by path; `OTHER` stands for what is at no path.
    """

    def __init__(self, workers: int = 1, number: int = 0, descriptor: int | None = None) -> None:
        """Begin to count.

        Args:
            workers: processes that answer on one port.
            number: which of them this one is, from 0.
            descriptor: of the rows that they share, as `shared` makes it; None where there is only this one.
        """
        self.layout = layout = Layout()
        self.pid, self.version, self.digest = layout.number(), layout.number(), layout.number()
        self.created, self.synced = layout.number(), layout.number()
        self.shares, self.samples = layout.number(), layout.number()
        self.beat, self.loading, self.listening = layout.number(), layout.number(), layout.number()
        self.restarts = layout.counters(
            "recall_worker_restarts",
            "Workers that were started anew: they had ended, or were killed because they did nothing any more.",
            "reason",
            RESTARTS,
        )
        self.in_flight = layout.gauge("recall_http_requests_in_flight", "Requests that are being answered.")
        self._durations = layout.histograms(
            "recall_http_request_duration_seconds",
            "Time from a request's headers to the end of its answer, whatever its status.",
            _REQUESTS,
            "route",
            [OTHER, *map(str, range(1, _MOST_ROUTES))],
        )
        self._requests = layout.counters(
            "recall_http_requests",
            "Requests that were answered.",
            "route,status",
            [f"{route},{status or OTHER}" for route in (OTHER, *range(1, _MOST_ROUTES)) for status in (0, *STATUSES)],
        )
        self.stages = layout.histograms(
            "recall_stage_duration_seconds", "Time that a part of an answer takes.", _PARTS, "stage", STAGES
        )
        self.users = layout.counters(
            "recall_recommendations", "Recommendations, by whom they were for.", "user", ("known", "unknown", "anonymous")
        )
        self.fallback = layout.counter(
            "recall_fallback", "Recommendations for a user who is not known, from the rest of the request."
        )
        self.unknown = layout.counter("recall_unknown_values", "Recommendations with a value that the model has never seen.")
        self.degraded = layout.counters(
            "recall_degraded", "Recommendations that had to do without a part of the service.", "part", PARTS
        )
        self.shed = layout.counters(
            "recall_shed",
            "Searches that were not begun: for a full line, age in it, a deadline, or a client that had gone.",
            "reason",
            SHED,
        )
        self.refused = layout.counters("recall_refused", "Requests that were not let in.", "reason", REFUSED)
        self.waiting = layout.gauge("recall_searches_waiting", "Searches that wait for their turn.")
        self.swaps = layout.counters("recall_swap", "Versions that were to be served, by what became of them.", "result", SWAPS)
        self.commits = layout.histograms(
            "recall_journal_fsync_seconds",
            "Time of a write to a journal, its fsync included.",
            _COMMITS,
            "journal",
            ("items", "users"),
        )
        self.written_back = layout.counter(
            "recall_journal_written_back", "Acknowledged changes that the journal had lost and that were written back to it."
        )
        self.unsaved = layout.gauge(
            "recall_journal_unsaved_changes", "Acknowledged changes that are served and that the journal does not hold."
        )
        self.troubled = layout.gauge("recall_journal_degraded", "1 while something is wrong with the journal of items.")
        self.logged = layout.gauge("recall_journal_entries", "Changes in the journal of items: the last one of each item.")
        self.log_bytes = layout.gauge("recall_journal_bytes", "Size of the journal of items, its -wal file included.")
        self.compactions = layout.counter("recall_compactions", "Runs that publish the catalogue anew.")
        self.compared = layout.counters(
            "recall_ann_sampled",
            "Requests drawn to be answered again exactly, by what became of them.",
            "result",
            ("compared", "dropped", "failed"),
        )
        self.overlay_items = layout.gauge(
            "recall_overlay_items", "Items in memory that were added or replaced since the bundle."
        )
        self.overlay_hidden = layout.gauge(
            "recall_overlay_hidden_items", "Items of the bundle that were replaced or deleted since."
        )
        self.overlay_sequence = layout.gauge("recall_overlay_sequence", "The last live change of items that answers have seen.")
        self.overlay_refused = layout.gauge("recall_overlay_refused_items", "Items whose last change does not fit the bundle.")
        self.bundle_items = layout.gauge("recall_bundle_items", "Items of the bundle that is served.")
        self.bundle_users = layout.gauge("recall_bundle_users", "Users of the bundle that is served.")
        self.bundle_degraded = layout.gauge(
            "recall_bundle_degraded", "1 while the live version is refused and another one is served."
        )
        self.keys = layout.gauge("recall_keys", "Keys that are known.")
        self.keys_degraded = layout.gauge(
            "recall_keys_degraded", "1 while the file of keys cannot be read and the keys from before hold."
        )
        self.ready = layout.gauge("recall_ready", "1 while requests should be sent here.")
        self.promised = layout.gauge("recall_ann_promised_ratio", "Recall that the index was shown to reach when it was made.")
        self.search_seconds = layout.gauge(
            "recall_warm_search_seconds", "CPU time of one search, measured when the bundle was loaded."
        )
        self.rows = Rows(layout.width, workers, descriptor)
        layout.bind(self.rows.all[number])
        self.listening.set(0.0)
        self.pid.set(os.getpid())
        self._shed_before = self._values(self.shed)
        self._refused_before = self._values(self.refused)
        self.routes = {OTHER: Route(OTHER, self._durations[OTHER], self._counted(OTHER))}

    @classmethod
    def shared(cls, workers: int) -> int:
        """Descriptor of rows for so many processes."""
        return shared_rows(cls().layout.width, workers)

    def name_routes(self, paths: Iterable[str]) -> None:
        """Tell these paths apart from now on; every process names the same, in the same order."""
        for place, path in enumerate(islice(paths, _MOST_ROUTES - 1), start=1):
            self.routes[path] = Route(path, self._durations[str(place)], self._counted(str(place)))

    def answered(self, answer: Recommendations) -> None:
        """A request was answered with recommendations."""
        self.users[answer.user].add()
        if answer.user == "unknown":
            self.fallback.add()
        if answer.unknown:
            self.unknown.add()
        for one in answer.degraded:
            self.degraded.get(one.part, self.degraded[OTHER]).add()

    def finished(self, scope: Scope, status: int, seconds: float, timings: Mapping[str, float]) -> None:
        """A request is over.

        Args:
            scope: of the request, after it was routed.
            status: that it was answered with.
            seconds: from its headers to the end of its answer.
            timings: of its stages.
        """
        self.route_of(scope).answered(status, seconds)
        for name, spent in timings.items():
            self.stages.get(name, self.stages[OTHER]).observe(spent)

    def follow(self, shed: "Tally[str]", refused: "Tally[str]") -> None:
        """Take over what others have counted since this process began."""
        for name, before in self._shed_before.items():
            self.shed[name].row[self.shed[name].at] = before + shed[name]
        for name, before in self._refused_before.items():
            self.refused[name].row[self.refused[name].at] = before + refused[name]

    def turned_away(self, status: int, path: str = OTHER) -> None:
        """A request, or what was none, was answered before it was routed."""
        statuses = self.routes.get(path, self.routes[OTHER]).statuses
        statuses.get(status, statuses[0]).add()

    def route_of(self, scope: Scope) -> Route:
        """The route of a request that was routed."""
        route = self.routes.get(scope["path"])
        if route is None:
            found = scope.get("route")
            route = self.routes.get(found.path) if found is not None else None
        return route if route is not None else self.routes[OTHER]

    def in_step(self) -> None:
        """No change of items is known that answers have not seen."""
        self.synced.set(time.monotonic())

    def _counted(self, route: str) -> dict[int, Counter]:
        return {status: self._requests[f"{route},{status or OTHER}"] for status in (0, *STATUSES)}

    @staticmethod
    def _values(counters: Mapping[str, Counter]) -> dict[str, float]:
        return {name: one.row[one.at] for name, one in counters.items()}
