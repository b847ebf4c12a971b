"""The real service as a process, and what is done to processes: limits, signals, and system calls that fail."""

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
from tests.faults.http import Answer, ask, post, request, wait_for

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Server:
    """A service that runs.

    Attributes:
        port: on the loopback address.
        process: its first process.
        log: what it has written.
        started: when it was begun, by `time.perf_counter`.
    """

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float

    def ask(self, raw: bytes, timeout: float = 30) -> Answer:
        """Send bytes on a connection of their own."""
        return ask(self.port, raw, timeout)

    def get(self, target: str, **headers: str) -> Answer:
        """Ask for a path."""
        return self.ask(request("GET", target, **headers))

    def post(self, target: str, value: object, **headers: str) -> Answer:
        """Post JSON, or bytes that say they are."""
        return self.ask(post(target, value, **headers))

    def ready(self, seconds: float = 120) -> "Server":
        """Wait until requests are answered."""
        wait_for(self.port, "/health/ready", 200, seconds)
        return self

    def serves(self, version: str, seconds: float) -> None:
        """Wait until answers come from a version. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.post("/v1/recommend", {"n": 1}).json["bundle"] != version:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{version} was not served within {seconds:g} s: {self.log.read_text()[-500:]}")
            time.sleep(0.02)

    def files(self) -> int:
        """Files and sockets that it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory(self) -> int:
        """Bytes of memory that are its own."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024

    def cpu_seconds(self) -> float:
        """Processor time that its first process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> list[int]:
        """Its workers."""
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # a supervisor has a helper of multiprocessing beside its workers
        return [int(one) for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
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
) -> Iterator[Server]:
    """`python -m service` over a root until the block ends; `before` goes before the command, `limits` are set on it."""
    port = port or free_port()
    command = [
        *before,
        sys.executable,
        "-m",
        "service",
        str(root),
        "--port",
        str(port),
        "--poll",
        "0.1",
        "--drain",
        "0",
        *options,
    ]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    with log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=variables)
    for which, most in (limits or {}).items():
        resource.prlimit(process.pid, which, (most, most))
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


@contextmanager
def failing(pid: int, calls: str, what: str) -> Iterator[None]:
    """System calls of a running process, as `strace` names them, that end as it is told, until the block ends."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"]
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
