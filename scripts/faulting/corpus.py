"""Whatever clients may send: bytes that are no request, bodies without end, numbers and ids of every odd kind."""

import gzip
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

from faulting.asking import Asking
from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.http import JSON, post, receive, request
from faulting.oracle import Oracle
from faulting.servers import Server
from faulting.shop import ITEMS, ODD_IDS

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
    *(b"\x00\x01\x02\x03\r\n\r\n", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: here\r\n\r\n"),
    *(
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    ),
    b"POST /v1/recommend HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n",
)

NUMBERS = (
    "0",
    "-1",
    "1001",
    "1e9",
    "1e308",
    "10.5",
    "10.0",
    '"10"',
    "true",
    "null",
    "[10]",
    "{}",
    "1000000000000000000000000",
    "-0.5",
)
"""Values of n that are none."""


def raw_bytes(bench: Bench, score: Score) -> None:
    """Case 15."""
    root = bench.root()
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        with Asking(server.port, USERS) as asking:
            time.sleep(bench.many(1, 10))
            began = time.perf_counter()
            for _ in range(bench.many(1, 20)):
                for path in POSTS:
                    for body in NOT_JSON:
                        _refused(server, post(path, body), score, f"{path} {body[:40]!r}")
                for raw in NOT_HTTP:
                    _refused(server, raw, score, repr(raw[:40]))
            ended = time.perf_counter()
        base, during = asking.p99(until=began), asking.p99(began, ended)
        asking.judge(score, oracle)
        score.p99 = during
        score.notes.append(f"p99 of others {base:.1f} ms before, {during:.1f} ms meanwhile; one sender without a pause")
        log = server.log.read_text()
        score.ask("Traceback" not in log, f"a trace is in the log: {log[-500:]}")
    oracle.close()


def _refused(server: Server, raw: bytes, score: Score, what: str, statuses: Sequence[int] = (400, 422)) -> None:
    try:
        answer = server.ask(raw)
    except OSError as error:
        score.ran(False, f"{what}: {error}")
    else:
        score.ran(answer.status in statuses and answer.problem, f"{what}: {answer.status} {answer.body[:200]!r}")


def huge(bench: Bench, score: Score) -> None:
    """Case 16."""
    root = bench.root()
    limit = 1 << 20
    with bench.serve(root, "--patience", "2") as server:
        server.ready()
        server.post("/v1/recommend", b"{" + b" " * (limit - 2) + b"}")  # what the largest body needs is not growth
        before = server.memory()
        slowest = 0.0
        head = f"POST /v1/recommend HTTP/1.1\r\nhost: here\r\ncontent-type: {JSON}\r\n".encode()
        for _ in range(bench.many(5, 50)):
            for declared in (limit + 1, 1_000_000_000, 10**18, 10**30):
                began = time.perf_counter()
                answer = server.ask(head + b"content-length: %d\r\n\r\n" % declared)
                slowest = max(slowest, time.perf_counter() - began)
                score.ran(
                    answer.status == (413 if declared < 10**19 else answer.status) and answer.status in (400, 413),
                    f"{declared} bytes: {answer.status}",
                )
            seconds, status = _stream(server, head, 1 << 26 if bench.quick else 1 << 30, limit)
            slowest = max(slowest, seconds)
            score.ran(status in (0, 413), f"chunks without end: {status}")  # 0: closed while more was being sent
            for encoding in ("gzip", "br", "deflate", "gzip, identity"):
                bomb = gzip.compress(b" " * (10 << 20))
                _refused(server, post("/v1/recommend", bomb, content_encoding=encoding), score, encoding, (415,))
            for length in (b"-1", b"abc", b"1, 2", b"2\r\ncontent-length: 3"):
                _refused(server, head + b"content-length: " + length + b"\r\n\r\n{}", score, f"length {length!r}", (400, 413))
            _refused(
                server,
                head + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                score,
                "both lengths",
                (400, 413),
            )
        began = time.perf_counter()
        answer = server.ask(head + b"content-length: 20\r\n\r\n{}")  # the rest never comes
        score.ran(answer.status == 408, f"a body that is shorter than declared: {answer.status}")
        score.notes.append(f"a body that never ends is given up after {time.perf_counter() - began:.1f} s, 2 s are set")
        with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: here\r\n")
            status = 0
            with suppress(OSError):
                for number in range(10_000):
                    connection.sendall(b"x-%d: " % number + b"v" * 1000 + b"\r\n")
                status = receive(connection).status
            score.ran(status in (0, 431), f"headers without end: {status}")  # 0: closed while they were still being sent
        grown = server.memory() - before
        score.ask(grown < 10 << 20, f"memory has grown by {grown / 1e6:.1f} MB")
        score.ask(slowest < bench.within(0.1), f"the slowest 413 came after {1000 * slowest:.0f} ms")
        score.notes.append(f"memory grew by {grown / 1e6:.1f} MB; the slowest 413 came {1000 * slowest:.0f} ms after the limit")
        score.ran(server.post("/v1/recommend", {}).status == 200, "it answers no more")


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


