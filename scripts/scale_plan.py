"""Compute docs/scale.md from measurements, and make them.

    python scripts/scale_plan.py measure                     what docs/scale.json does not have yet, the shortest first
    python scripts/scale_plan.py measure index --sizes 30000000 --most 60
    python scripts/scale_plan.py record segments             run a case of scripts/scale_out.py in full, and keep its output
    python scripts/scale_plan.py record segments --read output.txt
    python scripts/scale_plan.py --docs docs/scale.md        write the page
    python scripts/scale_plan.py --check                     exit with 1 if the page has a number that is not computed so

`measure` skips measurements of more than `--most` minutes, 10 by default, and can be interrupted: each measurement is saved
at once, with the load of the machine. Seconds are upper bounds then; bytes and CPU seconds are reliable.
"""

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scaling.measuring import MEASUREMENTS, WORLD, made, measure, read, write
from scaling.page import CASES, page

ROOT = Path(__file__).parents[1]
WANTED = {
    "index": {1_000_000, 3_000_000, 10_000_000, 30_000_000},
    "solver": {1_000_000, 3_000_000, 10_000_000, 30_000_000},
    "training": {1_000_000, 3_000_000, 10_000_000, 30_000_000},
}
"""Sizes without which the page is not complete."""
DATA, PAGE = ROOT / "docs" / "scale.json", ROOT / "docs" / "scale.md"


def main() -> int:
    """Run from the command line; return the exit code."""
    if sys.argv[1:2] == ["run"]:
        _, _, name, size, folder = sys.argv
        print(json.dumps(MEASUREMENTS[name].run(int(size), Path(folder))))
        return 0
    given = _arguments()
    if given.what == "measure":
        with tempfile.TemporaryDirectory(prefix="scale-plan-") as scratch:
            measure(
                given.names or list(MEASUREMENTS),
                given.sizes,
                given.most,
                given.folder or Path(scratch),
                given.data,
                again=given.again,
            )
    elif given.what == "record":
        for case in given.names:
            record(case, given.data, given.read)
    if given.docs is not None:
        given.docs.write_text(page(read(given.data)), encoding="utf-8")
    differences = check_page(given.data, given.page) if given.check else []
    print(*differences, sep="\n", end="\n" if differences else "")
    return int(bool(differences))


def check_page(data: Path = DATA, docs: Path = PAGE) -> list[str]:
    """Return the lines of the page that differ from what is computed now."""
    written, computed = docs.read_text(encoding="utf-8").splitlines(), page(read(data)).splitlines()
    return list(difflib.unified_diff(written, computed, str(docs), "computed", lineterm="", n=0))


def plan(_: Path, quick: bool, check: Callable[[str, bool, str], None]) -> None:
    """Check the page, as a case of scale_out.py."""
    differences, text = check_page(), PAGE.read_text(encoding="utf-8")
    found = "; ".join(differences[2:5]) or f"{len(text.splitlines())} lines"
    check("the page is what is computed from the measurements", not differences, found)
    computed = re.findall(r"≈ \d[^|()]*(\(F\d+\))?", text)
    named = {line.split("|")[1].strip() for line in text.splitlines() if re.match(r"\| F\d+ \| `", line)}
    bare = [one for one in computed if one.strip("()") not in named]
    check(
        "every computed number has its formula",
        not bare,
        f"{len(computed)} numbers by {len(named)} formulas, {len(bare)} without",
    )
    if not quick:
        measured = {name: {int(size) for size in found} for name, found in read(DATA)["measurements"].items()}
        for name, sizes in WANTED.items():
            largest = f"up to {max(measured.get(name, {0})):,}"
            check(
                f"{name} is measured at {', '.join(f'{size:,}' for size in sorted(sizes))}",
                sizes <= measured.get(name, set()),
                largest,
            )
        missing = set(CASES) - set(read(DATA)["cases"]) - {"plan", "spark"}
        check("the outputs of the other cases are on the page", not missing, f"without {', '.join(sorted(missing)) or 'none'}")


def record(case: str, data: Path, source: Path | None) -> None:
    """Keep what a case of scale_out.py prints.

    Args:
        case: its name.
        data: JSON file to keep it in.
        source: file with its output; without one, the case is run.
    """
    load, began, command = os.getloadavg()[0], time.perf_counter(), ["scripts/scale_out.py", case, "--check"]
    entry = {**made(), "command": " ".join(["python", *command])}
    if source is None:
        ended = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        text = ended.stdout
        entry |= {"seconds": round(time.perf_counter() - began), "load": [round(one, 1) for one in (load, os.getloadavg()[0])]}
    else:
        text = source.read_text(encoding="utf-8")
    print(text, end="", file=sys.stderr)
    if not re.search(rf"^{case}: \w+\s*\Z", text, re.MULTILINE):
        raise SystemExit(f"this is not the whole output of {case}")
    whole = read(data)
    whole["cases"][case] = {**entry, "output": text.rstrip().splitlines()}
    write(data, whole)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("measure", "record"), help="what to add to the file of measurements")
    parser.add_argument("names", nargs="*", help=f"measurements: {', '.join(MEASUREMENTS)}; or cases to record")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[], help="items, interactions or users, in place of the default ones"
    )
    parser.add_argument("--most", type=float, default=10, help="minutes of the longest measurement that is made (10)")
    parser.add_argument("--again", action="store_true", help="also repeat measurements that the file has")
    parser.add_argument("--world", type=int, default=10_000, help="items of the shop that indexes are drawn from (10000)")
    parser.add_argument("--folder", type=Path, help="for generated catalogues, which are kept there")
    parser.add_argument("--read", type=Path, help="output of a case, in place of running it")
    parser.add_argument("--data", type=Path, default=DATA, help="JSON file of measurements (docs/scale.json)")
    parser.add_argument("--docs", type=Path, help="write the page to this file")
    parser.add_argument("--page", type=Path, default=PAGE, help="page that --check reads (docs/scale.md)")
    parser.add_argument("--check", action="store_true", help="compare the page with what is computed")
    given = parser.parse_intermixed_args()
    known = CASES if given.what == "record" else MEASUREMENTS
    if wrong := set(given.names) - set(known):
        parser.error(f"no {', '.join(sorted(wrong))} among {', '.join(known)}")
    os.environ[WORLD] = str(given.world)
    return given


if __name__ == "__main__":
    sys.exit(main())
