"""Whatever bytes clients may send: those that are no request, and bodies without end."""

import gzip
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from tests.faults.asking import Asking
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score
from tests.faults.http import JSON, post
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Oracle
from tests.faults.servers import Server

USERS = [str(number) for number in range(2, 150, 5)]
POSTS = (
    *("/v1/recommend", "/v1/recommend:batch", "/v1/score", "/v1/explain", "/v1/why-not", "/v1/user-vector"),
    *("/v1/items:upsert", "/v1/users:upsert", "/v1/interactions"),
)

NOT_JSON = (
    *(
        b"",
        b"  \n",
        b'{"n": 1',
        b'{"n": NaN}',
        b'{"features": {"age": NaN}}',
        b'{"n": -Infinity}',
        b'{"features": {"age": 1e999}}',
    ),
    *(b'{"n": ' + b"7" * 5000 + b"}", b'{"user_id": "\\ud800"}', b'{"exclude": ["\\udc00x"]}', b'{"user_id": "\xff\xfe"}'),
    *(
        b'{"user_id": "\xc0\xaf"}',
        '{"n": 1}'.encode("utf-16"),
        b'\xef\xbb\xbf{"n": 1}',
        b"[" * 100_000,
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
    ),
    *(b'{"features": {"age": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", b'{"user_id": "a\x00b"}', b'{"n": 1}{"n": 2}'),
    *(b'{"n": 1 /* ten */}', b"n=10&user_id=1", b"<n>10</n>", b'{"n": 1, "n": 2}', b'{"context": {"hour": 1, "hour": 2}}'),
)
"""Bodies that are no JSON document, or one that two readers may read differently."""

NOT_HTTP = (
    *(
        b"\x00\x01\x02\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ),
    *(
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    ),
    b"POST /v1/recommend HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n",
)


def raw_bytes(bench: Bench, score: Score) -> None:
    """Case 15."""
    root = bench.root()
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        with Asking(server.port, USERS) as asking:
            time.sleep(bench.many(2, 10))
            began = time.perf_counter()
            for _ in range(bench.many(1, 20)):
                for path in POSTS:
                    for body in NOT_JSON:
                        must_refuse(server, post(path, body), score, f"{path} {body[:40]!r}")
                for raw in NOT_HTTP:  # refused by the server itself, in its own words
                    must_refuse(server, raw, score, repr(raw[:40]), plain=True)
            ended = time.perf_counter()
        base, during = asking.usual(began), asking.p99(began, ended)
        asking.judge(score, oracle)
        score.p99 = during
        most = bench.slower(base, 1)
        score.ask(during <= most, f"p99 of others is {during:.1f} ms, {base:.1f} ms before")
        score.notes.append(
            f"p99 of others {base:.1f} ms before, {during:.1f} ms meanwhile; one sender without a pause; "
            f"{NOISE:g} ms more are let pass for noise (1 s with few faults)"
        )
        log = server.log.read_text()
        score.ask("Traceback" not in log, f"a trace is in the log: {log[-500:]}")
    oracle.close()


def must_refuse(
    server: Server, raw: bytes, score: Score, what: str, statuses: Sequence[int] = (400, 422), *, plain: bool = False
) -> None:
    """Send bytes that are to be answered with one of these statuses, by a problem document unless `plain`."""
    try:
        answer = server.ask(raw)
    except OSError as error:
        score.ran(False, f"{what}: {error}")
    else:
        score.ran(answer.status in statuses and (plain or answer.problem), f"{what}: {answer.status} {answer.body[:200]!r}")


def huge(bench: Bench, score: Score) -> None:
    """Case 16."""
    root = bench.root()
    limit = 1 << 20
    with bench.serve(root, "--patience", "2") as server:
        server.ready()
        server.post("/v1/recommend", b"{" + b" " * (limit - 2) + b"}")  # what the largest body needs is not growth
        before = server.memory()
        slowest: dict[str, float] = {}

        def answered(kind: str, seconds: float) -> None:
            slowest[kind] = max(slowest.get(kind, 0.0), seconds)

        head = f"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n".encode()
        highest = Highest(server)
        with meanwhile(highest.look):
            for _ in range(bench.many(5, 50)):
                for declared in (limit + 1, 1_000_000_000, 10**18, 10**30):
                    began = time.perf_counter()
                    answer = server.ask(head + b"content-length: %d\r\n\r\n" % declared)
                    answered("a length that is too large", time.perf_counter() - began)
                    well = answer.status == 413 or (declared > 10**19 and answer.status == 400)
                    score.ran(well, f"{declared} bytes: {answer.status}")
                seconds, status = _stream(server, head, 1 << 26 if bench.quick else 1 << 30, limit)
                answered("chunks without end", seconds)
                score.ran(status in (0, 413), f"chunks without end: {status}")  # 0: closed while more was being sent
                for encoding in ("gzip", "br", "deflate", "gzip, identity"):
                    raw = post("/v1/recommend", gzip.compress(b" " * (10 << 20)), content_encoding=encoding)
                    began = time.perf_counter()
                    must_refuse(server, raw, score, encoding, (415,))
                    answered("a bomb of gzip", time.perf_counter() - began)
                for length in (b"-1", b"abc", b"1, 2", b"2\r\ncontent-length: 3"):
                    raw = head + b"content-length: " + length + b"\r\n\r\n{}"
                    must_refuse(server, raw, score, f"length {length!r}", (400, 413), plain=True)
                both = head + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                must_refuse(server, both, score, "both lengths", (400, 413), plain=True)
            began = time.perf_counter()
            answer = server.ask(head + b"content-length: 20\r\n\r\n{}")  # the rest never comes
            score.ran(answer.status == 408, f"a body that is shorter than declared: {answer.status}")
            score.notes.append(f"a body that never ends is given up after {time.perf_counter() - began:.1f} s, 2 s are set")
        grown, least = highest.bytes - before, server.memory() - before
        score.ask(grown < 10e6, f"memory had grown by {grown / 1e6:.1f} MB")
        bound = 1.0 if bench.quick else 0.1
        for kind, seconds in slowest.items():
            score.ask(seconds < bound, f"{kind}: answered {1000 * seconds:.0f} ms after the limit")
        score.notes.append(f"memory grew by {grown / 1e6:.1f} MB at most, {least / 1e6:.1f} MB in the end")
        times = ", ".join(f"{kind} {1000 * seconds:.0f} ms" for kind, seconds in slowest.items())
        score.notes.append(f"slowest answers after the limit: {times}; {1000 * bound:.0f} ms are let pass (100 in a full run)")
        score.ran(server.post("/v1/recommend", {}).status == 200, "it answers no more")


class Highest:
    """Looks at a server's memory all the while, as long as it looks.

    Attributes:
        bytes: the most that were its own.
    """

    def __init__(self, server: Server) -> None:
        self.bytes = 0
        self._server = server

    def look(self, stop: threading.Event) -> None:
        """Until it is told to stop."""
        while True:
            self.bytes = max(self.bytes, self._server.memory())
            if stop.wait(0.005):
                break


def _stream(server: Server, head: bytes, size: int, limit: int) -> tuple[float, int]:
    """Send chunks until it is answered; gives the seconds from the limit to the answer, and the status."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n" + chunk * (limit // 0x10000))
        began = time.perf_counter()
        connection.setblocking(False)
        sent, answered = 0, b""
        with suppress(ConnectionError):  # it may be closed while more is being sent
            while sent < size and b"\r\n\r\n" not in answered and time.perf_counter() < began + 5:
                with suppress(BlockingIOError):
                    part = connection.recv(65536)
                    if not part:
                        break
                    answered += part
                with suppress(BlockingIOError):
                    connection.send(chunk)
                    sent += len(chunk)
        seconds = time.perf_counter() - began
    return seconds, int(answered[9:12]) if len(answered) > 12 else 0


CASES = [
    Case(
        15,
        "bodies that are no JSON, requests that are no HTTP",
        f"{len(NOT_JSON)} bodies to each of {len(POSTS)} paths, {len(NOT_HTTP)} beginnings of other protocols",
        "each is answered 400 or 422 by a problem document, none 500; others lose nothing, and "
        f"their p99 stays, but for {NOISE:g} ms of noise",
        raw_bytes,
        fast=True,
    ),
    Case(
        16,
        "bodies without end, compressed, of wrong length",
        "declared lengths up to 10^30, chunks up to 1 GB, bombs of gzip, lengths that are none",
        "413 before it is read, 415, 400 or 408; memory never grows by 10 MB; 413 and 415 within 100 ms of the limit",
        huge,
        fast=True,
    ),
]
