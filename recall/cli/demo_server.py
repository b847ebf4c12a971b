"""The service as a process that a command starts, asks and stops."""

import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recall.cli import output
from recall.cli.errors import UnavailableError
from recall.cli.serve import service_command

_PATIENCE = 60.0  # seconds to start, on a machine that is busy


@dataclass(frozen=True, slots=True)
class Served:
    """A running service."""

    url: str

    def post(self, path: str, body: bytes) -> tuple[bytes, float]:
        """Send JSON; gives the answer and the seconds that it took."""
        began = time.perf_counter()
        request = urllib.request.Request(self.url + path, body, {"content-type": "application/json"})  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.read(), time.perf_counter() - began


@contextmanager
def served(bundle: Path) -> Iterator[Served]:
    """Serve a bundle on a free port of this machine until the block ends.

    Raises:
        UnavailableError: what serving needs is not installed, or the service did not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, environment = service_command(bundle, "127.0.0.1", port)
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*command, "--drain", "0"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        with output.stage(f"serve on {url}"):
            _wait(process, url)
        yield Served(url)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url + "/health/ready", timeout=5):  # noqa: S310 - http
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    process.kill()
    _, log = process.communicate()
    raise UnavailableError("the service did not start", where=url, why=(log.strip().splitlines() or ["it wrote nothing"])[-1])
