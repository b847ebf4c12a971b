"""The real service as a subprocess, with resource limits and injected system call failures."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from serving.processes import free_port as free_port

from tests.faults import ROOT
from tests.faults.forking import Forked, parent
from tests.faults.http import Answer, ask, post, request, wait_for

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Server:
    """A running service.

    Attributes:
        port: on the loopback address.
        process: its main process.
        log: file with its output.
        started: start time, by `time.perf_counter`.
    """

    port: int
    process: "subprocess.Popen[bytes] | Forked"
    log: Path
    started: float

    def ask(self, raw: bytes, timeout: float = 30) -> Answer:
        """Send bytes on a new connection."""
        return ask(self.port, raw, timeout)

    def get(self, target: str, **headers: str) -> Answer:
        """Send a GET request."""
        return self.ask(request("GET", target, b"", **headers))

    def post(self, target: str, value: object, **headers: str) -> Answer:
        """POST a JSON value, or bytes sent as JSON."""
        return self.ask(post(target, value, **headers))

    def ready(self, seconds: float = 120) -> "Server":
        """Wait until the service is ready."""
        wait_for(self.port, "/health/ready", 200, seconds)
        return self

    def serves(self, version: str, seconds: float) -> None:
        """Wait until a version is served. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.post("/v1/recommend", {"n": 1}).json["bundle"] != version:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{version} was not served within {seconds:g} s: {self.log.read_text()[-500:]}")
            time.sleep(0.02)

    def files(self) -> int:
        """Count open file descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Return the anonymous resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024

    def cpu_seconds(self) -> float:
        """Return the CPU time used by the main process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> list[int]:
        """Return the process ids of the workers."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # the supervisor also has a helper process of multiprocessing
        return [int(one) for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]

    def kill(self) -> None:
        """Send SIGKILL and wait for the process to end."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(
    root: Path,
    log: Path,
    *options: str,
    environment: Mapping[str, str] = NOTHING,
    before: Sequence[str] = (),
    limits: Mapping[int, int] | None = None,
    port: int | None = None,
    forked: bool = False,
) -> Iterator[Server]:
    """Run `python -m service` on a root until the block ends; `before` prefixes the command, `limits` are rlimits."""
    port = port or free_port()
    arguments = [str(root), "--port", str(port), "--poll", "0.1", "--drain", "0", *options]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    started = time.perf_counter()
    process = parent().start(arguments, log, variables) if forked else _executed(arguments, log, variables, before)
    for kind, limit in (limits or {}).items():
        resource.prlimit(process.pid, kind, (limit, limit))
    try:
        yield Server(port, process, log, started)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _executed(
    arguments: Sequence[str], log: Path, variables: Mapping[str, str], before: Sequence[str]
) -> "subprocess.Popen[bytes]":
    command = [*before, sys.executable, "-m", "service", *arguments]
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=variables)


@contextmanager
def failing(pid: int, calls: str, fault: str) -> Iterator[None]:
    """Inject a fault into system calls of a running process with `strace`, until the block ends."""
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-p",
        str(pid),
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:{fault}",
    ]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while not _traced(pid):
            if tracer.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"strace did not attach: {tracer.stderr.read().decode() if tracer.stderr else ''}")
            time.sleep(0.01)
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=20)


def _traced(pid: int) -> bool:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in tasks)
