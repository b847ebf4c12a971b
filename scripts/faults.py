"""The fault scoreboard: what the service does when things go wrong, each fault really done to the real service.

    python scripts/faults.py --quick --check
    python scripts/faults.py --check --docs docs/reliability.md
    python scripts/faults.py --only 3 24
    python scripts/faults.py --soak 1000000

Every answer that comes meanwhile is compared with brute force, in float64, over the vectors of the version and the changes
that the answer names. `--quick` runs the fast set with fewer faults of each kind; `--only` runs the cases that it names,
`--check` exits with 1 when one is missed, and names it. What a case needs and this machine lacks is said.
"""

import argparse
import json
import platform
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path

from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.cases import CASES
from faulting.shop import Shop


@dataclass(frozen=True)
class Line:
    """A line of the scoreboard."""

    case: Case
    score: Score
    seconds: float
    absent: str = ""

    @property
    def verdict(self) -> str:
        """In a word, or why there is none."""
        return self.absent or ("passed" if self.score.passed else "**missed**")

    @property
    def missed(self) -> bool:
        """Whether it was run and is not as it should be."""
        return not self.absent and not self.score.passed


def main() -> int:
    """Run from the command line; returns the exit code."""
    given = _arguments()
    cases = [one for one in CASES if (one.number in given.only if given.only else one.number != 30 or given.soak)]
    if given.quick and not given.only:
        cases = [one for one in cases if one.fast]
    if given.soak and not given.only:
        cases = [one for one in cases if one.number == 30]
    lines: list[Line] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        folder = Path(scratch)
        shop = Shop.open(folder / "shop")
        for case in cases:
            (folder / str(case.number)).mkdir()
            drawn = random.Random(1000 * given.seed + case.number)
            bench = Bench(folder / str(case.number), shop, given.quick, drawn, given.soak or 20_000)
            lines.append(run(case, bench))
            _tell(lines[-1])
            if given.json:
                given.json.mkdir(parents=True, exist_ok=True)
                (given.json / f"{case.number:02}.json").write_text(json.dumps(_plain(lines[-1], given.seed), indent=2) + "\n")
    print("", *table(lines), "", f"{time.perf_counter() - began:.0f} s in all.", sep="\n")
    if given.docs:
        _write(given.docs, lines, given.quick)
    missed = [one for one in lines if one.missed]
    for one in missed:
        print(f"missed: {one.case.number}, {one.case.name}: {'; '.join(one.score.missed)}", file=sys.stderr)
    return 1 if given.check and missed else 0


def run(case: Case, bench: Bench) -> Line:
    """Do what a case says. One that breaks down is missed."""
    score, began = Score(), time.perf_counter()
    absent = case.missing()
    if not absent:
        try:
            case.run(bench, score)
        except Exception as error:  # the others are still to be run
            traceback.print_exc()
            score.missed.append(f"it broke down: {type(error).__name__}: {error}")
    return Line(case, score, time.perf_counter() - began, absent)


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


def _tell(one: Line) -> None:
    score = one.score
    print(f"{one.case.number:2} {one.case.name}: {one.verdict.strip('*')}  [{one.seconds:.1f} s]")
    if not one.absent:
        print(
            f"   runs {score.runs}, failures {score.failures}, lost {score.lost}, "
            f"lost_ack {score.lost_ack}, wrong {score.wrong}, ",
            end="",
        )
        print(f"p99 during {_shown(score.p99, 1) or '-'} ms, recovery {_shown(score.recovery, 2) or '-'} s")
        print(f"   passes when: {one.case.line}")
    for text in score.missed:
        print(f"   MISSED {text}")
    for text in score.notes:
        print(f"   {text}")
    sys.stdout.flush()


def _write(path: Path, lines: Sequence[Line], quick: bool) -> None:
    command = f"    python scripts/faults.py{' --quick' if quick else ''} --check --docs docs/reliability.md"
    cores = platform.machine()
    parts = ["# What the service does when things go wrong", "", "Written by", "", command, ""]
    parts += [
        f"on {cores} with Python {platform.python_version()}. Every fault is done to the real service. Answers that come",
        "meanwhile are compared with brute force in float64 over the vectors of the version, and the changes, that they name:",
        "`wrong` counts those that differ. `lost` counts requests without an answer, or with a 5xx that is no 503 with",
        "Retry-After; `lost_ack` changes that were acknowledged and are gone. Latencies count from the moment that a request",
        "was due. The soak, case 30, is run by itself: `--soak 1000000`.",
        "",
        *table(lines),
        "",
    ]
    for one in lines:
        parts += [
            f"## {one.case.number}. {one.case.name}",
            "",
            f"Done: {one.case.inject}.",
            "",
            f"Passes when: {one.case.line}.",
            "",
        ]
        parts += [f"{one.verdict.strip('*').capitalize()}.", ""]
        told = [*(f"- missed: {text}" for text in one.score.missed), *(f"- {text}" for text in one.score.notes)]
        parts += [*told, ""] if told else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _plain(one: Line, seed: int) -> dict[str, object]:
    figures = {name: None if isinstance(value, float) and isnan(value) else value for name, value in asdict(one.score).items()}
    where = {"seed": seed, "python": platform.python_version(), "machine": platform.machine(), "system": platform.release()}
    return {
        "case": one.case.number,
        "name": one.case.name,
        "verdict": one.verdict.strip("*"),
        "seconds": one.seconds,
        **figures,
        **where,
    }


def _shown(value: float, digits: int) -> str:
    return "" if isnan(value) else f"{value:.{digits}f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the fast set, and fewer faults of each kind")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a case is missed")
    parser.add_argument("--only", type=int, nargs="+", default=[], metavar="N", help="these cases only")
    parser.add_argument("--docs", type=Path, help="Markdown file that is written anew")
    parser.add_argument("--json", type=Path, help="folder for a file of each case")
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="case 30, with so many requests")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