def sizes(bench: Bench, score: Score) -> None:
    """Case 17."""
    root = bench.root()
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        for text in NUMBERS:
            answer = server.post("/v1/recommend", b'{"n": %b}' % text.encode())
            named = answer.status == 422 and any(one["pointer"] == "/n" for one in answer.json["errors"])
            score.ran(named and answer.problem, f"n is {text}: {answer.status} {answer.body[:200]!r}")
        for text in ("1e400", "NaN", "0x10", "+1", "01"):
            _refused(server, post("/v1/recommend", b'{"n": %b}' % text.encode()), score, f"n is {text}")
        for text in ("0", "-1", "1e9", "ten", "", "1000000000000000000000", "%31%00", "1.0"):
            answer = server.get(f"/v1/users/3/recommendations?n={text}")
            score.ran(answer.status == 422 and answer.problem, f"?n={text}: {answer.status} {answer.body[:200]!r}")
        answer = server.post("/v1/recommend", {"n": 1000, "allow": [*ITEMS[:7], "no such item"], "exclude_seen": False})
        score.ran(
            answer.status == 200 and sorted(one["item_id"] for one in answer.json["items"]) == ITEMS[:7],
            "n beyond what is allowed",
        )
        for item_id in ITEMS[10:]:
            server.ask(request("DELETE", f"/v1/items/{quote(item_id, safe='')}")) if not bench.quick else None
        for user in USERS[: bench.many(5, 30)]:
            for n in (1, 1000):
                answer = server.post("/v1/recommend", {"user_id": user, "n": n})
                ids = [one["item_id"] for one in answer.json["items"]]
                score.ran(answer.status == 200 and "-1" not in ids and "" not in ids, f"n is {n}: {answer.status}")
                if bench.quick and (fault := oracle.fault(answer.json, user, n)):
                    score.wrong += 1
                    score.missed.append(f"wrong: {fault}")
        if not bench.quick:
            score.ran(
                len(server.post("/v1/recommend", {"n": 1000}).json["items"]) == 10,
                "n beyond the catalogue gives another number than all",
            )
    oracle.close()


