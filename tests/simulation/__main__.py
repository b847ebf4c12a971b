"""Run simulations for a given time: python -m tests.simulation --seconds 3600 --seed 1

The runs use consecutive seeds. A run that finds a bug prints its seed and its log, and can be repeated with
--seed SEED --runs 1. The exit code is 1 if any run found a bug.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from recall.bundle.versions import resolve
from tests.simulation import logs, power, publishing, roots, shop
from tests.simulation.runs import run
from tests.simulation.trace import can_trace

POWER_EVERY = 20
"""Number of runs from one power failure to the next."""


def main() -> int:
    asked = _arguments()
    until = time.monotonic() + asked.seconds
    found = seed = crashes = 0
    with tempfile.TemporaryDirectory() as folder:
        place = shop.make_shop(Path(folder) / "shop")
        seed = asked.seed
        while seed - asked.seed < asked.runs and (time.monotonic() < until or seed == asked.seed):
            outcome = run(place, seed, asked.steps, asked.passed, asked.without)
            if outcome.fault:
                found += 1
                print(f"seed {seed}, {asked.steps} steps: {outcome.fault}")
                print(*(f"    {line}" for line in outcome.said), sep="\n", flush=True)
            if can_trace() and (seed - asked.seed) % POWER_EVERY == POWER_EVERY - 1:
                wrong = _power(place, seed)
                crashes += wrong.crashes
                found += bool(wrong.violations)
                print(*(f"power failure, seed {seed}, {one}" for one in wrong.violations), sep="\n", end="", flush=True)
            seed += 1
    print(f"{seed - asked.seed} runs from seed {asked.seed}, {crashes} power failures: {found or 'nothing'} found")
    return int(found > 0)


def _power(place: Path, seed: int) -> power.Found:
    """Simulate power failures in each workload."""
    found = power.Found()
    with tempfile.TemporaryDirectory() as folder:
        template = publishing.template_of(resolve(place / shop.HERE), Path(folder) / "publish")
        (Path(folder) / "root").mkdir()
        root = shop.fresh_root(place, Path(folder) / "root" / shop.HERE).parent
        for name, start, check in (
            ("log", None, logs.check),
            ("publish", template, publishing.check),
            ("root", root, roots.check),
        ):
            came = power.crashes(power.record(name, seed, start), check, seed, 100)
            found.crashes += came.crashes
            found.violations += [f"{name}: {one}" for one in came.violations]
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long")
    parser.add_argument("--runs", type=int, default=1 << 60, help="at most so many runs")
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--steps", type=int, default=60, help="things that happen in a run")
    parser.add_argument("--passed", nargs="*", default=[], help="invariants whose violations are ignored")
    parser.add_argument("--without", nargs="*", default=[], help="names of disabled events, such as damage or copy")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
