"""A closed load: connections that each send their next request when the last was answered. What a server can do at most.

One thread and one epoll: a request takes some fifteen microseconds here, so the server is what is measured.
"""

import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Load:
    """What came of a load: answers a second, and how many had which status."""

    rate: float
    statuses: Counter[int]


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    wanted: int = 0  # bytes of the answer, head included; 0 while the head is not whole
    status: int = 0
    data: bytearray = field(default_factory=bytearray)

    def take(self) -> bool:
        """Read what has come; whether an answer is whole."""
        part = self.socket.recv(1 << 18)
        if not part:
            raise ConnectionError("the server closed a connection")
        self.data += part
        if not self.wanted:
            head = self.data.find(b"\r\n\r\n")
            if head < 0:
                return False
            place = self.data.lower().find(b"content-length: ", 0, head + 2)
            length = int(self.data[place + 16 : self.data.index(b"\r\n", place)])
            self.wanted, self.status = head + 4 + length, int(self.data[9:12])
        if len(self.data) < self.wanted:
            return False
        self.data.clear()
        self.wanted = 0
        return True


def closed_load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send requests for some seconds, in turn and over again, each connection one at a time."""
    opened: dict[int, _Connection] = {}
    poll = select.epoll()
    statuses: Counter[int] = Counter()
    try:
        for number in range(connections):
            one = socket.create_connection(("127.0.0.1", port))
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened[one.fileno()] = _Connection(one)
            poll.register(one.fileno(), select.EPOLLIN)
            one.sendall(requests[number % len(requests)])
        sent, began = connections, time.perf_counter()
        until = began + seconds
        while (now := time.perf_counter()) < until:
            for file, _ in poll.poll(until - now):
                connection = opened[file]
                if connection.take():
                    statuses[connection.status] += 1
                    connection.socket.sendall(requests[sent % len(requests)])
                    sent += 1
        took = time.perf_counter() - began
    finally:
        for connection in opened.values():
            connection.socket.close()
        poll.close()
    return Load(sum(statuses.values()) / took, statuses)