def odd_ids(bench: Bench, score: Score) -> None:
    """Case 18."""
    root = bench.root()
    new = [f"{one}\u2603"[-1024:] for one in ODD_IDS]
    with bench.serve(root, "--access", "1") as server:
        server.ready()
        for item_id in ODD_IDS:
            answer = server.get(f"/v1/items/{quote(item_id, safe='')}")
            score.ran(
                answer.status == 200 and answer.json["item_id"] == item_id,
                f"item {item_id[:20]!r}: {answer.status} {answer.body[:150]!r}",
            )
            answer = server.post("/v1/recommend", {"allow": [item_id], "exclude_seen": False, "n": 5})
            score.ran(
                [one["item_id"] for one in answer.json["items"]] == [item_id], f"allow {item_id[:20]!r}: {answer.body[:150]!r}"
            )
            answer = server.post("/v1/recommend", {"user_id": item_id})
            score.ran(answer.status == 200 and answer.json["user"] == "known", f"user {item_id[:20]!r}: {answer.body[:150]!r}")
        for item_id in new:
            path = quote(item_id, safe="")
            body = {"items": [{"item_id": item_id, "features": {"genre": "noir"}}]}
            score.ran(server.post("/v1/items:upsert", body).status == 200, f"upsert {item_id[:20]!r}")
            answer = server.get(f"/v1/items/{path}")
            score.ran(answer.status == 200 and answer.json["item_id"] == item_id, f"new item {item_id[:20]!r}: {answer.status}")
            taken = server.post("/v1/interactions", {"interactions": [{"user_id": item_id, "item_id": item_id}]})
            score.ran(taken.status == 200, f"interaction {item_id[:20]!r}: {taken.status} {taken.body[:150]!r}")
            known = server.get(f"/v1/users/{path}")
            score.ran(
                known.status == 200 and item_id in known.json["history"],
                f"user {item_id[:20]!r}: {known.status} {known.body[:150]!r}",
            )
            score.ran(server.ask(request("DELETE", f"/v1/items/{path}")).status == 200, f"delete {item_id[:20]!r}")
            score.ran(server.get(f"/v1/items/{path}").status == 404, f"{item_id[:20]!r} is there after it was deleted")
        for odd in ('""', '"' + "x" * 10_000 + '"', "[1]", "{}", "true", "1.5", '"\\ud800"'):
            _refused(server, post("/v1/recommend", b'{"user_id": %b}' % odd.encode()), score, f"user {odd[:20]}")
            _refused(
                server, post("/v1/items:upsert", b'{"items": [{"item_id": %b}]}' % odd.encode()), score, f"item {odd[:20]}"
            )
        for path in ("%ff", "%c0%af", "%ed%a0%80", quote("x" * 5000)):
            for of in ("items", "users"):
                answer = server.get(f"/v1/{of}/{path}")
                score.ran(
                    answer.status in (400, 404, 422) and answer.problem,
                    f"/v1/{of}/{path[:20]}: {answer.status} {answer.body[:150]!r}",
                )
        page = server.get("/")
        score.ran(b"<script>alert" not in page.body, "the page holds an id as it is")
        answer = server.post("/v1/recommend", {"allow": ["<script>alert(1)</script>"], "exclude_seen": False})
        score.ran(answer.headers.get("x-content-type-options") == "nosniff", "an answer may be taken for a page")
        lines = server.log.read_text().splitlines()
        score.ran(
            not any(line.startswith("ERROR service: forged") or "forged" in line.split(" ")[:1] for line in lines),
            "an id has made a line of the log",
        )
        score.ran(not any("\x00" in line or "\u202e" in line for line in lines), "control characters are in the log")


def unknown(bench: Bench, score: Score) -> None:
    """Case 19."""
    root = bench.root()
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        for number in range(bench.many(20, 500)):
            answer = server.post("/v1/recommend", {"user_id": f"nobody {number}", "n": 20})
            score.ran(
                answer.status == 200 and answer.json["user"] == "unknown",
                f"an unknown user: {answer.status} {answer.body[:150]!r}",
            )
            score.wrong += bool(oracle.fault(answer.json, None, 20))  # nothing is known of them, so they are anybody
            body = {"user_id": "3", "n": 20, "context": {"device": f"never seen {number}"}}
            answer = server.post("/v1/recommend", body)
            score.ran(
                answer.status == 200 and "device" in answer.json["unknown"],
                f"an unknown value: {answer.status} {answer.body[-250:]!r}",
            )
            answer = server.post("/v1/recommend", {"history": [f"no item {number}"], "exclude": ["none"], "n": 3})
            score.ran(
                answer.status == 200 and bool(answer.json["warnings"]), f"unknown items: {answer.status} {answer.body[-250:]!r}"
            )
            for body in (
                {"features": {f"feild{number}": 1}},
                {"context": {"dvice": "web"}},
                {"userid": "3"},
                {"filter": {"gerne": "noir"}},
            ):
                answer = server.post("/v1/recommend", body)
                score.ran(answer.status == 422 and answer.problem, f"{body}: {answer.status} {answer.body[:150]!r}")
        metrics = server.get("/metrics").body.decode()
        flagged = next((line for line in metrics.splitlines() if line.startswith("recall_fallback_total")), "")
        score.ask(
            flagged.endswith((f" {bench.many(20, 500)}.0", f" {bench.many(20, 500)}")),
            f"the metric of fallbacks says {flagged!r}",
        )
    oracle.close()


