"""All metrics of the service, in the format of Prometheus.

With several workers, PROMETHEUS_MULTIPROC_DIR names the folder that all of them count in (the multiprocess mode of
prometheus_client): counters and histograms are summed, gauges carry the worker's `pid`."""

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from math import nan, sqrt
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from recall import Recommendations, Recommender
from recall.store.items.catalog import Catalog
from service.errors import Kind

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OTHER = "other"
"""Label for all values without their own label."""
STAGES = ("queue", "search", "parse", "recommend", "explain", "score", "encode", "read", OTHER)
"""Stages of an answer, as its Server-Timing header names them, and the wait in a queue before a search."""
PARTS = ("items", "users", "index", "bundle", "scenarios", OTHER)
"""Parts of the service that may be degraded."""
REFUSED = (Kind.NO_KEY.slug, Kind.FORBIDDEN.slug, Kind.LIMITED.slug, Kind.INVALID.slug, Kind.HOST.slug, Kind.CROSS_SITE.slug)

_REQUESTS = (
    0.00025,
    0.0005,
    0.00075,
    0.001,
    0.0015,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    5,
)
_STAGES = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
_COMMITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_GAUGES = {
    "in_flight": ("recall_http_requests_in_flight", "Requests that are being answered."),
    "waiting": ("recall_searches_waiting", "Searches waiting in the queue."),
    "unsaved": ("recall_journal_unsaved_changes", "Acknowledged changes of items that the change log lacks."),
    "troubled": ("recall_journal_degraded", "1 while the change log of items is degraded."),
    "logged": ("recall_journal_entries", "Changes in the change log of items, which keeps the last change of each item."),
    "log_bytes": ("recall_journal_bytes", "Size of the change log of items, including its -wal file."),
    "samples": ("recall_ann_samples", "Number of requests in recall_ann_recall_ratio."),
    "overlay_items": ("recall_overlay_items", "Items added or replaced since the served version, in memory."),
    "overlay_hidden": ("recall_overlay_hidden_items", "Items of the served version that were replaced or deleted since."),
    "overlay_segments": ("recall_overlay_segments", "Segments of added or replaced items in memory."),
    "overlay_sequence": ("recall_overlay_sequence", "Sequence number of the last change of items that answers include."),
    "overlay_refused": ("recall_overlay_refused_items", "Items whose last change does not fit the served version."),
    "lag": ("recall_overlay_lag_seconds", "Time since all changes of items were last known to be served."),
    "age": ("recall_bundle_age_seconds", "Time since the served version was created."),
    "bundle_items": ("recall_bundle_items", "Items of the served bundle."),
    "bundle_users": ("recall_bundle_users", "Users of the served bundle."),
    "bundle_degraded": ("recall_bundle_degraded", "1 while the live version is refused and a different version is served."),
    "keys": ("recall_keys", "Number of API keys."),
    "keys_degraded": ("recall_keys_degraded", "1 while the key file cannot be read."),
    "ready": ("recall_ready", "1 while the process is ready for requests."),
    "promised": ("recall_ann_promised_ratio", "Recall of the index that was verified at publication."),
    "search_seconds": ("recall_warm_search_seconds", "CPU time of one search, measured at loading."),
    "recall": ("recall_ann_recall_ratio", "Recall of the index on sampled requests to the served version."),
    "recall_lower": ("recall_ann_recall_lower_ratio", "Lower bound of the 95 % interval of recall_ann_recall_ratio."),
    "recall_upper": ("recall_ann_recall_upper_ratio", "Upper bound of the 95 % interval of recall_ann_recall_ratio."),
}
_ATTRIBUTION = {"recall_attributable_recommendations_total": 0, "recall_attributed_interactions_total": 1}
_Z = 1.959963984540054  # 95 %
_LIVE_GAUGES = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


