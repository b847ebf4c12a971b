"""Run nginx in front of a service, with a given configuration."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.processes import SCRIPTS, free_port

GUIDE = SCRIPTS.parent / "docs" / "nginx.conf"
DEFAULTS = "events {} http { server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } } }"
"""Minimal nginx configuration: HTTP/1.0, and one connection per request."""
PREFIX = "/recall"
"""Path prefix of the configuration in the guide."""


@dataclass(frozen=True)
class Proxy:
    """A running nginx.

    Attributes:
        port: on the loopback address.
        process: its main process.
        log: its error log.
    """

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def files(self) -> int:
        """Count open descriptors of nginx and its workers."""
        pid = self.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in (pid, *workers))


@contextmanager
def nginx(folder: Path, text: str, behind: int) -> Iterator[Proxy]:
    """Run nginx until the block ends.

    Args:
        folder: for all files it writes.
        text: its configuration; port 80 is replaced by a free port, and port 8000 by `behind`.
        behind: port of the service.
    """
    port = free_port()
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("127.0.0.1:8000", f"127.0.0.1:{behind}")
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = text.replace("http {", f"http {{ access_log off;\n{paths}", 1)
    (folder / "nginx.conf").write_text(f"daemon off; pid {folder}/pid; error_log {folder}/error.log;\n{text}")
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 10).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline
        yield Proxy(port, process, folder / "error.log")
    finally:
        process.terminate()
        process.communicate(timeout=10)
