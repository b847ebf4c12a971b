"""Counters, gauges and histograms over numbers in shared memory: to count is to add to one of them, which takes no time.

Every process has a row of numbers, which it alone writes, and any process can read all rows and add them up. A row outlives
its process: whoever takes its place counts on from there.
"""

import mmap
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

Kind = TypeVar("Kind", bound="Instrument")

_BYTES = 8


class Instrument:
    """A place in a row; `at` is the first of its numbers."""

    __slots__ = ("at", "row")

    def __init__(self, at: int) -> None:
        self.at = at
        self.row: memoryview[float]  # from `Layout.bind` on


class Counter(Instrument):
    """Something that happens."""

    __slots__ = ()

    def add(self, count: float = 1.0) -> None:
        """It happened."""
        self.row[self.at] += count


class Gauge(Instrument):
    """Something that goes up and down."""

    __slots__ = ()

    def add(self, change: float) -> None:
        """It went up, or down."""
        self.row[self.at] += change

    def set(self, value: float) -> None:
        """It is this now."""
        self.row[self.at] = value


class Histogram(Instrument):
    """How long something takes: a number for each range of seconds, and their sum."""

    __slots__ = ("bounds",)

    def __init__(self, at: int, bounds: Sequence[float]) -> None:
        super().__init__(at)
        self.bounds = bounds

    def observe(self, seconds: float) -> None:
        """It took so long."""
        row, at = self.row, self.at
        row[at + 1 + bisect_left(self.bounds, seconds)] += 1.0
        row[at] += seconds


@dataclass(slots=True)
class Family:
    """Instruments of one name.

    Attributes:
        name: without the suffix `_total`.
        help: a sentence.
        kind: what they are.
        label: what tells them apart; empty for a single one.
        values: of the label, one for each instrument.
        start: where the first of them lies in a row.
        bounds: upper bounds of ranges, rising; of histograms alone.
        apart: whether every process has its own, told apart by the label `worker`, or their sum is what counts.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    label: str
    values: list[str]
    start: int
    bounds: tuple[float, ...] = ()
    apart: bool = False

    @property
    def step(self) -> int:
        """Numbers of one instrument."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


@dataclass(slots=True)
class Layout:
    """Where everything lies in a row. All processes that share memory make the same one."""

    families: list[Family] = field(default_factory=list)
    width: int = 0
    _instruments: list[Instrument] = field(default_factory=list)

    def counter(self, name: str, help: str) -> Counter:  # noqa: A002 - what Prometheus calls it
        """One counter."""
        return self.counters(name, help, "", ("",))[""]

    def counters(self, name: str, help: str, label: str, values: Sequence[str]) -> Mapping[str, Counter]:  # noqa: A002
        """A counter for each value of a label."""
        family = self._add(Family(name, help, "counter", label, list(values), self.width))
        return {value: self._placed(Counter(family.start + at)) for at, value in enumerate(values)}

    def gauge(self, name: str, help: str) -> Gauge:  # noqa: A002
        """One gauge, of each process its own."""
        family = self._add(Family(name, help, "gauge", "", [""], self.width, apart=True))
        return self._placed(Gauge(family.start))

    def number(self) -> Gauge:
        """A number that is not shown as it is; something is made of it."""
        self.width += 1
        return self._placed(Gauge(self.width - 1))

    def histogram(self, name: str, help: str, bounds: tuple[float, ...]) -> Histogram:  # noqa: A002
        """One histogram."""
        return self.histograms(name, help, bounds, "", ("",))[""]

    def histograms(
        self,
        name: str,
        help: str,  # noqa: A002
        bounds: tuple[float, ...],
        label: str,
        values: Sequence[str],
    ) -> Mapping[str, Histogram]:
        """A histogram for each value of a label."""
        family = self._add(Family(name, help, "histogram", label, list(values), self.width, bounds))
        places = (family.start + at * family.step for at in range(len(values)))
        return {value: self._placed(Histogram(place, bounds)) for value, place in zip(values, places, strict=True)}

    def bind(self, row: "memoryview[float]") -> None:
        """Let all instruments count in a row. Gauges begin at 0."""
        for one in self._instruments:
            one.row = row
            if isinstance(one, Gauge):
                one.set(0.0)

    def _add(self, family: Family) -> Family:
        self.families.append(family)
        self.width += family.step * len(family.values)
        return family

    def _placed(self, instrument: Kind) -> Kind:
        self._instruments.append(instrument)
        return instrument


class Rows:
    """Numbers in memory: a row for each process.

    Attributes:
        all: one row for each process.
    """

    def __init__(self, width: int, count: int = 1, descriptor: int | None = None) -> None:
        """Map them.

        Args:
            width: numbers in a row.
            count: rows.
            descriptor: of a file as `shared_rows` makes it; without one, nobody else sees them.
        """
        size = _BYTES * width * count
        memory = mmap.mmap(-1, size) if descriptor is None else mmap.mmap(descriptor, size)
        numbers = memoryview(memory).cast("d")
        self.all = [numbers[at * width : (at + 1) * width] for at in range(count)]


def shared_rows(width: int, count: int) -> int:
    """Descriptor of a file in memory for so many rows, all 0, to be handed to other processes."""
    descriptor = os.memfd_create("recall-metrics")
    os.ftruncate(descriptor, _BYTES * width * count)
    return descriptor
