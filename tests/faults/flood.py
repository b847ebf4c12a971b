"""An open load of many thousand requests a second from one thread, by epoll.

Latency is measured from the scheduled send time. Connections are opened as needed, up to a limit; a request for which none is
free is not sent and counted as unsent.
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
    """Results of a load.

    Attributes:
        seconds: duration.
        sent: requests sent.
        late: largest delay of the sender itself, in seconds.
        answered: latencies in seconds, by status; 0 for a closed connection.
        unsent: requests for which no connection was free.
    """

    seconds: float = 0.0
    sent: int = 0
    late: float = 0.0
    answered: dict[int, list[float]] = field(default_factory=dict)
    unsent: int = 0


def flood(
    port: int,
    requests: Sequence[bytes],
    rate: float,
    seconds: float,
    seed: int,
    max_connections: int = 1500,
    settle: float = 0.0,
) -> Flood:
    """Send requests as a Poisson process of `rate` a second over at most `max_connections`, and wait for the answers.

    Requests of the first `settle` seconds open the connections and are not part of the results.
    """
    rng, results = random.Random(seed), Flood()
    poll = select.epoll()
    idle = [Connection(port) for _ in range(64)]
    connections = {one.socket.fileno(): one for one in idle}
    for file in connections:
        poll.register(file, select.EPOLLIN)
    busy = turn = 0
    began = time.perf_counter()
    counted = began + settle
    due, until, now = began, counted + seconds, began
    while due < until or (busy and now < until + 10):
        while due <= now and due < until:
            if due >= counted:
                results.late = max(results.late, now - due)
            if not idle and len(connections) < max_connections:
                with suppress(OSError):
                    idle.append(Connection(port))
                    connections[idle[-1].socket.fileno()] = idle[-1]
                    poll.register(idle[-1].socket.fileno(), select.EPOLLIN)
            one = idle.pop() if idle else None
            if one is not None:
                one.due = due
                turn += 1
                with suppress(OSError):  # closed by the server; poll reports it
                    one.socket.send(requests[turn % len(requests)])
                busy += 1
            if due >= counted:
                results.sent += one is not None
                results.unsent += one is None
            due += rng.expovariate(rate)
            now = time.perf_counter()
        for file, _ in poll.poll(max(0.0, min(due - now, 0.01)) if due < until else 0.01):
            one = connections[file]
            status = one.take()
            if status < 0:
                continue
            if status == 0:
                poll.unregister(file)
                one.socket.close()
                del connections[file]
                if one in idle:
                    idle.remove(one)
                    continue
            else:
                idle.append(one)
            busy -= 1
            if one.due >= counted:
                results.answered.setdefault(status, []).append(time.perf_counter() - one.due)
        now = time.perf_counter()
    results.seconds = seconds
    if busy:
        results.answered.setdefault(0, []).extend([10.0] * busy)
    for one in connections.values():
        one.socket.close()
    poll.close()
    return results
