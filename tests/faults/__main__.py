"""Inject faults into the real service and report how it behaves.

    python -m tests.faults --quick --check
    python -m tests.faults --check --docs docs/reliability.md
    python -m tests.faults --only 3 24
    python -m tests.faults --soak 1000000 --json results --docs docs/reliability.md

Every answer received during a fault is compared with a brute-force search in float64 over the item vectors of the version,
and the live changes, that the answer names. `--quick` runs the fast cases with fewer repetitions, `--only` selects cases by
number, and `--check` exits with 1 if a case fails. A case whose tools are not installed is skipped with a message. `--json`
saves the results to a folder; `--docs` then writes a report of all results in that folder.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.board import Result, load_results, report, save_result, summary, table
from tests.faults.case import Case, Score
from tests.faults.cases import CASES
from tests.faults.shop import Shop

SOAK = 30


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    results: list[Result] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        folder = Path(scratch)
        shop = Shop.open(folder / "shop")
        for case in _selected(arguments):
            (folder / str(case.number)).mkdir()
            rng = random.Random(1000 * arguments.seed + case.number)
            bench = Bench(folder / str(case.number), shop, arguments.quick, rng, arguments.soak or 20_000)
            results.append(run(case, bench))
            print(*summary(results[-1]), sep="\n", flush=True)
            if arguments.json:
                save_result(results[-1], arguments.json, arguments.seed)
    print("", *table(results), "", f"{time.perf_counter() - started:.0f} s in all.", sep="\n")
    if arguments.docs:
        arguments.docs.parent.mkdir(parents=True, exist_ok=True)
        text = report(load_results(arguments.json) if arguments.json else results)
        arguments.docs.write_text(text, encoding="utf-8")
    failed = [one for one in results if one.failed]
    for one in failed:
        print(f"failed: {one.case.number}, {one.case.name}: {'; '.join(one.score.unmet)}", file=sys.stderr)
    return 1 if arguments.check and failed else 0


def run(case: Case, bench: Bench) -> Result:
    """Run one case; an exception counts as a failure."""
    score, started = Score(), time.perf_counter()
    skipped = case.skip_reason()
    if not skipped:
        try:
            case.run(bench, score)
        except Exception as error:  # continue with the other cases
            traceback.print_exc()
            score.unmet.append(f"the case raised {type(error).__name__}: {error}")
    return Result(case, score, time.perf_counter() - started, skipped, bench.quick)


def _selected(arguments: argparse.Namespace) -> list[Case]:
    if arguments.only:
        return [one for one in CASES if one.number in arguments.only]
    if arguments.soak:
        return [one for one in CASES if one.number == SOAK]
    return [one for one in CASES if (one.fast if arguments.quick else one.number != SOAK)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="run the fast cases with fewer repetitions")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a case fails")
    parser.add_argument("--only", type=int, nargs="+", default=[], metavar="N", help="run these cases only")
    parser.add_argument("--docs", type=Path, help="write the report to this Markdown file")
    parser.add_argument("--json", type=Path, help="save one result file per case in this folder")
    parser.add_argument("--soak", type=int, default=0, metavar="REQUESTS", help="run case 30 with this many requests")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