def fuzzed(bench: Bench, score: Score) -> None:
    """Case 20."""
    try:
        import schemathesis
        from hypothesis import HealthCheck, given, settings
        from hypothesis import seed as seeded
        from schemathesis import GenerationMode
        from schemathesis.specs.openapi.checks import positive_data_acceptance
    except ImportError as error:
        score.missed.append(f"not run: {error.name} is not installed")
        return
    root = bench.root(2)
    with bench.serve(root) as server:
        server.ready()
        api = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        operations = [one.ok() for one in api.get_all_operations()]
        sent = 0
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @seeded(bench.random.randrange(1 << 30))
                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=bench.many(10, 300), deadline=None, database=None, suppress_health_check=list(HealthCheck)
                )
                def answered(case: schemathesis.Case) -> None:
                    nonlocal sent
                    sent += 1
                    if (case.headers or {}).get("X-Request-Timeout-Ms"):
                        case.headers["X-Request-Timeout-Ms"] = "60000"  # 504 is what it is for
                    if mode is GenerationMode.POSITIVE:  # noqa: B023 - called before the next round
                        case.call_and_validate(excluded_checks=[positive_data_acceptance])
                    else:
                        answer = case.call()
                        assert answer.status_code < 500 or answer.status_code in (503, 504), (
                            f"{answer.status_code} {answer.text[:200]}"
                        )

                name = f"{operation.method.upper()} {operation.path}, {mode.value}"
                try:
                    answered()
                except Exception as error:
                    if "Unsatisfiable" in type(error).__name__ or "no cases" in str(error).lower() or "Cannot" in str(error):
                        continue  # nothing can be wrong with it
                    score.ran(False, f"{name}: {str(error)[:600]}")
                else:
                    score.ran(True)
        score.notes.append(f"{sent:,} requests to {len(operations)} operations")
        score.ask("Traceback" not in server.log.read_text(), "a trace is in the log")


CASES = [
    Case(
        15,
        "bodies that are no JSON, requests that are no HTTP",
        f"{len(NOT_JSON)} bodies to each of {len(POSTS)} paths, {len(NOT_HTTP)} beginnings of other protocols",
        "each is answered 400 or 422 by a problem document, none 500; others lose nothing",
        raw_bytes,
        fast=True,
    ),
    Case(
        16,
        "bodies and headers without end, compressed, of wrong length",
        "declared lengths up to 10^30, chunks up to 1 GB, bombs of gzip, lengths that are none",
        "413 before it is read, 415, 400 or 408; memory grows by less than 10 MB; 413 within 100 ms of the limit",
        huge,
        fast=True,
    ),
    Case(
        17,
        "numbers of results that are none",
        f"n of {', '.join(NUMBERS)} and more",
        "422 that names n; more than there are gives all there are, each once: 500s 0, wrong 0",
        sizes,
        fast=True,
    ),
    Case(
        18,
        "odd ids",
        f"{len(ODD_IDS)} ids with slashes, quotes, markup, line breaks, NUL and more, through path and body",
        "each comes back as it was sent; what is no id is refused; none makes a line of the log, or markup",
        odd_ids,
        fast=True,
    ),
    Case(
        19,
        "unknown users, items, values and columns",
        "requests that name what nobody has seen",
        "users and values are answered and said to be unknown, columns and keys are refused; wrong 0",
        unknown,
        fast=True,
    ),
    Case(
        20,
        "whatever the OpenAPI document allows, and what it does not",
        "schemathesis makes requests up for every operation",
        "only documented statuses and shapes; no 5xx",
        fuzzed,
    ),
]
