"""A closed load: each connection sends its next request after the last answer.

It measures the maximum throughput of a server.

It uses one thread and epoll: a request takes about 15 microseconds here, so the server is the bottleneck.
"""

import select
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from serving.connection import Connection


@dataclass(frozen=True)
class Load:
    """Result of a load: answers a second, and counts by status."""

    rate: float
    statuses: Counter[int]


def closed_load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send requests cyclically for some seconds, one at a time per connection."""
    opened: dict[int, Connection] = {}
    poll = select.epoll()
    statuses: Counter[int] = Counter()
    try:
        for number in range(connections):
            one = Connection(port)
            opened[one.socket.fileno()] = one
            poll.register(one.socket.fileno(), select.EPOLLIN)
            one.socket.sendall(requests[number % len(requests)])
        sent, began = connections, time.perf_counter()
        until = began + seconds
        while (now := time.perf_counter()) < until:
            for file, _ in poll.poll(until - now):
                connection = opened[file]
                status = connection.take()
                if status > 0:
                    statuses[status] += 1
                    connection.socket.sendall(requests[sent % len(requests)])
                    sent += 1
                elif status == 0:
                    raise ConnectionError("the server closed a connection")
        took = time.perf_counter() - began
    finally:
        for connection in opened.values():
            connection.socket.close()
        poll.close()
    return Load(sum(statuses.values()) / took, statuses)
