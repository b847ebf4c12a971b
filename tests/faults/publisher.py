"""A publisher as a process of its own, to be killed: `python -m tests.faults.publisher ROOT TEMPLATE`.

Each line that it reads has a child begin something, whose process id it prints; and when the child is gone, how it ended.

    loop TOLD     publish for ever; each version's name is written to the file TOLD when it is published
    times N TOLD  publish N times
    once          stop, to be let go on by SIGCONT, and publish
    lock          take the root's lock and wait for ever
    small BYTES   publish where no file may grow beyond so many bytes
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recall.bundle import versions
from recall.errors import RecallError
from tests.faults import ROOT
from tests.faults.shop import copy


class Publisher:
    """Starts children that publish to a root."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Of a process that runs this module."""
        self._process = process

    def begin(self, *words: object) -> int:
        """Have a child begin; gives its process id."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return int(self._line())

    def end(self) -> int:
        """Wait for the child; gives its exit code, or less than 0 for the signal that killed it."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the publisher is gone")
        return line


@contextmanager
def publisher(root: Path, template: Path) -> Iterator[Publisher]:
    """A process that starts children which publish copies of a bundle to a root."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faults.publisher", str(root), str(template)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as process:
        yield Publisher(process)
        assert process.stdin is not None
        process.stdin.close()


def stopped(pid: int) -> bool:
    """Whether a process stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


def main() -> None:
    """Do as the lines say."""
    root, template = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                _child(root, template, line.split())
            except RecallError as error:
                print(error, file=sys.stderr, flush=True) if os.environ.get("FAULTING_LOUD") else None
                os._exit(error.exit_code)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _child(root: Path, template: Path, words: list[str]) -> None:
    match words:
        case ["loop", told]:
            while True:
                _publish(root, template, told)
        case ["times", count, told]:
            for _ in range(int(count)):
                _publish(root, template, told)
        case ["once"]:
            os.kill(os.getpid(), signal.SIGSTOP)
            _publish(root, template)
        case ["lock"]:
            with versions.locked(root / versions.LOCK, 10, versions.PUBLISHING):
                time.sleep(600)
        case ["small", most]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
            _publish(root, template)


def _publish(root: Path, template: Path, told: str = "") -> None:
    with versions.staging(root) as staged:
        try:
            copy(template, staged)
        except OSError as error:
            raise RecallError("the bundle cannot be written", why=str(error)) from None
        name = versions.publish(staged, root, keep=3).name
    if told:
        with open(told, "a") as file:
            file.write(name + "\n")


if __name__ == "__main__":
    main()
