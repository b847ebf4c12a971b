"""A publisher process that tests may kill: `python -m tests.faults.publisher ROOT TEMPLATE`.

For each line on stdin it forks a child that runs a command; it prints the child's process id, and its exit code at the end.

    loop LOG      publish in a loop; append the name of each version to the file LOG once it is published
    times N LOG   publish N times
    once          stop until SIGCONT, then publish once
    lock          take the lock of the root and hold it
    small BYTES   publish under a file size limit (RLIMIT_FSIZE)
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

from recall._file_system import locked
from recall.bundle import versions
from recall.errors import RecallError
from tests.faults import ROOT
from tests.faults.shop import copy


class Publisher:
    """Controls a publisher process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        """Control a process that runs this module."""
        self._process = process

    def begin(self, *words: object) -> int:
        """Start a child; return its process id."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return int(self._line())

    def end(self) -> int:
        """Wait for the child; return its exit code, or the negated number of the signal that killed it."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the publisher process has ended")
        return line


@contextmanager
def publisher(root: Path, template: Path) -> Iterator[Publisher]:
    """Run a process whose children publish copies of a bundle to a root."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faults.publisher", str(root), str(template)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables) as process:
        yield Publisher(process)
        assert process.stdin is not None
        process.stdin.close()


def stopped(pid: int) -> bool:
    """Whether a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"


def main() -> None:
    """Run the commands on stdin."""
    root, template = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                _child(root, template, line.split())
            except RecallError as error:
                print(error, file=sys.stderr, flush=True) if os.environ.get("FAULTS_VERBOSE") else None
                os._exit(error.exit_code)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _child(root: Path, template: Path, words: list[str]) -> None:
    match words:
        case ["loop", log]:
            while True:
                _publish(root, template, log)
        case ["times", count, log]:
            for _ in range(int(count)):
                _publish(root, template, log)
        case ["once"]:
            os.kill(os.getpid(), signal.SIGSTOP)
            _publish(root, template)
        case ["lock"]:
            with locked(root / versions.LOCK, 10, versions.PUBLISHING):
                time.sleep(600)
        case ["small", limit]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
            _publish(root, template)


def _publish(root: Path, template: Path, log: str = "") -> None:
    with versions.staging(root) as staged:
        try:
            copy(template, staged)
        except OSError as error:
            raise RecallError("the bundle cannot be written", why=str(error)) from None
        name = versions.publish(staged, root, keep=3).name
    if log:
        with open(log, "a") as file:
            file.write(name + "\n")


if __name__ == "__main__":
    main()
