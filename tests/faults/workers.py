"""Crashes of worker processes."""

import os
import signal
import time

from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.oracle import Oracle
from tests.faults.servers import Server
from tests.faults.steady_load import SteadyLoad

USERS = [str(number) for number in range(1, 150, 4)]


def worker_killed(bench: Bench, score: Score) -> None:
    """Case 4."""
    root, threads = bench.root(), 4
    oracle = Oracle(root)
    with bench.serve(root, "--workers", "2") as server:
        server.ready()
        _wait_until_started(server, 2)
        kills = bench.many(2, 10)
        with SteadyLoad(server.port, USERS, threads=threads) as load:
            for number in range(kills):
                time.sleep(1)
                workers = server.children()
                os.kill(workers[number % 2], signal.SIGKILL)
                killed = time.perf_counter()
                _wait_until_started(server, 3 + number)
                took = time.perf_counter() - killed
                score.recovered(took)
                score.record(took <= bench.within(3), f"a worker was replaced after {took:.1f} s")
            time.sleep(1)
        lost = Score()
        load.check(lost, oracle)
        score.wrong, score.p50, score.p99, score.notes = lost.wrong, lost.p50, lost.p99, lost.notes
        score.require(
            lost.lost <= kills * threads, f"{lost.lost} requests lost in {kills} kills, with at most {threads} in flight each"
        )
        score.notes.append(f"{lost.lost} requests were in flight at a killed worker")
    oracle.close()


def _wait_until_started(server: Server, count: int) -> None:
    """Wait until this many workers have started to serve, restarts included."""
    deadline = time.monotonic() + 60
    while server.log.read_text().count("serving bundle") < count:
        if time.monotonic() > deadline:
            raise TimeoutError(server.log.read_text()[-1000:])
        time.sleep(0.02)


CASES = [
    Case(
        4,
        "kill -9 of a worker under load",
        "SIGKILL to one of two workers at 100 requests a second",
        "only requests in flight at that worker are lost; it is replaced within 3 s; wrong 0",
        worker_killed,
    ),
]
