"""The real server as a subprocess, and a client that sends raw bytes."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.faults import servers
from tests.faults.forking import Forked
from tests.faults.http import Answer, receive, request
from tests.faults.servers import free_port

__all__ = ["Answer", "Server", "both_ready", "children", "free_port", "receive", "request", "serving", "workers_of"]


@dataclass(frozen=True)
class Server:
    port: int
    process: subprocess.Popen | Forked
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def send(self, raw: bytes) -> Answer:
        with self.connect() as connection:
            connection.sendall(raw)
            return receive(connection)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        return self.send(request(method, path, body, **headers))

    def post(self, value: object, **headers: str) -> Answer:
        body = value if isinstance(value, bytes) else orjson.dumps(value)
        return self.ask("POST", "/v1/recommend", body, **{"content-type": "application/json", **headers})

    def wait(self, path: str = "/health/ready", status: int = 200, seconds: float = 120) -> Answer:
        """Repeat a GET until the answer has that status."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                answer = self.ask("GET", path)
            except ConnectionRefusedError:
                pass
            else:
                if answer.status == status:
                    return answer
            time.sleep(0.05)
        raise AssertionError(f"{path} did not answer {status}; log:\n{self.log.read_text()}")


@contextmanager
def serving(
    bundle: Path,
    log: Path,
    *options: str,
    environment: Mapping[str, str] = servers.NOTHING,
    before: Sequence[str] = (),
    forked: bool = True,
) -> Iterator[Server]:
    """Run `python -m service` on `bundle` until the block ends, with its log in `log` and the command prefix `before`.

    It is forked unless this makes a difference: if it starts workers, or if libraries read the environment when they are
    imported, it is a new process.
    """
    log.unlink(missing_ok=True)
    forked = forked and not before and "--workers" not in options and all(name.startswith("RECALL_") for name in environment)
    with servers.serving(bundle, log, *options, environment=environment, before=before, forked=forked) as begun:
        server = Server(begun.port, begun.process, log)
        server.wait("/health/live")
        yield server


def both_ready(server: Server, seconds: float = 30) -> list[int]:
    """Wait until each worker serves; return their process ids."""
    server.wait()
    deadline = time.monotonic() + seconds
    while server.log.read_text().count("serving bundle") < 2:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    return children(server)


def workers_of(pid: int) -> list[int]:
    """Process ids of a supervisor's workers, without the helper process of multiprocessing."""
    found = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return sorted(int(line.split()[0]) for line in found.splitlines() if "spawn_main" in line)


def children(server: Server) -> list[int]:
    return workers_of(server.process.pid)


Reach = Callable[[Server, int], socket.socket]
"""Returns a connection that a worker has accepted."""
