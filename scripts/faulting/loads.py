"""Too many, too slow, and those who go away."""

import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress

import numpy as np
from serving.closed import closed_load
from serving.processes import pinned

from faulting.asking import Asking
from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.flood import flood
from faulting.http import ask, post, receive, request
from faulting.oracle import Oracle
from faulting.servers import Server

USERS = [str(number) for number in range(4, 150, 6)]


def slow_clients(bench: Bench, score: Score) -> None:
    """Case 21."""
    root, count = bench.root(), bench.many(120, 500)
    oracle = Oracle(root)
    head = b"POST /v1/recommend HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
    with bench.serve(root, "--patience", "2") as server, ExitStack() as stack:
        server.ready()
        server.get("/health/live")
        with Asking(server.port, USERS) as asking:
            time.sleep(bench.many(3, 30))
            files, began = server.files(), time.perf_counter()
            slow = []
            for number in range(count):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                kind = number % 4
                if kind == 0:
                    one.sendall(head[: len(head) // 2])
                elif kind == 1:
                    one.sendall(head + b"content-length: 100\r\n\r\n{")
                elif kind == 2:
                    one.setblocking(False)
                    with suppress(OSError):
                        one.send(post("/v1/recommend", {"n": 1000}) * 8)  # and never reads
                slow.append((kind, one))
            time.sleep(0.5)  # until all are taken
            most = server.files()
            score.ask(most - files >= count // 2, f"only {most - files} files more are open with {count} slow clients")
            until = time.perf_counter() + (20 if bench.quick else 60)
            while server.files() > files + 4 and time.perf_counter() < until:
                for kind, one in slow:
                    if kind == 1:
                        with suppress(OSError):
                            one.send(b" ")  # a byte of the body now and then
                time.sleep(1)
            ended = time.perf_counter()
            left = server.files() - files
        base, during = asking.p99(until=began), asking.p99(began, ended)
        asking.judge(score, oracle)
        score.p99 = during
        score.runs = count
        score.recovered(ended - began)
        score.ask(left <= 4, f"{left} of {most - files} files are open after {ended - began:.0f} s")
        # a single pause of the machine is a hundredth of what a few seconds hold
        score.ask(bench.quick or during <= max(1.2 * base, base + 5), f"others' p99 is {during:.1f} ms, {base:.1f} ms before")
        score.notes.append(
            f"{count} slow clients were gone after {ended - began:.1f} s, 2 s are set; "
            f"others' p99 {base:.1f} ms before, {during:.1f} ms meanwhile"
        )
    oracle.close()


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
                code in (0, 143, -signal.SIGTERM) and took <= 12, f"{workers} workers: ended with {code} after {took:.1f} s"
            )
            score.recovered(took)
    score.notes.append(f"ended within {score.recovery:.1f} s of SIGTERM, of which 1.5 s are its lame-duck time")
    oracle.close()


def gone_and_late(bench: Bench, score: Score) -> None:
    """Case 23."""
    root = bench.root()
    heavy = post("/v1/recommend", {"user_id": "4", "n": 1000, "rules": [{"kind": "diversify", "relevance": 0.5, "pool": 2000}]})
    with bench.serve(root) as server:
        server.ready()
        answer = server.ask(heavy)
        score.ask(answer.status == 200, f"the heavy request: {answer.status} {answer.body[:200]!r}")
        began = time.perf_counter()
        for _ in range(5):
            server.ask(heavy)
        each = (time.perf_counter() - began) / 5
        before, gone_before = _searches(server), _shed(server, "gone")
        count = bench.many(120, 600)
        staying = []
        with ExitStack() as stack:
            for number in range(count):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
                one.sendall(heavy)
                if number % 2:
                    threading.Timer(0.005, one.close).start()
                else:
                    staying.append(one)
                time.sleep(each / 4)
            statuses = Counter(receive(one).status for one in staying)
        time.sleep(0.5)
        searched, gone = _searches(server) - before, _shed(server, "gone") - gone_before
        wasted = max(0, searched - statuses[200])
        score.runs = count
        score.ask(set(statuses) <= {200, 503}, f"those who stayed were answered {dict(statuses)}")
        score.notes.append(
            f"{count} requests of {1000 * each:.0f} ms, four times as many as one core can answer, half gone after 5 ms: "
            f"{statuses[200]} answered, "
            f"{searched} searched, {gone} dropped because nobody waited; {wasted} searched for nobody"
        )
        score.ask(gone > 0, "no search was dropped for a client that had gone")
        # one that has begun when its client goes is not stopped
        score.ask(wasted <= max(0.05 * count, 8), f"{wasted} searches of {count} requests were for nobody")
        late = Counter[int]()
        stop = threading.Event()
        busy = [threading.Thread(target=_keep_busy, args=(server.port, heavy, stop)) for _ in range(6)]
        for thread in busy:
            thread.start()
        time.sleep(0.2)
        slow = heavy.replace(b"\r\n\r\n", b"\r\nx-request-timeout-ms: 1\r\n\r\n", 1)
        for _ in range(bench.many(30, 300)):
            late[server.ask(slow).status] += 1
        stop.set()
        for thread in busy:
            thread.join()
        score.ran(set(late) <= {504, 503, 200} and late[504] > 0, f"a deadline of 1 ms: {dict(late)}")
        score.notes.append(f"a deadline of 1 ms behind others: {dict(late)}")
        score.ran(_shed(server, "late") >= late[504], "the counter of late requests is wrong")
        for value in ("0", "-1", "x", "1e9", ""):
            answer = server.ask(post("/v1/recommend", {}, x_request_timeout_ms=value))
            score.ran(
                answer.status in (200, 422, 400, 504) and (answer.status == 200 or answer.problem),
                f"timeout {value!r}: {answer.status}",
            )


def _keep_busy(port: int, raw: bytes, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(OSError):
            ask(port, raw)


def _searches(server: Server) -> int:
    return _metric(server, r'^recall_stage_duration_seconds_count\{stage="search"\} (\S+)')


def _shed(server: Server, reason: str) -> int:
    return _metric(server, rf'^recall_shed_total\{{reason="{reason}"\}} (\S+)')


def _metric(server: Server, pattern: str) -> int:
    found = re.search(pattern, server.get("/metrics").body.decode(), re.MULTILINE)
    if found is None:
        raise LookupError(pattern)
    return int(float(found[1]))


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
            usual = flood(server.port, raws, capacity / 2, min(seconds, 10), 1).answered.get(200, [])
            before = float(np.percentile(usual, 99)) * 1000
            memory = server.memory()
            health: list[float] = []
            stop = threading.Event()
            for times in (5,) if bench.quick else (5, 10):
                stop.clear()
                watching = threading.Thread(target=_watch, args=(server.port, stop, health))
                watching.start()
                used = server.cpu_seconds()
                load = flood(server.port, raws, times * capacity, seconds, 2)
                busy = (server.cpu_seconds() - used) / seconds
                recovered = time.perf_counter()
                while ask(server.port, raws[0]).status != 200 and time.perf_counter() < recovered + 10:
                    time.sleep(0.005)
                back = time.perf_counter() - recovered
                stop.set()
                watching.join()
                good, shed = load.answered.get(200, []), load.answered.get(503, [])
                score.runs += load.sent
                score.lost += sum(len(of) for status, of in load.answered.items() if status not in (200, 503))
                share = len(good) / load.seconds / capacity
                p99 = float(np.percentile(good, 99)) * 1000 if good else float("nan")
                turned = float(np.percentile(shed, 99)) * 1000 if shed else float("nan")
                score.p50, score.p99 = float(np.percentile(good, 50)) * 1000 if good else float("nan"), p99
                score.recovered(back)
                name = f"{what}, {times} times {capacity:.0f} a second"
                grown = server.memory() / memory
                worst = max(health, default=float("nan"))
                score.notes.append(
                    f"{name}: {share:.0%} of capacity answered, p99 {p99:.0f} ms ({before:.0f} ms at half load), "
                    f"503 within {turned:.0f} ms (p99), "
                    f"health within {1000 * worst:.0f} ms, memory x {grown:.2f}; "
                    f"{load.sent / load.seconds:.0f} a second were sent, "
                    f"{1000 * load.late:.0f} ms late at most, {load.unsent} not; the server had {busy:.0%} of a core"
                )
                score.ask(share >= 0.9, f"{name}: {share:.0%} of capacity was answered")
                score.ask(
                    p99 <= max(2 * before, 100), f"{name}: p99 of the answered {p99:.0f} ms, {before:.0f} ms at half load"
                )
                score.ask(not shed or turned <= 10, f"{name}: 503 after {turned:.1f} ms (p99)")
                score.ask(bool(shed), f"{name}: nobody was turned away")
                score.ask(back <= 1, f"{name}: back after {back:.1f} s")
                score.ask(grown < 1.5, f"{name}: memory x {grown:.2f}")
                score.ask(bool(health) and worst < 1, f"{name}: health took {worst:.2f} s")


def _watch(port: int, stop: threading.Event, seconds: list[float]) -> None:
    while not stop.wait(0.1):
        began = time.perf_counter()
        with suppress(OSError):
            if ask(port, request("GET", "/health/live")).status == 200:
                seconds.append(time.perf_counter() - began)
                continue
        seconds.append(float("inf"))


CASES = [
    Case(
        21,
        "clients that are slow",
        "connections that stop in the head, send a body byte by byte, never read, or say nothing",
        "they are closed, as many files open as before within 60 s; others lose nothing, p99 is 1.2 times or 5 ms more at most",
        slow_clients,
    ),
    Case(
        22,
        "SIGTERM under load",
        "SIGTERM while 100 requests a second come, until half a second after ready is 503; one process, and two workers",
        "ready is 503 at once; lost 0; it ends with 0 or 143 within its grace",
        terminated,
    ),
    Case(
        23,
        "clients that go, and deadlines that pass",
        "half of the clients close after 5 ms, under more load than can be answered; deadlines of 1 ms",
        "what nobody waits for is not searched, but for what had begun; 504 for what is late; counters agree",
        gone_and_late,
    ),
    Case(
        24,
        "overload",
        "an open load of 5 and 10 times what is answered at most; short searches and long ones",
        "90 % of capacity is answered, p99 at most twice that at half load or 100 ms, 503 within 10 ms, right again within 1 s",
        overloaded,
    ),
]
