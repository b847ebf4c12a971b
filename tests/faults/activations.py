"""Versions that must not be served: each is activated, while users ask for the one that is live."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from recall.bundle import files, versions
from recall.bundle.manifest import MANIFEST, Manifest
from recall.errors import RecallError
from tests.faults.asking import Asking
from tests.faults.bench import Bench
from tests.faults.case import Score
from tests.faults.http import Answer
from tests.faults.oracle import Oracle

USERS = [str(number) for number in range(0, 150, 3)]
SERVES_ON = (
    "no fault is accepted, the refusal is 409 or 422 and names the file, and the live version is served on: lost 0, wrong 0"
)
"""What each of these cases asks for."""

Fault = tuple[str, str, Callable[[Path], Callable[[], None]]]
"""What it is called, the file that the refusal has to name, and what does it to a version and gives what undoes it."""


def reason(answer: Answer) -> str:
    """What a problem document says was wrong."""
    return " ".join(entry["message"] for entry in answer.json.get("errors", ()))


def refused(answer: Answer, name: str = "") -> bool:
    """Whether an activation was refused as one that is not fit, with a reason that names the file."""
    return answer.problem and answer.status in (409, 422) and name in reason(answer)


def each_refused(
    bench: Bench,
    score: Score,
    faults: Sequence[Fault],
    extra: str = "",
    pause: float = 0.0,
) -> tuple[float, float]:
    """Do each fault to a version that is not live, have it activated, undo it; users ask for the live one all the while.

    Args:
        faults: to be done.
        extra: what each reason has to match, but where the manifest itself is at fault.
        pause: seconds from one activation to the next.

    Returns:
        Milliseconds of the users' p99 before and meanwhile.
    """
    root = bench.root(2)
    live, other = versions.live_name(root), versions.versions(root)[0]
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        with Asking(server.port, USERS) as asking:
            time.sleep(bench.many(2, 10))
            began = time.perf_counter()
            for number, (what, name, damage) in enumerate(faults):
                time.sleep(max(0.0, began + number * pause - time.perf_counter()))
                hint = damage(other)
                named = right_name(other)
                other.rename(named)
                try:
                    answer = server.post(f"/v1/models/{named.name}:activate", b"")
                finally:
                    named.rename(other)
                    hint()
                well = refused(answer, name) and (not extra or name == MANIFEST or re.search(extra, reason(answer)) is not None)
                score.ran(well, f"{what}: {answer.status} {answer.body[:300]!r}")
                if answer.status == 200:
                    server.post(f"/v1/models/{live}:activate", b"")
            ended = time.perf_counter()
        base, during = asking.usual(began), asking.p99(began, ended)
        asking.judge(score, oracle)
        score.p99, score.p50 = during, asking.p99(began, ended, 50)
        score.notes.append(f"p99 {base:.1f} ms before, {during:.1f} ms while versions were refused, 100 requests a second")
        score.ask(versions.live_name(root) == live, "another version is live")
        names = {one.answer.json["bundle"] for one in asking.asked if one.answer is not None and one.answer.status == 200}
        score.ask(names == {live}, f"answers came from {sorted(names)}")
        answer = server.post(f"/v1/models/{other.name}:activate", b"")
        score.ask(answer.status == 200, f"the version, mended, is refused: {answer.body[:300]!r}")
    oracle.close()
    return base, during


def right_name(folder: Path) -> Path:
    """What the folder of a version has to be called: a manifest that was restated gives it another name."""
    try:
        return folder.with_name(Manifest.read(folder).version)
    except RecallError:
        return folder


def changed(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Other bytes in a file; gives what undoes it."""
    before = path.read_bytes()
    path.write_bytes(change(before))
    return lambda: path.write_bytes(before) and None


def replaced(folder: Path, name: str, data: bytes) -> Callable[[], None]:
    """Other bytes as a file, under checksums that are right; gives what undoes it."""
    kept = {one: (folder / one).read_bytes() for one in (name, MANIFEST)}
    (folder / name).write_bytes(data)
    Manifest.read(folder).model_copy(update={"files": files.describe(folder)}).write(folder)
    return lambda: [(folder / one).write_bytes(before) for one, before in kept.items()] and None
