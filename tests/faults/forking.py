"""Start services by forking a process that has imported all they need: a tenth of the CPU time of a new interpreter."""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Forked:
    """A forked service, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, parent: "Parent") -> None:
        self.pid, self._parent = pid, parent
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self._code is None:
            self._code = self._parent.ask({"code of": self.pid})
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("service", timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Parent:
    """The process that forks them."""

    def __init__(self) -> None:
        own, other = socket.socketpair()
        command = [sys.executable, "-c", f"from tests.faults.forking import fork_services; fork_services({other.fileno()})"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with other:
            self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[other.fileno()], env=environment)
        self._socket, self._lines = own, own.makefile("rw", encoding="utf-8")
        self._lock = threading.Lock()
        atexit.register(self._close)

    def ask(self, message: Mapping[str, object]) -> int | None:
        """Send a message, and return the answer to it."""
        with self._lock:
            print(json.dumps(message), file=self._lines, flush=True)
            answer: int | None = json.loads(self._lines.readline())
            return answer

    def start(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> Forked:
        """Start `python -m service` with these arguments; its output is added to a file."""
        pid = self.ask({"arguments": list(arguments), "log": str(log), "environment": dict(environment)})
        assert pid is not None
        return Forked(pid, self)

    def _close(self) -> None:
        self._lines.close()
        self._socket.close()
        self._process.wait(10)


@cache
def parent() -> Parent:
    """Return the process of this one that forks services."""
    return Parent()


def fork_services(descriptor: int) -> None:
    """Import a service, fork the processes that a socket requests, and return exit codes."""
    import faiss  # noqa: F401

    from service.__main__ import main

    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            message = json.loads(line)
            if "code of" in message:
                pid, status = os.waitpid(message["code of"], os.WNOHANG)
                answer = os.waitstatus_to_exitcode(status) if pid else None
            elif answer := os.fork():
                pass
            else:
                break
            print(json.dumps(answer), file=lines, flush=True)
        else:
            return
    output, nothing = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for one in (output, nothing):
        os.close(one)
    os.environ.clear()
    os.environ.update(message["environment"])
    main(message["arguments"])
