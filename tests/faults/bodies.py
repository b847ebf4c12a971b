"""Malformed requests and oversized bodies."""

import gzip
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from tests.faults.background import in_background
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score
from tests.faults.http import JSON, post
from tests.faults.oracle import Oracle
from tests.faults.servers import Server
from tests.faults.steady_load import SteadyLoad

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
"""Bodies that are not JSON, or that parsers may read differently."""

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
        with SteadyLoad(server.port, USERS) as load:
            time.sleep(bench.many(2, 10))
            began = time.perf_counter()
            for _ in range(bench.many(1, 20)):
                for path in POSTS:
                    for body in NOT_JSON:
                        must_refuse(server, post(path, body), score, f"{path} {body[:40]!r}")
                for raw in NOT_HTTP:  # refused by uvicorn, without a problem document
                    must_refuse(server, raw, score, repr(raw[:40]), plain=True)
            ended = time.perf_counter()
        base, during = load.baseline_p99(began), load.p99(began, ended)
        load.check(score, oracle)
        score.p99 = during
        most = bench.slower(base, 1)
        score.require(during <= most, f"p99 of other requests is {during:.1f} ms, was {base:.1f} ms")
        score.notes.append(
            f"p99 of other requests {base:.1f} ms before, {during:.1f} ms during the fault, sent by one client without pauses; "
            f"tolerance {NOISE:g} ms (1 s with --quick)"
        )
        log = server.log.read_text()
        score.require("Traceback" not in log, f"traceback in the log: {log[-500:]}")
    oracle.close()


def must_refuse(
    server: Server, raw: bytes, score: Score, what: str, statuses: Sequence[int] = (400, 422), *, plain: bool = False
) -> None:
    """Send bytes that must be answered with one of these statuses, with a problem document unless `plain`."""
    try:
        answer = server.ask(raw)
    except OSError as error:
        score.record(False, f"{what}: {error}")
    else:
        score.record(answer.status in statuses and (plain or answer.problem), f"{what}: {answer.status} {answer.body[:200]!r}")


def huge(bench: Bench, score: Score) -> None:
    """Case 16."""
    root = bench.root()
    limit = 1 << 20
    with bench.serve(root, "--patience", "2") as server:
        server.ready()
        server.post("/v1/recommend", b"{" + b" " * (limit - 2) + b"}")  # the baseline includes the largest legal body
        before = server.memory()
        slowest: dict[str, float] = {}

        def answered(kind: str, seconds: float) -> None:
            slowest[kind] = max(slowest.get(kind, 0.0), seconds)

        head = f"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: {JSON}\r\n".encode()
        peak = PeakMemory(server)
        with in_background(peak.watch):
            for _ in range(bench.many(5, 50)):
                for declared in (limit + 1, 1_000_000_000, 10**18, 10**30):
                    began = time.perf_counter()
                    answer = server.ask(head + b"content-length: %d\r\n\r\n" % declared)
                    answered("Content-Length too large", time.perf_counter() - began)
                    well = answer.status == 413 or (declared > 10**19 and answer.status == 400)
                    score.record(well, f"Content-Length {declared}: {answer.status}")
                seconds, status = _stream(server, head, 1 << 26 if bench.quick else 1 << 30, limit)
                answered("endless chunked body", seconds)
                score.record(status in (0, 413), f"endless chunked body: {status}")  # 0: closed while sending
                for encoding in ("gzip", "br", "deflate", "gzip, identity"):
                    raw = post("/v1/recommend", gzip.compress(b" " * (10 << 20)), content_encoding=encoding)
                    began = time.perf_counter()
                    must_refuse(server, raw, score, encoding, (415,))
                    answered("gzip bomb", time.perf_counter() - began)
                for length in (b"-1", b"abc", b"1, 2", b"2\r\ncontent-length: 3"):
                    raw = head + b"content-length: " + length + b"\r\n\r\n{}"
                    must_refuse(server, raw, score, f"Content-Length {length!r}", (400, 413), plain=True)
                both = head + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                must_refuse(server, both, score, "Content-Length and chunked encoding", (400, 413), plain=True)
            began = time.perf_counter()
            answer = server.ask(head + b"content-length: 20\r\n\r\n{}")  # the rest is never sent
            score.record(answer.status == 408, f"an incomplete body: {answer.status}")
            score.notes.append(f"an incomplete body times out after {time.perf_counter() - began:.1f} s; 2 s are configured")
        grown, final = peak.bytes - before, server.memory() - before
        score.require(grown < 10e6, f"memory grew by {grown / 1e6:.1f} MB")
        bound = 1.0 if bench.quick else 0.1
        for kind, seconds in slowest.items():
            score.require(seconds < bound, f"{kind}: answered {1000 * seconds:.0f} ms after the limit was exceeded")
        score.notes.append(f"memory grew by {grown / 1e6:.1f} MB at most, {final / 1e6:.1f} MB at the end")
        times = ", ".join(f"{kind} {1000 * seconds:.0f} ms" for kind, seconds in slowest.items())
        score.notes.append(
            f"slowest answers after the limit was exceeded: {times}; limit {1000 * bound:.0f} ms (100 ms in a full run)"
        )
        score.record(server.post("/v1/recommend", {}).status == 200, "the service no longer answers")


class PeakMemory:
    """Samples the memory of a server.

    Attributes:
        bytes: the highest value seen.
    """

    def __init__(self, server: Server) -> None:
        self.bytes = 0
        self._server = server

    def watch(self, stop: threading.Event) -> None:
        """Sample until `stop` is set."""
        while True:
            self.bytes = max(self.bytes, self._server.memory())
            if stop.wait(0.005):
                break


def _stream(server: Server, head: bytes, size: int, limit: int) -> tuple[float, int]:
    """Send chunks until an answer arrives; return the seconds from the size limit to the answer, and the status."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n" + chunk * (limit // 0x10000))
        began = time.perf_counter()
        connection.setblocking(False)
        sent, answered = 0, b""
        with suppress(ConnectionError):  # the server may close the connection while chunks are sent
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
        "malformed JSON and malformed HTTP",
        f"{len(NOT_JSON)} bodies to each of {len(POSTS)} paths, {len(NOT_HTTP)} malformed request heads and other protocols",
        "each is answered with 400 or 422, malformed JSON with a problem document, and none with 500; other requests are not "
        f"lost, and their p99 rises by at most {NOISE:g} ms",
        raw_bytes,
        fast=True,
    ),
    Case(
        16,
        "endless, compressed and mislabelled bodies",
        "Content-Length up to 10^30, chunked bodies up to 1 GB, gzip bombs, invalid lengths",
        "413 before the body is read, 415, 400 or 408; memory grows by less than 10 MB; 413 and 415 within 100 ms of exceeding "
        "the limit",
        huge,
        fast=True,
    ),
]
