"""Requests and answers as bytes on a socket: exactly what is written here is sent."""

import socket
import time
from dataclasses import dataclass
from typing import Any

import orjson

JSON = "application/json"
_BLANK = b"\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's value."""
        return orjson.loads(self.body)

    @property
    def problem(self) -> bool:
        """Whether it is a problem document that says of itself what the status line says."""
        if self.headers.get("content-type") != "application/problem+json":
            return False
        document = self.json
        return bool(document["status"] == self.status and document["type"].startswith("urn:") and document["detail"])

    @property
    def pointers(self) -> list[str]:
        """What a problem document says was wrong, as JSON pointers."""
        return [entry["pointer"] for entry in self.json["errors"]]

    @property
    def come_back(self) -> bool:
        """Whether it is a 503 that says when to come back."""
        return self.status == 503 and "retry-after" in self.headers


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """A request; headers may have underscores for their dashes."""
    lines = [f"{method} {target} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post(target: str, value: object, **headers: str) -> bytes:
    """A POST of JSON, or of bytes that say they are."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return request("POST", target, body, **{"content-type": JSON, **headers})


def receive(connection: socket.socket) -> Answer:
    """One answer, and no byte of the next. Raises ConnectionError when the server closes before it is whole."""
    head = b""
    while not head.endswith(_BLANK):
        seen = connection.recv(65536, socket.MSG_PEEK)
        end = (head + seen).find(_BLANK)
        head += _more(connection, len(seen) if end < 0 else end + len(_BLANK) - len(head))
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    length = int(headers.get("content-length", 0))  # an answer 304 has none
    parts = []
    while length > 0:
        parts.append(_more(connection, length))
        length -= len(parts[-1])
    return Answer(int(first.split()[1]), headers, b"".join(parts))


def _more(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most or 1)
    if not data:
        raise ConnectionError("closed before the whole answer came")
    return data


def ask(port: int, raw: bytes, timeout: float = 30) -> Answer:
    """Send bytes on a connection of their own. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(raw)
        return receive(connection)


def wait_for(port: int, path: str, status: int, seconds: float) -> Answer:
    """Ask until the answer has that status. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    last = "no answer"
    while time.monotonic() < deadline:
        try:
            answer = ask(port, request("GET", path), 5)
        except OSError as error:
            last = str(error)
        else:
            if answer.status == status:
                return answer
            last = f"{answer.status} {answer.body[:300]!r}"
        time.sleep(0.01)
    raise TimeoutError(f"{path} did not answer {status} within {seconds:g} s: {last}")