class Metrics:
    """All metrics of one application."""

    def __init__(self) -> None:
        """Create the metrics with all known label values."""
        self.registry = CollectorRegistry()
        self._finished: dict[tuple[str, int], tuple[Histogram, Counter]] = {}
        self._durations = self._histogram(
            "recall_http_request_duration_seconds",
            "Time from the headers of a request to the end of its answer.",
            _REQUESTS,
            "route",
        )
        self._requests = self._counter("recall_http_requests", "Requests that were answered.", "route", "status")
        stages = self._histogram("recall_stage_duration_seconds", "Duration of each stage of a request.", _STAGES, "stage")
        self.stages = {name: stages.labels(name) for name in STAGES}
        self.users = self._counters(
            "recall_recommendations", "Recommendations by kind of user.", "user", ("known", "unknown", "anonymous")
        )
        self.fallback = self._counter("recall_fallback", "Recommendations for unknown users, based on the rest of the request.")
        self.unknown = self._counter("recall_unknown_values", "Recommendations with a value that was not seen in training.")
        self.degraded = self._counters(
            "recall_degraded", "Recommendations while a part of the service was degraded.", "part", PARTS
        )
        self.shed = self._counters(
            "recall_shed",
            "Searches not started: full queue, maximum waiting time, deadline, or disconnected client.",
            "reason",
            ("full", "old", "late", "gone"),
        )
        self.recommended = self._counter(
            "recall_attributable_recommendations", "Lists with a recommendation_id.", "scenario", "version"
        )
        self.attributed = self._counter(
            "recall_attributed_interactions",
            "Interactions with the recommendation_id of a list, by whether the item was in it.",
            *("scenario", "version", "listed"),
        )
        self.refused = self._counters("recall_refused", "Requests refused before they were processed.", "reason", REFUSED)
        self.swaps = self._counters(
            "recall_swap", "Switches to a different version, by outcome.", "result", ("served", "refused", "fell_back")
        )
        commits = self._histogram(
            "recall_journal_fsync_seconds", "Duration of a write to a change log, including fsync.", _COMMITS, "journal"
        )
        self.commits = {name: commits.labels(name) for name in ("items", "users")}
        self.written_back = self._counter(
            "recall_journal_written_back", "Changes written back to a change log that had lost them."
        )
        self.compactions = self._counter("recall_compactions", "Compactions of the catalogue.")
        self.compared = self._counters(
            "recall_ann_sampled",
            "Requests sampled to be answered again exactly, by outcome.",
            "result",
            ("compared", "dropped", "failed"),
        )
        self._gauges = {key: self._gauge(name, text) for key, (name, text) in _GAUGES.items()}
        self.info = Gauge(
            "recall_bundle_info",
            "Workers that serve this version.",
            ["version"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        Gauge("recall_workers", "Processes that run.", registry=self.registry, multiprocess_mode="livesum").set(1)
        self._counter("recall_worker_starts", "Processes that were started.").inc()
        self._version = ""
        self._created = 0.0
        self._synced = time.monotonic()
        if FOLDER in os.environ:
            self._process = {
                sample.name: self._gauge(sample.name, family.documentation)
                for family in _process()
                for sample in family.samples
            }
        else:
            self._process = {}
            ProcessCollector(registry=self.registry)
        self.begin_sampling()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return every metric of all workers, and the media type.

        The format is the one that an Accept header prefers.
        """
        encode, media_type = choose_encoder(accept)
        return encode(self._of_all_workers()), media_type

    def _of_all_workers(self) -> CollectorRegistry:
        registry = self.registry
        if folder := os.environ.get(FOLDER):
            for pid in {int(found[1]) for name in os.listdir(folder) if (found := _LIVE_GAUGES.fullmatch(name))}:
                if not Path(f"/proc/{pid}").exists():
                    with suppress(FileNotFoundError):  # another scrape has removed it at the same time
                        mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry

    def attribution(self) -> list[tuple[tuple[str, str], tuple[int, int]]]:
        """Return the number of lists, and of interactions with an item of them.

        Both are of all workers, by scenario and version.
        """
        found: dict[tuple[str, str], list[int]] = {}
        for family in self._of_all_workers().collect():
            for sample in family.samples:
                place = _ATTRIBUTION.get(sample.name)
                if place is not None and sample.labels.get("listed") != "no":
                    key = sample.labels["scenario"], sample.labels["version"]
                    found.setdefault(key, [0, 0])[place] += int(sample.value)
        return [(key, (lists, hits)) for key, (lists, hits) in sorted(found.items())]

    def answered(self, answer: Recommendations) -> None:
        """Count recommendations."""
        self.users[answer.user].inc()
        if answer.user == "unknown":
            self.fallback.inc()
        if answer.unknown:
            self.unknown.inc()
        for one in answer.degraded:
            self.degraded.get(one.part, self.degraded[OTHER]).inc()

    def finished(self, route: str, status: int, seconds: float, timings: Mapping[str, float]) -> None:
        """Count a request that is over.

        Args:
            route: path as it was declared; `OTHER` where no path matched.
            status: of the answer.
            seconds: from its headers to the end of its answer.
            timings: seconds by stage.
        """
        found = self._finished.get((route, status))
        if found is None:
            found = self._durations.labels(route), self._requests.labels(route, str(status))
            self._finished[route, status] = found
        found[0].observe(seconds)
        found[1].inc()
        for name, spent in timings.items():
            (self.stages.get(name) or self.stages[OTHER]).observe(spent)

    def in_step(self) -> None:
        """Note that answers include every known change of items."""
        self._synced = time.monotonic()

    def set(self, **values: float) -> None:
        """Set gauges, by their keys."""
        for key, value in values.items():
            self._gauges[key].set(value)

    def begin_sampling(self) -> None:
        """Discard the samples of another version."""
        self._shares = self._samples = 0.0
        self.set(samples=0, recall=nan, recall_lower=nan, recall_upper=nan)

    def sampled(self, share: float) -> None:
        """Count a sampled answer by its share of the exact list."""
        self._shares += share
        self._samples += 1.0
        mean = self._shares / self._samples
        lower, upper = wilson(mean, self._samples)
        self.set(samples=self._samples, recall=mean, recall_lower=lower, recall_upper=upper)

    def serve_bundle(self, recommender: Recommender, search_seconds: float) -> None:
        """Set the gauges of another bundle.

        Args:
            recommender: that answers from it.
            search_seconds: of one search, measured at loading.
        """
        manifest = recommender.bundle.manifest
        if self._version:
            self.info.labels(self._version).set(0)
        self._version, self._created = manifest.version, _seconds_of(manifest.created)
        self.info.labels(self._version).set(1)
        certificate = manifest.index.certificate
        self.set(
            bundle_items=manifest.sizes.items,
            bundle_users=manifest.sizes.users,
            search_seconds=search_seconds,
            promised=1.0 if recommender.index.exact else certificate.lower if certificate is not None else 0.0,
        )
        self.begin_sampling()

    def measure(self, items: Catalog | None) -> None:
        """Set the gauges of the process and of the live changes.

        Args:
            items: of the served bundle; None before the first.
        """
        for family in _process() if self._process else ():
            for sample in family.samples:
                self._process[sample.name].set(sample.value)
        if items is None:
            return
        catalogue = items.current()
        self.set(
            age=max(0.0, time.time() - self._created),
            lag=max(0.0, time.monotonic() - self._synced),
            troubled=bool(catalogue.error),
            unsaved=items.unsaved,
            logged=items.logged,
            log_bytes=items.log_bytes,
            overlay_items=items.added,
            overlay_hidden=items.replaced,
            overlay_segments=len(catalogue.segments) - 1,
            overlay_sequence=catalogue.sequence,
            overlay_refused=len(items.refused),
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _counters(self, name: str, text: str, label: str, values: Iterable[str]) -> dict[str, Counter]:
        counter = self._counter(name, text, label)
        return {value: counter.labels(value) for value in values}

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry, multiprocess_mode="liveall")

    def _histogram(self, name: str, text: str, buckets: Sequence[float], label: str) -> Histogram:
        return Histogram(name, text, [label], registry=self.registry, buckets=buckets)


def wilson(mean: float, count: float) -> tuple[float, float]:
    """Return the 95 % interval of a mean share after Wilson (1927).

    It is conservative for shares between 0 and 1: of all variables with one mean in these bounds, one of 0 and 1 varies most.

    Args:
        mean: of the shares.
        count: how many there were, at least 1.
    """
    square = _Z * _Z
    centre = (mean + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * sqrt(mean * (1 - mean) / count + square / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def _process() -> list[Metric]:
    return list(ProcessCollector(registry=None).collect())


def _seconds_of(created: str) -> float:
    """Return the seconds since 1970 of a time in ISO 8601; 0 if it is not one."""
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0
