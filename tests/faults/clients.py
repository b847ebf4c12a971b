"""Clients that are slow, that go, or that cannot wait."""

import re
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial

from serving.nginx import GUIDE, PREFIX, nginx

from tests.faults.asking import Asking
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score
from tests.faults.http import ask, post, receive
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Oracle
from tests.faults.servers import Server

_BODY = 40  # bytes of a body that comes byte by byte
_UPSTREAM = 64  # connections to the service that the guide's nginx keeps
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
        with Asking(proxy.port, USERS, prefix=PREFIX) as asking:
            time.sleep(bench.many(3, 30))
            inside, files, began = server.files(), proxy.files(), time.perf_counter()
            slow = []
            for number in range(count):
                time.sleep(0.01)  # all at once those who never read would ask for more than can be answered: that is case 24
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
                        one.send(post(f"{PREFIX}/v1/recommend", {"n": 1000}) * 8)  # and never reads
                slow.append((kind, one))
            opened = time.perf_counter()
            time.sleep(0.5)  # until all are taken
            most, most_inside = proxy.files(), server.files()
            score.ask(most - files >= count // 2, f"only {most - files} files more are open with {count} slow clients")
            sent, until = 1, time.perf_counter() + 60
            while proxy.files() > files + 8 and time.perf_counter() < until:
                sent += 1
                for kind, one in slow:
                    if kind == 1 and sent <= _BODY:
                        with suppress(OSError):
                            one.send(b" ")  # a byte of the body now and then
                time.sleep(1)
                most_inside = max(most_inside, server.files())
            ended = time.perf_counter()
            left = proxy.files() - files
        base, during = asking.usual(began), asking.p99(began, ended)
        asking.judge(score, oracle)
        score.p99 = during
        score.runs = count
        score.recovered(ended - opened)
        score.ask(left <= 8, f"{left} of {most - files} files are open after {ended - opened:.0f} s")
        score.ask(most_inside - inside <= _UPSTREAM, f"{most_inside - inside} more files were open in the service")
        most_ms = bench.slower(base, 1.2)
        score.ask(during <= most_ms, f"others' p99 is {during:.1f} ms, {base:.1f} ms before")
        score.notes.append(
            f"{count} slow clients were gone after {ended - opened:.1f} s, {patience} s are set; "
            f"{left:+} files are open in nginx beside those before, +8 are let pass, of those who asked meanwhile; "
            f"{most_inside - inside:+} in the service at most, of which nginx keeps up to {_UPSTREAM} connections; "
            f"others' p99 {base:.1f} ms before, {during:.1f} ms meanwhile, it may reach {most_ms:.1f} ms: "
            f"1.2 times as much, or {NOISE:g} ms more for noise (1 s with few faults)"
        )
    oracle.close()


def gone_and_late(bench: Bench, score: Score) -> None:
    """Case 23."""
    root = bench.root()
    heavy = post("/v1/recommend", {"user_id": "4", "n": 1000, "rules": [{"kind": "diversify", "relevance": 0.5, "pool": 2000}]})
    with bench.serve(root) as server:
        server.ready()
        answer = server.ask(heavy)
        score.ask(answer.status == 200, f"the heavy request: {answer.status} {answer.body[:200]!r}")
        times = []
        for _ in range(7):
            began = time.perf_counter()
            server.ask(heavy)
            times.append(time.perf_counter() - began)
        each = min(times)  # other work on the machine lengthens the others
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
        score.ask(set(statuses) <= {200, 503}, f"those who stayed were answered {dict(statuses)}")
        score.notes.append(
            f"{count} requests of {1000 * each:.0f} ms, four times as many as one core can answer, half gone after 5 ms: "
            f"{statuses[200]} answered, "
            f"{searched} searched, {gone} dropped because nobody waited; {wasted} searched for nobody, "
            f"{most:.0f} are let pass: 5 %, and 8 where that is more"
        )
        score.ask(gone > 0, "no search was dropped for a client that had gone")
        # one that has begun when its client goes is not stopped
        score.ask(wasted <= most, f"{wasted} searches of {count} requests were for nobody")
        late = Counter[int]()
        slow = heavy.replace(b"\r\n\r\n", b"\r\nx-request-timeout-ms: 1\r\n\r\n", 1)
        with meanwhile(*[partial(_keep_busy, server.port, heavy)] * 6):
            time.sleep(0.2)
            for _ in range(bench.many(30, 300)):
                late[server.ask(slow).status] += 1
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


CASES = [
    Case(
        21,
        "clients that are slow",
        "connections, a hundred a second, that stop in the head, send a body byte by byte, never read, or say nothing, "
        "to nginx as docs/nginx.conf has it, in front of the service",
        "they are closed, as many files open in nginx as before within 60 s, and at most those that it keeps in the service; "
        f"others lose nothing, p99 is at most 1.2 times as much, or {NOISE:g} ms more for noise",
        slow_clients,
        tools=["nginx"],
    ),
    Case(
        23,
        "clients that go, and deadlines that pass",
        "half of the clients close after 5 ms, under more load than can be answered; deadlines of 1 ms",
        "what nobody waits for is not searched, but for what had begun; 504 for what is late; counters agree",
        gone_and_late,
    ),
]
