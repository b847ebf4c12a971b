"""Activation of corrupt versions under load: each must be refused while the live version is served."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from recall.bundle import files, versions
from recall.bundle.manifest import MANIFEST, Manifest
from recall.errors import RecallError
from tests.faults.bench import Bench
from tests.faults.case import Score
from tests.faults.http import Answer
from tests.faults.oracle import Oracle
from tests.faults.steady_load import SteadyLoad

USERS = [str(number) for number in range(0, 150, 3)]
REFUSED = (
    "every corrupt version is refused with 409 or 422 and the name of the file; the live version stays in service: "
    "lost 0, wrong 0"
)
"""Pass criterion of these cases."""

Fault = tuple[str, str, Callable[[Path], Callable[[], object]]]
"""Description, the file that the error must name, and a function that corrupts a version and returns how to undo it."""


def reason(answer: Answer) -> str:
    """Join the error messages of a problem document."""
    return " ".join(entry["message"] for entry in answer.json.get("errors", ()))


def refused(answer: Answer, name: str = "") -> bool:
    """Whether an activation was refused with an error that names the file."""
    return answer.problem and answer.status in (409, 422) and name in reason(answer)


def each_refused(
    bench: Bench,
    score: Score,
    faults: Sequence[Fault],
    extra: str = "",
    pause: float = 0.0,
) -> tuple[float, float]:
    """Inject each fault into a version that is not live, try to activate it under load, and undo the fault.

    Args:
        faults: the faults to inject.
        extra: pattern that each error must match, unless the manifest itself is corrupt.
        pause: seconds from one activation to the next.

    Returns:
        The p99 in milliseconds before and during the faults.
    """
    root = bench.root(2)
    live, other = versions.live_name(root), versions.versions(root)[0]
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        with SteadyLoad(server.port, USERS) as load:
            time.sleep(bench.many(2, 10))
            began = time.perf_counter()
            for number, (what, name, corrupt) in enumerate(faults):
                time.sleep(max(0.0, began + number * pause - time.perf_counter()))
                undo = corrupt(other)
                named = expected_path(other)
                other.rename(named)
                try:
                    answer = server.post(f"/v1/models/{named.name}:activate", b"")
                finally:
                    named.rename(other)
                    undo()
                well = refused(answer, name) and (not extra or name == MANIFEST or re.search(extra, reason(answer)) is not None)
                score.record(well, f"{what}: {answer.status} {answer.body[:300]!r}")
                if answer.status == 200:
                    server.post(f"/v1/models/{live}:activate", b"")
            ended = time.perf_counter()
        base, during = load.baseline_p99(began), load.p99(began, ended)
        load.check(score, oracle)
        score.p99, score.p50 = during, load.p99(began, ended, 50)
        score.notes.append(f"p99 {base:.1f} ms before, {during:.1f} ms while versions were refused, at 100 requests a second")
        score.require(versions.live_name(root) == live, "the live version has changed")
        names = {one.answer.json["bundle"] for one in load.outcomes if one.answer is not None and one.answer.status == 200}
        score.require(names == {live}, f"answers came from {sorted(names)}")
        answer = server.post(f"/v1/models/{other.name}:activate", b"")
        score.require(answer.status == 200, f"the repaired version is refused: {answer.body[:300]!r}")
    oracle.close()
    return base, during


def expected_path(folder: Path) -> Path:
    """Return the folder name that matches the manifest: the name contains a checksum of it."""
    try:
        return folder.with_name(Manifest.read(folder).version)
    except RecallError:
        return folder


def changed(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], object]:
    """Change the bytes of a file; return how to undo it."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    return lambda: path.write_bytes(before)


def replaced(folder: Path, name: str, data: bytes) -> Callable[[], object]:
    """Replace a file and update its checksum in the manifest; return how to undo it."""
    kept = {one: (folder / one).read_bytes() for one in (name, MANIFEST)}
    (folder / name).write_bytes(data)
    Manifest.read(folder).model_copy(update={"files": files.describe(folder)}).write(folder)
    return lambda: [(folder / one).write_bytes(before) for one, before in kept.items()]
