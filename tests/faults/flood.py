"""An open load that one thread can send many thousands a second of: requests leave when they are due, by epoll.

A latency counts from the moment that a request was due. Connections are opened as they are needed, up to a bound; a request
for which there is none is not sent, and counts as not sent.
"""

import random
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from serving.connection import Connection


@dataclass
class Flood:
    """What came of a load.

    Attributes:
        seconds: how long it was sent.
        sent: requests that left.
        late: seconds by which the sender itself was behind, at most.
        answered: latencies in seconds, by status; 0 where the connection was closed.
        unsent: requests for which there was no connection.
    """

    seconds: float = 0.0
    sent: int = 0
    late: float = 0.0
    answered: dict[int, list[float]] = field(default_factory=dict)
    unsent: int = 0


def flood(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, seed: int, most: int = 1500, settle: float = 0.0
) -> Flood:
    """Send requests as a Poisson process of `rate` a second, over `most` connections at most; wait for what was sent.

    What is due in the first `settle` seconds, before those that count, is sent and not told of: it opens the connections.
    """
    drawn, told = random.Random(seed), Flood()
    poll = select.epoll()
    idle = [Connection(port) for _ in range(64)]
    every = {one.socket.fileno(): one for one in idle}
    for file in every:
        poll.register(file, select.EPOLLIN)
    busy = turn = 0
    began = time.perf_counter()
    counted = began + settle
    due, until, now = began, counted + seconds, began
    while due < until or (busy and now < until + 10):
        while due <= now and due < until:
            if due >= counted:
                told.late = max(told.late, now - due)
            if not idle and len(every) < most:
                with suppress(OSError):
                    idle.append(Connection(port))
                    every[idle[-1].socket.fileno()] = idle[-1]
                    poll.register(idle[-1].socket.fileno(), select.EPOLLIN)
            one = idle.pop() if idle else None
            if one is not None:
                one.due = due
                turn += 1
                with suppress(OSError):  # it was closed, which poll tells of
                    one.socket.send(requests[turn % len(requests)])
                busy += 1
            if due >= counted:
                told.sent += one is not None
                told.unsent += one is None
            due += drawn.expovariate(rate)
            now = time.perf_counter()
        for file, _ in poll.poll(max(0.0, min(due - now, 0.01)) if due < until else 0.01):
            one = every[file]
            status = one.take()
            if status < 0:
                continue
            if status == 0:
                poll.unregister(file)
                one.socket.close()
                del every[file]
                if one in idle:
                    idle.remove(one)
                    continue
            else:
                idle.append(one)
            busy -= 1
            if one.due >= counted:
                told.answered.setdefault(status, []).append(time.perf_counter() - one.due)
        now = time.perf_counter()
    told.seconds = seconds
    if busy:
        told.answered.setdefault(0, []).extend([10.0] * busy)
    for one in every.values():
        one.socket.close()
    poll.close()
    return told
