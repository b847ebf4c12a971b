"""The fault scoreboard: what the service does when things go wrong, each fault really done to the real service.

    python -m tests.faults --quick --check
    python -m tests.faults --check --docs docs/reliability.md
    python -m tests.faults --only 3 24
    python -m tests.faults --soak 1000000 --json results --docs docs/reliability.md

Every answer that comes meanwhile is compared with brute force, in float64, over the vectors of the version and the changes
that the answer names. `--quick` runs the fast set with fewer faults of each kind; `--only` runs the cases that it names,
`--check` exits with 1 when one is missed, and names it. What a case needs and this machine lacks is said. With `--json`
results are kept in a folder, and `--docs` writes all that is kept there.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.board import Line, keep, kept, page, table, told
from tests.faults.case import Case, Score
from tests.faults.cases import CASES
from tests.faults.shop import Shop

SOAK = 30


def main() -> int:
    """Run from the command line; returns the exit code."""
    given = _arguments()
    lines: list[Line] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        folder = Path(scratch)
        shop = Shop.open(folder / "shop")
        for case in _chosen(given):
            (folder / str(case.number)).mkdir()
            drawn = random.Random(1000 * given.seed + case.number)
            bench = Bench(folder / str(case.number), shop, given.quick, drawn, given.soak or 20_000)
            lines.append(run(case, bench))
            print(*told(lines[-1]), sep="\n", flush=True)
            if given.json:
                keep(lines[-1], given.json, given.seed)
    print("", *table(lines), "", f"{time.perf_counter() - began:.0f} s in all.", sep="\n")
    if given.docs:
        given.docs.parent.mkdir(parents=True, exist_ok=True)
        given.docs.write_text(page(kept(given.json) if given.json else lines), encoding="utf-8")
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
    return Line(case, score, time.perf_counter() - began, absent, bench.quick)


def _chosen(given: argparse.Namespace) -> list[Case]:
    if given.only:
        return [one for one in CASES if one.number in given.only]
    if given.soak:
        return [one for one in CASES if one.number == SOAK]
    return [one for one in CASES if (one.fast if given.quick else one.number != SOAK)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the fast set, and fewer faults of each kind")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a case is missed")
    parser.add_argument("--only", type=int, nargs="+", default=[], metavar="N", help="these cases only")
    parser.add_argument("--docs", type=Path, help="Markdown file that is written anew")
    parser.add_argument("--json", type=Path, help="folder that keeps the results of cases, a file each")
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="case 30, with so many requests")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
