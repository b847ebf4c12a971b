"""A minimal HTTP client that sends exactly the bytes it is given."""

import socket
import time
from dataclasses import dataclass
from typing import Any

import orjson

JSON = "application/json"
_BLANK = b"\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body parsed as JSON."""
        return orjson.loads(self.body)

    @property
    def problem(self) -> bool:
        """Whether the body is a problem document whose status matches the status line."""
        if self.headers.get("content-type") != "application/problem+json":
            return False
        document = self.json
        return bool(document["status"] == self.status and document["type"].startswith("urn:") and document["detail"])

    @property
    def pointers(self) -> list[str]:
        """The JSON pointers of the errors in a problem document."""
        return [entry["pointer"] for entry in self.json["errors"]]

    @property
    def retry_later(self) -> bool:
        """Whether the status is 503 with Retry-After."""
        return self.status == 503 and "retry-after" in self.headers


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """Build a request; underscores in header names become dashes."""
    lines = [f"{method} {target} HTTP/1.1", "host: localhost", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def post(target: str, value: object, **headers: str) -> bytes:
    """Build a POST of a JSON value, or of bytes sent as JSON."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return request("POST", target, body, **{"content-type": JSON, **headers})


def receive(connection: socket.socket) -> Answer:
    """Read one response and not a byte more. Raises ConnectionError if the server closes before it is complete."""
    head = b""
    while not head.endswith(_BLANK):
        seen = connection.recv(65536, socket.MSG_PEEK)
        end = (head + seen).find(_BLANK)
        head += _more(connection, len(seen) if end < 0 else end + len(_BLANK) - len(head))
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    length = int(headers.get("content-length", 0))  # a 304 does not have one
    parts = []
    while length > 0:
        parts.append(_more(connection, length))
        length -= len(parts[-1])
    return Answer(int(first.split()[1]), headers, b"".join(parts))


def _more(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most or 1)
    if not data:
        raise ConnectionError("the connection was closed before the response was complete")
    return data


def ask(port: int, raw: bytes, timeout: float = 30) -> Answer:
    """Send bytes on a new connection. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(raw)
        return receive(connection)


def wait_for(port: int, path: str, status: int, seconds: float) -> Answer:
    """Poll a path until it returns a status. Raises TimeoutError."""
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
