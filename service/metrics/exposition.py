"""The numbers of all processes as Prometheus reads them."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.metrics.instruments import Family
from service.metrics.interval import wilson
from service.metrics.meters import Meters

_Row = memoryview


class Exposition(Collector):
    """Adds up what all processes have counted, whenever it is asked."""

    def __init__(self, meters: Meters) -> None:
        """Of the process that is asked; it sees the rows of all others."""
        self._meters = meters
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Everything, in the format that an Accept header prefers, and its media type."""
        encode, media_type = choose_encoder(accept)
        body: bytes = encode(self._registry)
        return body, media_type

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        meters = self._meters
        alive = [(number, row) for number, row in enumerate(meters.rows.all) if _alive(int(row[meters.pid.at]))]
        for family in meters.layout.families:
            yield self._gauges(family, alive) if family.apart else self._sums(family)
        yield from self._bundles(alive)
        yield from self._recall(alive)
        yield from self._processes(alive)

    def _sums(self, family: Family) -> Metric:
        """Counts of all processes, also of those that are gone."""
        rows = self._meters.rows.all
        labels = [name for name in family.label.split(",") if name]
        found: CounterMetricFamily | HistogramMetricFamily
        if family.kind == "counter":
            found = CounterMetricFamily(family.name, family.help, labels=labels)
            for place, value in enumerate(family.values):
                total = sum(row[family.start + place] for row in rows)
                if total or "status" not in labels:
                    found.add_metric(self._named(value, labels), total)
            return found
        found = HistogramMetricFamily(family.name, family.help, labels=labels)
        edges = [*map(repr, map(float, family.bounds)), "+Inf"]
        for place, value in enumerate(family.values):
            at = family.start + place * family.step
            counts = [sum(row[at + 1 + place] for row in rows) for place in range(len(edges))]
            if not any(counts) and "route" in labels:
                continue
            below, buckets = 0.0, []
            for edge, count in zip(edges, counts, strict=True):
                below += count
                buckets.append((edge, below))
            found.add_metric(self._named(value, labels), buckets, sum_value=sum(row[at] for row in rows))
        return found

    def _named(self, value: str, labels: list[str]) -> list[str]:
        if "route" not in labels:
            return [value] if labels else []
        place, *others = value.split(",")
        names = list(self._meters.routes)
        return [names[int(place)] if place.isdecimal() else place, *others]

    @staticmethod
    def _gauges(family: Family, alive: "list[tuple[int, _Row[float]]]") -> Metric:
        found = GaugeMetricFamily(family.name, family.help, labels=["worker"])
        for number, row in alive:
            found.add_metric([str(number)], row[family.start])
        return found

    def _bundles(self, alive: "list[tuple[int, _Row[float]]]") -> Iterator[Metric]:
        meters, now, moment = self._meters, time.time(), time.monotonic()
        info = GaugeMetricFamily("recall_bundle_info", "Workers that serve this version.", labels=["version"])
        age = GaugeMetricFamily("recall_bundle_age_seconds", "Time since the served version was made.", labels=["worker"])
        lag = GaugeMetricFamily(
            "recall_overlay_lag_seconds",
            "Time since a process was last known to have seen every live change of items.",
            labels=["worker"],
        )
        workers = GaugeMetricFamily("recall_workers", "Processes that run.", value=len(alive))
        versions: dict[str, int] = {}
        for number, row in alive:
            if row[meters.created.at]:
                version = f"{int(row[meters.version.at]):06d}-{int(row[meters.digest.at]):08x}"
                versions[version] = versions.get(version, 0) + 1
                age.add_metric([str(number)], max(0.0, now - row[meters.created.at]))
                if row[meters.synced.at]:
                    lag.add_metric([str(number)], max(0.0, moment - row[meters.synced.at]))
        for version, count in versions.items():
            info.add_metric([version], count)
        yield from (info, age, lag, workers)

    def _recall(self, alive: "list[tuple[int, _Row[float]]]") -> Iterator[Metric]:
        meters = self._meters
        count = sum(row[meters.samples.at] for _, row in alive)
        shares = sum(row[meters.shares.at] for _, row in alive)
        samples = GaugeMetricFamily("recall_ann_samples", "Requests behind recall_ann_recall_ratio.", value=count)
        ratio = GaugeMetricFamily(
            "recall_ann_recall_ratio",
            "Mean share of the exact list that answers of the served version hold, on sampled requests.",
        )
        lower = GaugeMetricFamily("recall_ann_recall_lower_ratio", "Lower end of its 95 % interval.")
        upper = GaugeMetricFamily("recall_ann_recall_upper_ratio", "Upper end of its 95 % interval.")
        if count:
            low, high = wilson(shares / count, count)
            for one, value in ((ratio, shares / count), (lower, low), (upper, high)):
                one.add_metric([], value)
        yield from (samples, ratio, lower, upper)

    def _processes(self, alive: "list[tuple[int, _Row[float]]]") -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for number, row in alive:
            pid = int(row[self._meters.pid.at])
            for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                kept = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    kept.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
        yield from found.values()


def seconds_of(created: str) -> float:
    """Seconds since 1970 of a moment in ISO 8601; 0 where it is none."""
    try:
        return datetime.fromisoformat(created).timestamp()
    except ValueError:
        return 0.0


def _alive(pid: int) -> bool:
    return pid > 0 and os.path.exists(f"/proc/{pid}")
