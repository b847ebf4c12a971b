"""An open load at a constant rate, sent while a fault is injected; every response is recorded and checked.

Latency is measured from the scheduled send time. A few threads share the schedule; the time that a request waits for a free
thread counts as latency.
"""

import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np

from tests.faults.case import Score
from tests.faults.http import Answer, post, receive
from tests.faults.oracle import Oracle


class Outcome(NamedTuple):
    """A request and its outcome; `answer` is None if the request was lost."""

    user: str
    due: float
    seconds: float
    answer: Answer | None
    error: str


class SteadyLoad:
    """Requests `n` items for each user in turn, at a constant rate, until the block ends."""

    def __init__(
        self,
        port: Callable[[], int] | int,
        users: Sequence[str],
        rate: float = 100,
        n: int = 20,
        threads: int = 4,
        prefix: str = "",
        **headers: str,
    ) -> None:
        """Prepare the requests; `port` may be a function if servers are restarted, `prefix` is the path prefix of a proxy."""
        self.outcomes: list[Outcome] = []
        self._port = port if callable(port) else lambda: port
        self._raw = [(user, post(f"{prefix}/v1/recommend", {"user_id": user, "n": n}, **headers)) for user in users]
        self._n, self._rate = n, rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(threads)]

    def __enter__(self) -> "SteadyLoad":
        self._start = time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def p99(self, since: float = 0.0, until: float = float("inf"), percentile: float = 99) -> float:
        """Return a latency percentile, in milliseconds, of requests scheduled between two values of `time.perf_counter`."""
        times = [one.seconds for one in self.outcomes if since <= one.due < until and one.answer is not None]
        return float(np.percentile(times, percentile)) * 1000 if times else float("nan")

    def baseline_p99(self, until: float) -> float:
        """Return the p99 up to a time, without the first second, in which a freshly started server is slower."""
        return self.p99(self._start + 1.0, until)

    def check(self, score: Score, oracle: Oracle) -> None:
        """Count lost requests and wrong answers after the block has ended."""
        for one in self.outcomes:
            if one.answer is None:
                score.lost += 1
                if score.lost <= 3:
                    score.unmet.append(f"lost: {one.error}")
            elif one.answer.status != 200:
                if not one.answer.retry_later:
                    score.lost += 1
                    if score.lost <= 3:
                        score.unmet.append(f"lost: {one.answer.status} {one.answer.body[:200]!r}")
            elif fault := oracle.fault(one.answer.json, one.user, self._n):
                score.wrong += 1
                if score.wrong <= 3:
                    score.unmet.append(f"wrong: {fault}")
        score.p50, score.p99 = self.p99(percentile=50), self.p99()
        score.notes.append(f"{len(self.outcomes):,} requests sent during the case")
        score.require(bool(self.outcomes), "no request was sent")

    def _send(self) -> None:
        connection: socket.socket | None = None
        while not self._stop.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            due = self._start + number / self._rate
            if self._stop.wait(max(0.0, due - time.perf_counter())):
                break
            user, raw = self._raw[number % len(self._raw)]
            answer, failure = None, ""
            try:
                if connection is not None and select.select([connection], [], [], 0)[0]:
                    connection.close()  # closed by the server while idle, so no request is lost
                    connection = None
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", self._port()), 30)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(raw)
                answer = receive(connection)
                if answer.headers.get("connection") == "close":
                    connection.close()
                    connection = None
            except OSError as error:
                failure = str(error) or type(error).__name__
                if connection is not None:
                    connection.close()
                connection = None
            self.outcomes.append(Outcome(user, due, time.perf_counter() - due, answer, failure))
        if connection is not None:
            connection.close()
