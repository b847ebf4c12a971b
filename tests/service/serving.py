"""The real server as a subprocess, and a client that sends bytes exactly as they are given."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return orjson.loads(self.body)

    @property
    def pointers(self) -> list[str]:
        return [entry["pointer"] for entry in self.json["errors"]]


@dataclass(frozen=True)
class Server:
    port: int
    process: subprocess.Popen
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

    def wait(self, path: str = "/health/ready", status: int = 200, seconds: float = 30) -> Answer:
        """Ask until the answer has that status."""
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


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def receive(connection: socket.socket) -> Answer:
    """Read one answer and no byte of the next. Raises ConnectionError when the server closes before it is whole."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += _more(connection, 1)
    first, *lines = data.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = b""
    length = int(headers.get("content-length", 0))  # an answer 304 has none
    while len(body) < length:
        body += _more(connection, length - len(body))
    return Answer(int(first.split()[1]), headers, body)


def _more(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most)
    if not data:
        raise ConnectionError("closed before the whole answer came")
    return data


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(
    bundle: Path, log: Path, *options: str, environment: Mapping[str, str] = NOTHING, within: Sequence[str] = ()
) -> Iterator[Server]:
    """`python -m service` over `bundle`, until the block ends; its log goes to the file `log`.

    `within` is a command that becomes the one that is given to it.
    """
    port = free_port()
    command = [
        *within,
        sys.executable,
        "-m",
        "service",
        str(bundle),
        "--port",
        str(port),
        "--poll",
        "0.1",
        "--drain",
        "0",
        *options,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2], env={**os.environ, **environment}
        )
    server = Server(port, process, log)
    try:
        server.wait("/health/live")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
