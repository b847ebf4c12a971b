"""Users who ask all the while: at a steady rate, whether or not earlier requests were answered, and every answer is kept.

A latency counts from the moment that a request was due. A few threads share the schedule; a request for which none is free
waits for one, and that counts too.
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


class Asked(NamedTuple):
    """One request and what came of it: no answer when it was lost."""

    user: str
    due: float
    seconds: float
    answer: Answer | None
    trouble: str


class Asking:
    """Asks for `n` items for users in turn, until the block ends."""

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
        """Nothing is asked yet; `port` may be a function where servers come and go, `prefix` is that of a proxy."""
        self.asked: list[Asked] = []
        self._port = port if callable(port) else lambda: port
        self._raw = [(user, post(f"{prefix}/v1/recommend", {"user_id": user, "n": n}, **headers)) for user in users]
        self._n, self._rate = n, rate
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> "Asking":
        self._start = time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def p99(self, since: float = 0.0, until: float = float("inf"), share: float = 99) -> float:
        """Milliseconds of the requests that were due between two moments of `time.perf_counter`."""
        times = [one.seconds for one in self.asked if since <= one.due < until and one.answer is not None]
        return float(np.percentile(times, share)) * 1000 if times else float("nan")

    def usual(self, until: float) -> float:
        """Milliseconds of the p99 before a moment, without the first second: a server that has just begun is slower."""
        return self.p99(self._start + 1.0, until)

    def judge(self, score: Score, oracle: Oracle) -> None:
        """Count what was lost and what was wrong, once the block has ended."""
        for one in self.asked:
            if one.answer is None:
                score.lost += 1
                if score.lost <= 3:
                    score.missed.append(f"lost: {one.trouble}")
            elif one.answer.status != 200:
                if not one.answer.come_back:
                    score.lost += 1
                    if score.lost <= 3:
                        score.missed.append(f"lost: {one.answer.status} {one.answer.body[:200]!r}")
            elif fault := oracle.fault(one.answer.json, one.user, self._n):
                score.wrong += 1
                if score.wrong <= 3:
                    score.missed.append(f"wrong: {fault}")
        score.p50, score.p99 = self.p99(share=50), self.p99()
        score.notes.append(f"{len(self.asked):,} requests asked meanwhile")
        score.ask(bool(self.asked), "nobody asked")

    def _ask(self) -> None:
        connection: socket.socket | None = None
        while not self._stop.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            due = self._start + number / self._rate
            if self._stop.wait(max(0.0, due - time.perf_counter())):
                break
            user, raw = self._raw[number % len(self._raw)]
            answer, trouble = None, ""
            try:
                if connection is not None and select.select([connection], [], [], 0)[0]:
                    connection.close()  # it was closed while it was idle: no request was on it
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
                trouble = str(error) or type(error).__name__
                if connection is not None:
                    connection.close()
                connection = None
            self.asked.append(Asked(user, due, time.perf_counter() - due, answer, trouble))
        if connection is not None:
            connection.close()
