"""Results of a benchmark, each with a required limit and an aim."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One result.

    Attributes:
        name: the measured quantity.
        value: None if it was not measured.
        least, aim: the required limit and the aim.
        better: whether larger or smaller is better.
        note: details, or the reason why the value is missing.
    """

    name: str
    value: float | None
    least: float
    aim: float
    better: Literal["more", "less"] = "more"
    note: str = ""

    def reaches(self, bar: float) -> bool:
        """Return whether the value is at least as good as a limit."""
        if self.value is None or math.isnan(self.value):
            return False
        return self.value >= bar if self.better == "more" else self.value <= bar

    @property
    def missed(self) -> bool:
        """Whether it was measured and fails the limit."""
        return self.value is not None and not self.reaches(self.least)


def table(figures: list[Figure]) -> Iterator[str]:
    """Markdown."""
    yield "| figure | measured | at least | aim | |"
    yield "|---|---|---|---|---|"
    for one in figures:
        measured = "not measured" if one.value is None else f"**{_shown(one.value)}**"
        verdict = "" if one.value is None else "missed" if one.missed else "aim" if one.reaches(one.aim) else "met"
        sign = "" if one.better == "more" else "at most "
        note = ", ".join(part for part in (verdict, one.note) if part)
        yield f"| {one.name} | {measured} | {sign}{_shown(one.least)} | {sign}{_shown(one.aim)} | {note} |"


def _shown(value: float) -> str:
    return f"{value:.3g}"
