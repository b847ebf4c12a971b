"""More than can be answered, and an end under load."""

import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial

import numpy as np
from serving.closed import closed_load
from serving.processes import pinned

from tests.faults.asking import Asking
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score
from tests.faults.flood import flood
from tests.faults.http import ask, post, request
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Oracle

USERS = [str(number) for number in range(4, 150, 6)]

GRACE = 10.0
"""Seconds from SIGTERM to the end, its lame-duck time included."""


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
                with Asking(server.port, USERS) as asking:
                    time.sleep(bench.many(1, 5))
                    server.process.send_signal(signal.SIGTERM)
                    told = time.perf_counter()
                    while server.get("/health/ready").status != 503:
                        if time.perf_counter() > told + 1:
                            break
                        time.sleep(0.005)
                    seen = time.perf_counter() - told
                    score.ask(seen < 1, "ready did not turn 503 within a second")
                    time.sleep(0.5)  # whoever stands before it asks it no more
                code = server.process.wait(15)
                took = time.perf_counter() - told
            fresh = Score()
            asking.judge(fresh, oracle)
            score.lost, score.wrong, score.p50, score.p99 = (
                score.lost + fresh.lost,
                score.wrong + fresh.wrong,
                fresh.p50,
                fresh.p99,
            )
            score.missed += fresh.missed
            score.ran(
                code in (0, 143, -signal.SIGTERM) and took <= GRACE, f"{workers} workers: ended with {code} after {took:.1f} s"
            )
            score.recovered(took)
    score.notes.append(f"ended within {score.recovery:.1f} s of SIGTERM, of which 1.5 s are its lame-duck time")
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
                with meanwhile(partial(_watch, server.port, health)):
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
                p99, turned = _percentile(good, 99), _percentile(shed, 99)
                score.p50, score.p99 = _percentile(good, 50), p99
                score.recovered(back)
                name = f"{what}, {times} times {capacity:.0f} a second"
                grown = server.memory() / memory
                worst = max(health, default=float("nan"))
                most = max(2 * before, before + NOISE)
                score.notes.append(
                    f"{name}: {share:.0%} of capacity answered, p99 {p99:.1f} ms ({before:.1f} ms at half load, "
                    f"{nearly:.1f} ms at 90 %; "
                    f"{most:.1f} ms are let pass: twice that at half load, or {NOISE:g} ms more for noise), "
                    f"503 within {turned:.1f} ms (p99), right again after {1000 * back:.0f} ms, "
                    f"health within {1000 * worst:.0f} ms, memory x {grown:.2f}; "
                    f"{load.sent / load.seconds:.0f} a second were sent, "
                    f"{1000 * load.late:.0f} ms late at most, {load.unsent} not; the server had {busy:.0%} of a core"
                )
                score.ask(share >= 0.9, f"{name}: {share:.0%} of capacity was answered")
                score.ask(p99 <= most, f"{name}: p99 of the answered {p99:.1f} ms, {before:.1f} ms at half load")
                score.ask(not shed or turned <= 10, f"{name}: 503 after {turned:.1f} ms (p99)")
                score.ask(bool(shed), f"{name}: nobody was turned away")
                score.ask(back <= 1, f"{name}: back after {back:.1f} s")
                score.ask(grown < 1.5, f"{name}: memory x {grown:.2f}")
                score.ask(bool(health) and worst < 1, f"{name}: health took {worst:.2f} s")


def _percentile(seconds: list[float], share: float) -> float:
    """In milliseconds; NaN of none."""
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
        "SIGTERM while 100 requests a second come, until half a second after ready is 503; one process, and two workers",
        "ready is 503 at once; lost 0; it ends with 0 or 143 within 10 s",
        terminated,
    ),
    Case(
        24,
        "overload",
        "an open load of 5 and 10 times what is answered at most; short searches and long ones",
        "90 % of capacity is answered, p99 at most twice that at half load, or "
        f"{NOISE:g} ms more for noise; 503 within 10 ms (p99), right again within 1 s, "
        "health answers within 1 s, memory x 1.5 at most",
        overloaded,
    ),
]
