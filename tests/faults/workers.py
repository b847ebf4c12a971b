"""Workers that are killed."""

import os
import signal
import time

from tests.faults.asking import Asking
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.oracle import Oracle
from tests.faults.servers import Server

USERS = [str(number) for number in range(1, 150, 4)]


def worker_killed(bench: Bench, score: Score) -> None:
    """Case 4."""
    root, threads = bench.root(), 4
    oracle = Oracle(root)
    with bench.serve(root, "--workers", "2") as server:
        server.ready()
        _both(server, 2)
        kills = bench.many(2, 10)
        with Asking(server.port, USERS, threads=threads) as asking:
            for number in range(kills):
                time.sleep(1)
                workers = server.children()
                os.kill(workers[number % 2], signal.SIGKILL)
                killed = time.perf_counter()
                _both(server, 3 + number)
                took = time.perf_counter() - killed
                score.recovered(took)
                score.ran(took <= bench.within(3), f"a worker was back after {took:.1f} s")
            time.sleep(1)
        lost = Score()
        asking.judge(lost, oracle)
        score.wrong, score.p50, score.p99, score.notes = lost.wrong, lost.p50, lost.p99, lost.notes
        score.ask(
            lost.lost <= kills * threads, f"{lost.lost} requests were lost by {kills} kills, with at most {threads} under way"
        )
        score.notes.append(f"{lost.lost} requests were under way at a worker that was killed")
    oracle.close()


def _both(server: Server, count: int) -> None:
    """Wait until so many workers have begun to serve in all."""
    deadline = time.monotonic() + 60
    while server.log.read_text().count("serving bundle") < count:
        if time.monotonic() > deadline:
            raise TimeoutError(server.log.read_text()[-1000:])
        time.sleep(0.02)


CASES = [
    Case(
        4,
        "kill -9 of a worker under load",
        "SIGKILL to one of two workers that are asked 100 times a second",
        "only requests under way at that worker are lost; another takes its place within 3 s; wrong 0",
        worker_killed,
    ),
]
