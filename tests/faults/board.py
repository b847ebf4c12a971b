"""The scoreboard: a line for each case, as text, as a file that is kept, and as a page of all that are kept."""

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isnan, nan
from pathlib import Path

from tests.faults.case import Case, Score
from tests.faults.cases import CASES

_TIMES = ("p50", "p99", "recovery")


@dataclass(frozen=True)
class Line:
    """A case and what it has shown.

    Attributes:
        case: the case.
        score: empty where it was not run.
        seconds: that it took.
        absent: why it was not run; empty when it was.
        quick: whether it was run with few faults of each kind.
    """

    case: Case
    score: Score
    seconds: float
    absent: str = ""
    quick: bool = False

    @property
    def verdict(self) -> str:
        """In a word, or why there is none."""
        return self.absent or ("passed" if self.score.passed else "**missed**")

    @property
    def missed(self) -> bool:
        """Whether it was run and is not as it should be."""
        return not self.absent and not self.score.passed


def told(line: Line) -> Iterator[str]:
    """What is printed when a case has ended."""
    score = line.score
    yield f"{line.case.number:2} {line.case.name}: {line.verdict.strip('*')}  [{line.seconds:.1f} s]"
    if not line.absent:
        counts = (
            f"runs {score.runs}, failures {score.failures}, lost {score.lost}, lost_ack {score.lost_ack}, wrong {score.wrong}"
        )
        yield f"   {counts}, p99 during {_shown(score.p99, 1) or '-'} ms, recovery {_shown(score.recovery, 2) or '-'} s"
        yield f"   passes when: {line.case.line}"
    yield from (f"   MISSED {text}" for text in score.missed)
    yield from (f"   {text}" for text in score.notes)


def table(lines: Sequence[Line]) -> Iterator[str]:
    """Markdown."""
    yield "| # | fault | runs | failures | lost | lost_ack | wrong | p50 / p99 during, ms | recovery, s | seconds | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for one in lines:
        score = one.score
        counts = [score.runs, score.failures, score.lost, score.lost_ack, score.wrong] if not one.absent else [""] * 5
        times = f"{_shown(score.p50, 1)} / {_shown(score.p99, 1)}" if not isnan(score.p99) else ""
        parts = [one.case.number, one.case.name, *counts, times, _shown(score.recovery, 2), f"{one.seconds:.0f}", one.verdict]
        yield "| " + " | ".join(str(part) for part in parts) + " |"


def keep(line: Line, folder: Path, seed: int) -> None:
    """Write a case's file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    score = {name: None if isinstance(value, float) and isnan(value) else value for name, value in asdict(line.score).items()}
    where = {"seed": seed, "python": platform.python_version(), "machine": platform.machine(), "system": platform.release()}
    what = {"case": line.case.number, "name": line.case.name, "verdict": line.verdict.strip("*")}
    plain = {**what, "seconds": line.seconds, "absent": line.absent, "quick": line.quick, "score": score, **where}
    (folder / f"{line.case.number:02}.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def kept(folder: Path) -> list[Line]:
    """The lines of all files in a folder, by the numbers of their cases."""
    cases = {one.number: one for one in CASES}
    lines = []
    for path in sorted(folder.glob("[0-9][0-9].json")):
        plain = json.loads(path.read_text(encoding="utf-8"))
        score = Score(**{name: nan if value is None and name in _TIMES else value for name, value in plain["score"].items()})
        lines.append(Line(cases[plain["case"]], score, plain["seconds"], plain["absent"], plain["quick"]))
    return lines


def page(lines: Sequence[Line]) -> str:
    """All of it in Markdown."""
    quick = [str(one.case.number) for one in lines if one.quick and not one.absent]
    parts = [
        "# What the service does when things go wrong",
        "",
        "Written by",
        "",
        "    python -m tests.faults --check --docs docs/reliability.md",
        "",
        f"on {platform.machine()} with Python {platform.python_version()}. Every fault is done to the real service. Answers",
        "that come meanwhile are compared with brute force in float64 over the vectors of the version, and the changes, that",
        "they name: `wrong` counts those that differ. `lost` counts requests without an answer, or with a 5xx that is no 503",
        "with Retry-After; `lost_ack` changes that were acknowledged and are gone. Latencies count from the moment that a",
        "request was due. The soak, case 30, is run by `--soak 1000000`. With `--json FOLDER` results are kept there, and the",
        "page holds what several runs have shown.",
        "",
    ]
    parts += [f"With few faults of each kind (`--quick`): {', '.join(quick)}.", ""] if quick else []
    parts += [*table(lines), ""]
    for one in lines:
        parts += [f"## {one.case.number}. {one.case.name[:1].upper()}{one.case.name[1:]}", ""]
        parts += [f"Done: {one.case.inject}.", "", f"Passes when: {one.case.line}.", ""]
        parts += [f"{one.verdict.strip('*').capitalize()}.", ""]
        notes = [*(f"- missed: {text}" for text in one.score.missed), *(f"- {text}" for text in one.score.notes)]
        parts += [*notes, ""] if notes else []
    return "\n".join(parts).rstrip() + "\n"


def _shown(value: float, digits: int) -> str:
    return "" if isnan(value) else f"{value:.{digits}f}"
