"""Overload, and graceful shutdown under load."""

import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial

import numpy as np
from serving.closed import closed_load
from serving.processes import pinned

from tests.faults.background import in_background
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score
from tests.faults.flood import flood
from tests.faults.http import ask, post, request
from tests.faults.oracle import Oracle
from tests.faults.steady_load import SteadyLoad

USERS = [str(number) for number in range(4, 150, 6)]

GRACE = 10.0
"""Limit for a shutdown in seconds, lame-duck time included."""


_SETTLE = 2.0  # seconds in which a load opens its connections


def terminated(bench: Bench, score: Score) -> None:
    """Case 22."""
    root = bench.root()
    oracle = Oracle(root)
    for workers in ("1", "2"):
        for _ in range(bench.many(1, 5)):
            with bench.serve(root, "--drain", "1.5", "--workers", workers) as server:
                server.ready()
                time.sleep(1)
                with SteadyLoad(server.port, USERS) as load:
                    time.sleep(bench.many(1, 5))
                    server.process.send_signal(signal.SIGTERM)
                    signalled = time.perf_counter()
                    while server.get("/health/ready").status != 503:
                        if time.perf_counter() > signalled + 1:
                            break
                        time.sleep(0.005)
                    seen = time.perf_counter() - signalled
                    score.require(seen < 1, "ready did not turn 503 within a second")
                    time.sleep(0.5)  # a load balancer now stops sending requests
                code = server.process.wait(15)
                took = time.perf_counter() - signalled
            fresh = Score()
            load.check(fresh, oracle)
            score.lost, score.wrong, score.p50, score.p99 = (
                score.lost + fresh.lost,
                score.wrong + fresh.wrong,
                fresh.p50,
                fresh.p99,
            )
            score.unmet += fresh.unmet
            score.record(
                code in (0, 143, -signal.SIGTERM) and took <= GRACE, f"{workers} workers: exit code {code} after {took:.1f} s"
            )
            score.recovered(took)
    score.notes.append(f"exited within {score.recovery:.1f} s of SIGTERM, 1.5 s of lame-duck time included")
    oracle.close()


def overloaded(bench: Bench, score: Score) -> None:
    """Case 24."""
    root = bench.root()
    seconds = bench.many(4, 60)
    kinds = {
        "short searches": [post("/v1/recommend", {"user_id": user, "n": 1000}) for user in USERS],
        "long searches": [
            post("/v1/recommend", {"user_id": user, "n": 500, "rules": [{"kind": "diversify", "relevance": 0.5, "pool": 1000}]})
            for user in USERS
        ],
    }
    server_core, sender_core = 0, max(os.sched_getaffinity(0))
    for what, raws in kinds.items():
        with pinned(server_core), bench.serve(root) as server, pinned(sender_core):
            server.ready()
            closed_load(server.port, raws, 4, 1)
            capacity = closed_load(server.port, raws, 4, min(seconds, 5)).rate
            before, nearly = (
                _percentile(flood(server.port, raws, share * capacity, min(seconds, 10), 1).answered.get(200, []), 99)
                for share in (0.5, 0.9)
            )
            memory = server.memory()
            health: list[float] = []
            for times in (5,) if bench.quick else (5, 10):
                with in_background(partial(_watch, server.port, health)):
                    used = server.cpu_seconds()
                    load = flood(server.port, raws, times * capacity, seconds, 2, settle=_SETTLE)
                    busy = (server.cpu_seconds() - used) / (seconds + _SETTLE)
                    recovered = time.perf_counter()
                    while ask(server.port, raws[0]).status != 200 and time.perf_counter() < recovered + 10:
                        time.sleep(0.005)
                    back = time.perf_counter() - recovered
                good, shed = load.answered.get(200, []), load.answered.get(503, [])
                score.runs += load.sent
                score.lost += sum(len(of) for status, of in load.answered.items() if status not in (200, 503))
                share = len(good) / load.seconds / capacity
                p99, rejected = _percentile(good, 99), _percentile(shed, 99)
                score.p50, score.p99 = _percentile(good, 50), p99
                score.recovered(back)
                name = f"{what}, {times} times the capacity of {capacity:.0f} a second"
                grown = server.memory() / memory
                worst = max(health, default=float("nan"))
                most = max(2 * before, before + NOISE)
                score.notes.append(
                    f"{name}: {share:.0%} of capacity answered, p99 {p99:.1f} ms ({before:.1f} ms at half load, "
                    f"{nearly:.1f} ms at 90 %; "
                    f"limit {most:.1f} ms: twice that at half load, or {NOISE:g} ms more), "
                    f"503 within {rejected:.1f} ms (p99), recovered after {1000 * back:.0f} ms, "
                    f"health answers within {1000 * worst:.0f} ms, memory {grown:.2f} times the baseline; "
                    f"{load.sent / load.seconds:.0f} requests a second were sent, at most {1000 * load.late:.0f} ms late, "
                    f"{load.unsent} not sent; the server used {busy:.0%} of a core"
                )
                score.require(share >= 0.9, f"{name}: {share:.0%} of capacity was answered")
                score.require(p99 <= most, f"{name}: p99 of answered requests {p99:.1f} ms, {before:.1f} ms at half load")
                score.require(not shed or rejected <= 10, f"{name}: 503 after {rejected:.1f} ms (p99)")
                score.require(bool(shed), f"{name}: no request was rejected")
                score.require(back <= 1, f"{name}: recovered after {back:.1f} s")
                score.require(grown < 1.5, f"{name}: memory {grown:.2f} times the baseline")
                score.require(bool(health) and worst < 1, f"{name}: a health check took {worst:.2f} s")


def _percentile(seconds: list[float], share: float) -> float:
    """Return a percentile in milliseconds; NaN if the list is empty."""
    return float(np.percentile(seconds, share)) * 1000 if seconds else float("nan")


def _watch(port: int, seconds: list[float], stop: threading.Event) -> None:
    while not stop.wait(0.1):
        began = time.perf_counter()
        with suppress(OSError):
            if ask(port, request("GET", "/health/live")).status == 200:
                seconds.append(time.perf_counter() - began)
                continue
        seconds.append(float("inf"))


CASES = [
    Case(
        22,
        "SIGTERM under load",
        "SIGTERM at 100 requests a second, which end half a second after readiness turns 503; one process, and two workers",
        "readiness turns 503 within a second; lost 0; exit code 0 or 143 within 10 s",
        terminated,
    ),
    Case(
        24,
        "overload",
        "an open load of 5 and 10 times the capacity; short and long searches",
        "throughput stays at 90 % of capacity, p99 at most twice that at half load, or "
        f"{NOISE:g} ms more; the rest is rejected with 503 within 10 ms (p99); recovery within 1 s, "
        "health checks within 1 s, memory at most 1.5 times the baseline",
        overloaded,
    ),
]
