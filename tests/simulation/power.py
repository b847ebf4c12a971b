"""Power failures at any point of a real program: system calls are recorded once and replayed up to many points."""

import hashlib
import json
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import disk
from tests.simulation.disk import LOSSES, NOTHING, Inode, Loss, Mark, Named, Sized, Step, Synced, Written
from tests.simulation.trace import MARKS, folder_of, traced

Entry = dict[str, Any]
"""Marks of an operation: `try` before and `ack` after it, with its number."""


MEMORY = Path("/dev/shm")
_DRAWN = re.compile(r"^\.tmp\w+$|(?<=^\d{6}-)[0-9a-f]{8}$")


def fast_folder() -> str | None:
    """A folder in memory, if available, because crash images are read only once."""
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 50_000_000
    return str(MEMORY) if usable else None


class Broken(AssertionError):  # noqa: N818 - it is what is found
    """A violated property."""


@dataclass(frozen=True)
class Recording:
    """The recording of a program.

    Attributes:
        root: the folder before the run.
        steps: system calls and marks, in order.
    """

    root: Inode
    steps: list[Step]

    def digest(self) -> str:
        """Hash the sequence of steps without data, which contain random bytes and times."""
        numbers: dict[Inode, int] = {}
        hashed = hashlib.sha256()
        for step in self.steps:
            match step:
                case Mark(text):
                    said: tuple[object, ...] = ("mark", text)
                case Written(inode, offset, data):
                    said = ("written", _number(numbers, inode), offset, len(data))
                case Sized(inode, size):
                    said = ("sized", _number(numbers, inode), size)
                case Synced(inode):
                    said = ("synced", _number(numbers, inode))
                case Named(gone, come):
                    left = [(_number(numbers, folder), _plain(name)) for folder, name in gone]
                    made = [(_number(numbers, at), _plain(name), _number(numbers, one)) for at, name, one in come]
                    said = ("named", left, made)
            hashed.update(repr(said).encode() + b"\n")
        return hashed.hexdigest()


@dataclass(frozen=True)
class Moment:
    """The acknowledged state at a power failure.

    Attributes:
        done: acknowledgements so far.
        next: the acknowledgement of the operation in flight; None if nothing was in flight, or if it was refused in the
            end.
        tried: the operation in flight.
    """

    done: Sequence[Entry]
    next: Entry | None
    tried: Entry | None


Check = Callable[[Path, Moment], None]
"""Checks a root after a crash; raises Broken, or an error of the code under test."""


@dataclass
class Found:
    """The result of many crashes.

    Attributes:
        crashes: number of simulated crashes.
        violations: location, kind of loss and problem.
    """

    crashes: int = 0
    violations: list[str] = field(default_factory=list)


def record(workload: str, seed: int, template: Path | None = None, fault: str = "") -> Recording:
    """Run a workload of `tests.simulation.workload` under strace.

    Args:
        workload: its name.
        seed: seed of the workload.
        template: initial contents of the folder; empty without one.
        fault: bug to inject; see `workload`.
    """
    with tempfile.TemporaryDirectory() as folder:
        watched = Path(folder).resolve() / "disk"
        if template is None:
            watched.mkdir()
        else:
            shutil.copytree(template, watched)
        (watched.parent / MARKS).touch()
        before = folder_of(disk.read(watched))
        steps = traced(["-m", "tests.simulation.workload", workload, str(seed), str(watched), fault], watched, before)
        left = {name: data for name, data in disk.read(watched).items() if not name.endswith("-shm")}
    replayed = disk.after_crash(before, steps, NOTHING, random.Random(0))
    modelled = {name: data for name, data in replayed.items() if not name.endswith("-shm")}
    if modelled != left:
        wrong = sorted(name for name in modelled.keys() | left.keys() if modelled.get(name) != left.get(name))
        raise RuntimeError(f"the trace does not give the files that are there: {wrong}")
    return Recording(before, steps)


def crash(recording: Recording, cut: int, loss: Loss, seed: int, check: Check) -> str:
    """Simulate a power failure before a step; return the problem, if any."""
    steps = recording.steps[:cut]
    files = disk.after_crash(recording.root, steps, loss, random.Random(f"{seed} {cut} {loss}"))
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        root = Path(folder) / "disk"
        disk.put(files, root)
        try:
            check(root, moment(recording.steps, cut))
        except Exception as error:
            return f"step {cut} of {len(recording.steps)}, {loss}: {type(error).__name__}: {error}".replace(folder, "")
    return ""


def crashes(recording: Recording, check: Check, seed: int, count: int) -> Found:
    """Simulate power failures at random steps, half of them right after an acknowledgement."""
    draw, found = random.Random(seed), Found()
    acknowledged = [at for at, step in enumerate(recording.steps) if isinstance(step, Mark) and "ack" in json.loads(step.text)]
    for number in range(count):
        cut = 1 + (draw.choice(acknowledged) if number % 2 else draw.randrange(len(recording.steps)))
        loss = draw.choice((NOTHING, *LOSSES))
        wrong = crash(recording, cut, loss, seed, check)
        found.crashes += 1
        if wrong:
            found.violations.append(wrong)
    return found


def moment(steps: Sequence[Step], cut: int) -> Moment:
    """Return the acknowledgements before a step, and the next one."""
    said = [json.loads(step.text) for step in steps[:cut] if isinstance(step, Mark)]
    later = (json.loads(step.text) for step in steps[cut:] if isinstance(step, Mark))
    tried = said[-1] if said and "try" in said[-1] else None
    answer = next(later, None) if tried is not None else None
    return Moment([one for one in said if "ack" in one], answer if answer is not None and "ack" in answer else None, tried)


def _plain(name: str) -> str:
    """Remove random parts and hashes from a name."""
    return _DRAWN.sub("*", name)


def _number(numbers: dict[Inode, int], inode: Inode) -> int:
    return numbers.setdefault(inode, len(numbers))
