"""Servers to measure, each in a separate process.

The service, and the bare application to compare with.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).absolute().parent.parent


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        port: on the loopback address.
        pid: main process.
    """

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server and its workers."""
        return sum(cpu_seconds(pid) for pid in (self.pid, *_children(self.pid)))

    def peak_mb(self) -> float:
        """Return the peak memory of the main process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@contextmanager
def service(bundle: Path, *options: str, core: int | None = None, tree: Path = SCRIPTS.parent) -> Iterator[Served]:
    """Run the service of a checkout, this one by default, over published bundles."""
    port = free_port()
    command = [sys.executable, "-m", "service", str(bundle), "--port", str(port), "--drain", "0", *options]
    with _running(command, port, "/health/ready", core, tree) as served:
        yield served


@contextmanager
def bare_application(bundle: Path, users: int, n: int, core: int | None = None) -> Iterator[Served]:
    """Run the application of `serving.bare`."""
    port = free_port()
    command = [sys.executable, "-m", "serving.bare", str(bundle), str(port), str(users), str(n)]
    with _running(command, port, None, core) as served:
        yield served


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin this process to one core during the block."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(
    command: Sequence[str], port: int, ready: str | None, core: int | None, tree: Path = SCRIPTS.parent
) -> Iterator[Served]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (tree / "scripts", tree)))}
    with pinned(core):  # a process inherits the core of its parent
        process = subprocess.Popen(command, env=environment, cwd=tree)
    try:
        deadline = time.monotonic() + 300
        while not _answers(port, ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start: {' '.join(command)}")
            time.sleep(0.1)
        yield Served(port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int, path: str | None) -> bool:
    try:
        if path is None:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
