"""Measure the peak memory of each stage of a training, in bytes an interaction.

    python scripts/benchmark_memory.py --check
    python scripts/benchmark_memory.py 1000000 3000000 10000000 --docs docs/benchmarks.md
    python scripts/benchmark_memory.py 3000000 30000000 --prepared

For each size a shop is generated, with 0.06 users and 0.05 items for each interaction, and `recall train` runs with all of
its fields, k = 32 and 2 sweeps. The peak of resident memory is read and reset at the end of each stage (`/proc/PID/clear_refs`,
Linux only). Bytes an interaction are the slope from the smallest to the largest size, without the memory of any training.
The index is tuned at every size (`index.exact_up_to=0`): without that, small catalogues get an exact index, and the step to a
tuned one would count as growth.
`--prepared` trains from what `recall data prepare` writes. `--check` exits with 1 when a stage takes more than 240.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from report_sections import replace_section
from serving.processes import cpu_seconds

MOST = 240  # bytes an interaction
_RECALL = Path(sys.executable).with_name("recall")
_OVERRIDES = ('train.objective="square"', "train.sweeps=2", "model.k=32", "index.exact_up_to=0")


class Stage(NamedTuple):
    """Peak resident bytes of a stage, its seconds, and its CPU seconds."""

    peak: int
    seconds: float
    cpu: float


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    sizes = sorted(arguments.interactions)
    peaks: list[dict[str, Stage]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="benchmark-memory-") as scratch:
            peaks.append(measure(size, Path(scratch), arguments.prepared))
    lines = list(_report(sizes, peaks))
    print("\n".join(lines))
    if arguments.docs:
        command = f"python scripts/benchmark_memory.py {' '.join(map(str, sizes))}{' --prepared' * arguments.prepared}"
        replace_section(arguments.docs, "memory of training", f"### Memory of training\n\n    {command}\n\n" + "\n".join(lines))
    return 1 if arguments.check and max(slopes(sizes, peaks).values()) > MOST else 0


def measure(interactions: int, folder: Path, prepared: bool) -> dict[str, Stage]:
    """Return memory and time of each stage of a training.

    Args:
        interactions: to generate.
        folder: to write to.
        prepared: train from prepared data.
    """
    shop = folder / "shop"
    counts = [f"--interactions={interactions}", f"--users={int(0.06 * interactions)}", f"--items={int(0.05 * interactions)}"]
    subprocess.run([_RECALL, "data", "generate", shop, *counts], check=True, stdout=subprocess.DEVNULL)
    command: list[str | Path] = [_RECALL, "train", shop / "recall.toml", "--out", folder / "bundles", "--json"]
    if prepared:
        out = folder / "prepared"
        subprocess.run([_RECALL, "data", "prepare", shop / "recall.toml", "--out", out], check=True, stdout=subprocess.DEVNULL)
        command += ["--data", out]
    for override in _OVERRIDES:
        command += ["--set", override]
    stages: dict[str, Stage] = {}
    began, before = time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            if (stage := _ended(line)) is not None:
                now, worked = time.monotonic(), cpu_seconds(process.pid)
                earlier = stages.get(stage, Stage(0, 0.0, 0.0))
                peak = max(earlier.peak, _peak(process.pid))
                stages[stage] = Stage(peak, earlier.seconds + now - began, earlier.cpu + worked - before)
                began, before = now, worked
    if process.returncode:
        raise SystemExit(process.returncode)
    return stages


def _ended(line: str) -> str | None:
    """Return the stage that a line of progress ends."""
    if (sweep := re.match(r"sweep +(\d+)", line)) is not None:
        return "first sweep, with all that it needs" if sweep[1] == "1" else "second sweep, with a look"
    ended = re.match(r"(\S.*?)\s+[\d.]+ s$", line)
    return ended[1] if ended else None


def _peak(pid: int) -> int:
    """Return the peak resident bytes of a process since the last call."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def slopes(sizes: Sequence[int], peaks: Sequence[dict[str, Stage]]) -> dict[str, float]:
    """Return the bytes an interaction of each stage."""
    span = sizes[-1] - sizes[0]
    return {stage: (peaks[-1][stage].peak - peaks[0][stage].peak) / span for stage in peaks[0] if stage in peaks[-1]}


def _report(sizes: Sequence[int], peaks: Sequence[dict[str, Stage]]) -> Iterator[str]:
    yield f"| peak of a stage, MB | {' | '.join(f'{size:,}' for size in sizes)} | bytes an interaction |"
    yield "|---" * (len(sizes) + 2) + "|"
    for stage, slope in slopes(sizes, peaks).items():
        yield f"| {stage} | {' | '.join(f'{one[stage].peak / 1e6:,.0f}' for one in peaks)} | {slope:.0f} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("interactions", nargs="*", type=int, default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--prepared", action="store_true", help="train from prepared data")
    parser.add_argument("--docs", type=Path, help="Markdown file to write the table to")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a stage takes too much")
    given = parser.parse_args()
    if len(set(given.interactions)) < 2:
        parser.error("a slope needs two sizes, such as 300000 1000000")
    return given


if __name__ == "__main__":
    sys.exit(main())
