"""Slow clients, disconnected clients, and expired deadlines."""

import re
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial

from serving.nginx import GUIDE, PREFIX, nginx

from tests.faults.background import in_background
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score
from tests.faults.http import ask, post, receive
from tests.faults.oracle import Oracle
from tests.faults.servers import Server
from tests.faults.steady_load import SteadyLoad

_BODY = 40  # bytes of a body that is sent one at a time
_UPSTREAM = 64  # idle upstream connections in docs/nginx.conf
USERS = [str(number) for number in range(4, 150, 6)]


def slow_clients(bench: Bench, score: Score) -> None:
    """Case 21."""
    root, count, patience = bench.root(), bench.many(120, 500), bench.many(3, 10)
    oracle = Oracle(root)
    head = f"POST {PREFIX}/v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
    text = GUIDE.read_text(encoding="utf-8").replace("timeout 10s", f"timeout {patience}s")
    front = bench.place("nginx")
    front.mkdir()
    with (
        bench.serve(root, "--patience", str(patience), "--root-path", PREFIX) as server,
        nginx(front, text, server.port) as proxy,
        ExitStack() as stack,
    ):
        server.ready()
        with SteadyLoad(proxy.port, USERS, prefix=PREFIX) as load:
            time.sleep(bench.many(3, 30))
            inside, files, began = server.files(), proxy.files(), time.perf_counter()
            slow = []
            for number in range(count):
                time.sleep(0.01)  # connecting all at once would be overload, which is case 24
                one = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 10))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                kind = number % 4
                if kind == 0:
                    one.sendall(head[: len(head) // 2])
                elif kind == 1:
                    one.sendall(head + b"content-length: %d\r\n\r\n{" % _BODY)
                elif kind == 2:
                    one.setblocking(False)
                    with suppress(OSError):
                        one.send(post(f"{PREFIX}/v1/recommend", {"n": 1000}) * 8)  # and never read
                slow.append((kind, one))
            opened = time.perf_counter()
            time.sleep(0.5)  # until all are accepted
            most, most_inside = proxy.files(), server.files()
            score.require(
                most - files >= count // 2, f"only {most - files} more descriptors are open with {count} slow clients"
            )
            sent, until = 1, time.perf_counter() + 60
            while proxy.files() > files + 8 and time.perf_counter() < until:
                sent += 1
                for kind, one in slow:
                    if kind == 1 and sent <= _BODY:
                        with suppress(OSError):
                            one.send(b" ")  # one byte of the body a second
                time.sleep(1)
                most_inside = max(most_inside, server.files())
            ended = time.perf_counter()
            left = proxy.files() - files
        base, during = load.baseline_p99(began), load.p99(began, ended)
        load.check(score, oracle)
        score.p99 = during
        score.runs = count
        score.recovered(ended - opened)
        score.require(left <= 8, f"{left} of {most - files} descriptors are still open after {ended - opened:.0f} s")
        limit = max(_UPSTREAM, count // 4)  # the slow bodies complete in the same second, and are then forwarded
        score.require(most_inside - inside <= limit, f"{most_inside - inside} more descriptors were open in the service")
        most_ms = bench.slower(base, 1.2)
        score.require(during <= most_ms, f"p99 of other requests is {during:.1f} ms, was {base:.1f} ms")
        score.notes.append(
            f"{count} slow clients were disconnected after {ended - opened:.1f} s; a timeout of {patience} s is configured; "
            f"{left:+} descriptors in nginx afterwards (limit +8, for the other clients); "
            f"at most {most_inside - inside:+} in the service (limit {limit}); "
            f"p99 of other requests {base:.1f} ms before, {during:.1f} ms during the fault; limit {most_ms:.1f} ms, "
            f"1.2 times the baseline or {NOISE:g} ms more (1 s more with --quick)"
        )
    oracle.close()


def disconnects_and_deadlines(bench: Bench, score: Score) -> None:
    """Case 23."""
    root = bench.root()
    heavy = post("/v1/recommend", {"user_id": "4", "n": 1000, "rules": [{"kind": "diversify", "relevance": 0.5, "pool": 2000}]})
    with bench.serve(root) as server:
        server.ready()
        answer = server.ask(heavy)
        score.require(answer.status == 200, f"the slow request: {answer.status} {answer.body[:200]!r}")
        times = []
        for _ in range(7):
            began = time.perf_counter()
            server.ask(heavy)
            times.append(time.perf_counter() - began)
        each = min(times)  # the least disturbed by other work on the machine
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
        wasted, most = max(0, searched - statuses[200]), max(0.05 * count, 8)
        score.runs = count
        score.require(set(statuses) <= {200, 503}, f"clients that stayed connected were answered {dict(statuses)}")
        score.notes.append(
            f"{count} requests of {1000 * each:.0f} ms at four times the capacity of one core, half of them cancelled after "
            f"5 ms: {statuses[200]} answered, {searched} searched, {gone} dropped after their client had disconnected; "
            f"{wasted} searched in vain (limit {most:.0f}: 5 %, at least 8)"
        )
        score.require(gone > 0, "no queued search of a disconnected client was dropped")
        # a search that has started is not interrupted
        score.require(wasted <= most, f"{wasted} of {count} requests were searched after their client had disconnected")
        late = Counter[int]()
        slow = heavy.replace(b"\r\n\r\n", b"\r\nx-request-timeout-ms: 1\r\n\r\n", 1)
        with in_background(*[partial(_keep_busy, server.port, heavy)] * 6):
            time.sleep(0.2)
            for _ in range(bench.many(30, 300)):
                late[server.ask(slow).status] += 1
        score.record(set(late) <= {504, 503, 200} and late[504] > 0, f"a deadline of 1 ms: {dict(late)}")
        score.notes.append(f"statuses with a deadline of 1 ms under load: {dict(late)}")
        score.record(_shed(server, "late") >= late[504], "the counter of late requests is wrong")
        for value in ("0", "-1", "x", "1e9", ""):
            answer = server.ask(post("/v1/recommend", {}, x_request_timeout_ms=value))
            score.record(
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


CASES = [
    Case(
        21,
        "slow clients",
        "100 connections a second that stop within the headers, send a body byte by byte, never read the response, or send "
        "nothing, to nginx, configured as in docs/nginx.conf, in front of the service",
        "they are disconnected, and within 60 s nginx has as many descriptors open as before; the service never has "
        "more than one "
        "connection per complete request open; other requests are not lost, and their p99 is at most 1.2 times the baseline, "
        f"or {NOISE:g} ms more",
        slow_clients,
        tools=["nginx"],
    ),
    Case(
        23,
        "disconnected clients and expired deadlines",
        "half of the clients disconnect after 5 ms under overload; deadlines of 1 ms",
        "queued requests of disconnected clients are not searched; 504 after the deadline; the counters match",
        disconnects_and_deadlines,
    ),
]
