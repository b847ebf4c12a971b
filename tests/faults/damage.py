"""Bundles that are corrupt, incomplete, mixed up, or too large: none may be served."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from recall.bundle import files, versions
from recall.bundle.manifest import MANIFEST, FileEntry, Manifest
from tests.faults import ROOT
from tests.faults.activations import REFUSED, Fault, changed, each_refused, expected_path, reason, refused
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score

_SIZES = re.compile(r"the file has \d+ bytes, the manifest says \d+")


def _names(bench: Bench) -> list[str]:
    return sorted(path.name for path in bench.shop.templates[0].iterdir())


def truncated(bench: Bench, score: Score) -> None:
    """Case 5."""
    faults = []
    for name in _names(bench):
        size = (bench.shop.templates[0] / name).stat().st_size
        nearly = size - 2 if name == MANIFEST else size - 1  # the last byte is only a newline
        for length in [0, nearly, *(bench.random.randrange(size) for _ in range(bench.many(1, 18)))]:

            def truncate(folder: Path, name: str = name, length: int = length) -> Callable[[], object]:
                return changed(folder / name, lambda data: data[:length])

            faults.append((f"{name} truncated to {length} of {size} bytes", name, truncate))
    base, during = each_refused(bench, score, faults, _SIZES.pattern, pause=0.0 if bench.quick else 0.1)
    most = bench.slower(base, 1.1)
    score.require(during <= most, f"p99 is {during:.1f} ms while versions are refused, was {base:.1f} ms")
    score.notes.append(f"limit for p99: {most:.1f} ms, 1.1 times the baseline or {NOISE:g} ms more (1 s more with --quick)")


def flipped(bench: Bench, score: Score) -> None:
    """Case 6."""
    faults = []
    names = _names(bench)
    for number in range(bench.many(60, 500)):
        name = names[number % len(names)]
        size = (bench.shop.templates[0] / name).stat().st_size
        place, bit = bench.random.randrange(size), bench.random.randrange(8)

        def flip(folder: Path, name: str = name, place: int = place, bit: int = bit) -> Callable[[], object]:
            return changed(folder / name, lambda data: data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])

        faults.append((f"bit {bit} of byte {place} of {name} flipped", name, flip))
    each_refused(bench, score, faults)


def missing_or_foreign(bench: Bench, score: Score) -> None:
    """Case 7."""
    faults: list[Fault] = []
    for name in _names(bench):
        faults.append((f"{name} is missing", name, partial(_renamed, name=name, to="../../away")))
        faults.append((f"{name} is renamed", name, partial(_renamed, name=name, to=f"{name}.bak")))
    foreign = bench.shop.templates[1]
    for name in sorted(files.NAMES - {files.ITEMS, files.ENCODER, files.VOCABULARIES, files.USERS, files.COUNTS}):
        faults.append((f"{name} of another bundle", name, partial(_exchanged, name=name, other=foreign)))
    faults.append(("the manifest of another bundle", "", partial(_exchanged, name=MANIFEST, other=foreign)))
    faults.append(("an extra file", "extra.bin", lambda folder: _added(folder / "extra.bin")))
    faults.append(("a symbolic link in place of a file", files.USERS, lambda folder: _linked(folder / files.USERS)))
    for part, value in (("dim", 5), ("items", 7), ("k", 3), ("users", 1)):
        faults.append((f"a wrong sizes.{part} under a correct checksum", "", partial(_restated, part=part, value=value)))
    each_refused(bench, score, faults)
    _by_command(bench, score)


def _renamed(folder: Path, name: str, to: str) -> Callable[[], object]:
    """Rename a file of a version, or move it to a path relative to the version; return how to undo it."""
    away = (folder / name).rename(folder / to)
    return lambda: away.rename(folder / name)


def _exchanged(folder: Path, name: str, other: Path) -> Callable[[], object]:
    """Replace a file of a version by that of a different version; return how to undo it."""
    data = (other / name).read_bytes()
    return changed(folder / name, lambda _: data)


def _added(path: Path) -> Callable[[], object]:
    path.write_bytes(b"x")
    return path.unlink


def _linked(path: Path) -> Callable[[], object]:
    away = path.parent.parent.parent / "away"
    path.rename(away)
    path.symlink_to(away)

    def repair() -> None:
        path.unlink()
        away.rename(path)

    return repair


def _restated(folder: Path, part: str, value: int) -> Callable[[], object]:
    """Write a manifest with a wrong size and a correct checksum; return how to undo it."""
    before = (folder / MANIFEST).read_bytes()
    manifest = Manifest.read(folder)
    manifest.model_copy(update={"sizes": manifest.sizes.model_copy(update={part: value})}).write(folder)
    return lambda: (folder / MANIFEST).write_bytes(before)


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the `recall` command."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", "from recall.cli import main; main()", *map(str, arguments)]
    return subprocess.run(line, env=variables, capture_output=True, text=True, check=False, timeout=120)


def _by_command(bench: Bench, score: Score) -> None:
    root = bench.root(2)
    other = versions.versions(root)[0]
    for name in (files.INDEX, files.USERS)[: bench.many(1, 2)]:
        repair = _renamed(other, name, "../../away")
        done = command("activate", root, other.name)
        repair()
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower() or name in line]
        score.record(
            done.returncode == 65 and bool(lines) and name in done.stderr,
            f"recall activate: {done.returncode} {done.stderr[-300:]!r}",
        )
        score.require("Traceback" not in done.stderr, "recall activate prints a traceback")


def too_large(bench: Bench, score: Score) -> None:
    """Case 13."""

    def ten_times(folder: Path) -> Callable[[], object]:
        before = (folder / MANIFEST).read_bytes()
        manifest = Manifest.read(folder)
        entry = manifest.files[files.ITEM_VECTORS]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        larger = FileEntry(bytes=10 * memory, sha256=entry.sha256)
        manifest.model_copy(update={"files": {**manifest.files, files.ITEM_VECTORS: larger}}).write(folder)
        return lambda: (folder / MANIFEST).write_bytes(before)

    each_refused(
        bench, score, [("a file of ten times the machine's memory", "", ten_times)] * bench.many(2, 10), "bytes of memory"
    )
    _under_a_limit(bench, score)


def _under_a_limit(bench: Bench, score: Score) -> None:

    root = bench.root(2)
    live, other = versions.live_name(root), versions.versions(root)[0]
    manifest = Manifest.read(other)
    with bench.serve(root) as server:
        server.ready()
        used = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = used + (64 << 20)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, most))
        larger = FileEntry(bytes=640 << 20, sha256=manifest.files[files.INDEX].sha256)
        manifest.model_copy(update={"files": {**manifest.files, files.INDEX: larger}}).write(other)
        named = other.rename(expected_path(other))
        answer = server.post(f"/v1/models/{named.name}:activate", b"")
        well = refused(answer) and "bytes of memory" in reason(answer)
        score.record(well, f"a file of ten times the remaining RLIMIT_AS: {answer.status} {answer.body[:200]!r}")
        served = server.post("/v1/recommend", {"user_id": "3"})
        score.record(served.status == 200 and served.json["bundle"] == live, "the live version is no longer served")
        score.require(server.process.poll() is None, "the process has ended")


CASES = [
    Case(
        5,
        "a file is truncated",
        "each file of a version is truncated, and the version activated",
        f"{REFUSED}; the error names both sizes; p99 at most 1.1 times the baseline, or {NOISE:g} ms more",
        truncated,
        fast=True,
    ),
    Case(
        6,
        "a bit is flipped",
        "one bit anywhere in a version is flipped, and the version activated",
        REFUSED,
        flipped,
        fast=True,
    ),
    Case(
        7,
        "files are missing, renamed, or from another bundle, or sizes do not match",
        "files removed, renamed, added, replaced by links or by those of another bundle; manifests with wrong sizes and a "
        "correct checksum",
        f"{REFUSED}; `recall activate` exits with 65 and names the file",
        missing_or_foreign,
        fast=True,
    ),
    Case(
        13,
        "a version needs more memory than is available",
        "a manifest that declares ten times the machine's memory, or ten times the remaining RLIMIT_AS",
        "refused before the file is read; the process survives and continues to serve",
        too_large,
    ),
]
