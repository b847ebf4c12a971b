"""Run nginx before a service, as the deployment guide has it or otherwise."""

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
"""nginx that knows only where the service is: HTTP/1.0, and one connection for each request."""
PREFIX = "/recall"
"""Path below which the guide's configuration serves."""


@dataclass(frozen=True)
class Proxy:
    """An nginx that runs.

    Attributes:
        port: on the loopback address.
        process: its first process.
        log: its log of errors.
    """

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def files(self) -> int:
        """Files and sockets that it and its workers have open."""
        pid = self.process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in (pid, *workers))


@contextmanager
def nginx(folder: Path, text: str, behind: int) -> Iterator[Proxy]:
    """Run nginx until the block ends.

    Args:
        folder: for everything that it writes.
        text: its configuration; it listens on a free port instead of port 80, and passes on to `behind` instead of port 8000.
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
