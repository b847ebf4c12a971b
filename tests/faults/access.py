"""API keys, and path traversal in version names."""

import os
import socket
import statistics
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from recall.bundle import versions
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import Answer, receive, request
from tests.faults.servers import Server

READ, ADMIN = "read-key-7c1d9a4e5b2f8036", "admin-key-f0a1b2c3d4e5f697"
_READS = (
    ("GET", "/v1/info"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/items"),
    ("POST", "/v1/recommend"),
)
_ADMINS = (
    *(("GET", "/v1/users"), ("GET", "/v1/users/3")),  # personal data
    *(("POST", "/v1/items:upsert"), ("DELETE", "/v1/items/3"), ("POST", "/v1/interactions"), ("POST", "/v1/users:upsert")),
    *(("PUT", "/v1/users/3"), ("DELETE", "/v1/users/3"), ("POST", "/v1/models:rollback"), ("POST", "/v1/models/x:activate")),
)


def keys(bench: Bench, score: Score) -> None:
    """Case 27."""
    root = bench.root()
    wrong = [
        "x" * 24,
        READ[:-1],
        READ + "x",
        READ.upper(),
        "\u00e9" * 20,
        "",
        " ",
        "null",
        "Bearer",
        "sha256:" + "0" * 64,
        ADMIN[::-1],
    ]
    variables = {"RECALL_READ_KEY": READ, "RECALL_ADMIN_KEY": ADMIN}
    with bench.serve(root, "--access", "1", environment=variables) as server:
        server.ready()
        for method, path in (*_READS, *_ADMINS):
            answer = server.ask(_raw(method, path))
            score.record(
                answer.status == 401 and "www-authenticate" in answer.headers, f"{method} {path} without a key: {answer.status}"
            )
            for key in wrong:
                for header in ("authorization: Bearer ", "x-api-key: "):
                    raw = _raw(method, path).replace(b"\r\n\r\n", f"\r\n{header}{key}\r\n\r\n".encode(), 1)
                    answer = server.ask(raw)
                    score.record(answer.status == 401 and answer.problem, f"{method} {path} with a wrong key: {answer.status}")
        for method, path in _ADMINS:
            answer = server.ask(_raw(method, path, f"authorization: Bearer {READ}"))
            score.record(answer.status == 403 and answer.problem, f"{method} {path} with a read key: {answer.status}")
        for method, path in _READS:
            for key in (READ, ADMIN):
                answer = server.ask(_raw(method, path, f"x-api-key: {key}"))
                score.record(answer.status == 200, f"{method} {path} with a key: {answer.status}")
        for path in ("/v1/users", "/v1/users/3"):
            answer = server.ask(_raw("GET", path, f"x-api-key: {ADMIN}"))
            score.record(answer.status == 200, f"GET {path} with an admin key: {answer.status}")
        for path in ("/health/live", "/health/ready"):
            score.record(server.get(path).status == 200, f"{path} requires a key")
        for odd in (
            "/v1/items%3Aupsert",
            "//v1/items:upsert",
            "/v1/./items:upsert",
            "/V1/items:upsert",
            "/v1/items:upsert/",
            "/v1/recommend/../items:upsert",
        ):
            answer = server.ask(_raw("POST", odd, f"x-api-key: {READ}"))
            score.record(answer.status in (401, 403, 404), f"POST {odd} with a read key: {answer.status}")
        status = _huge_key(server)
        score.record(status in (0, 401, 431), f"a key of a megabyte: {status}")  # 0: closed while sending
        bad = _raw(
            "POST", "/v1/recommend", f"x-api-key: {READ}", b'{"user_id": [1], "features": {"age": "%b"}}' % READ.encode()
        )
        answer = server.ask(bad)
        score.record(READ.encode() not in answer.body, "a response contains the key of its request")
        log = server.log.read_bytes()
        metrics = server.ask(_raw("GET", "/metrics", f"x-api-key: {READ}")).body
        leaked = [key for key in (READ, ADMIN) for where in (log, metrics) if key.encode() in where]
        score.record(not leaked, "a key is in the log or the metrics")
        score.require(b"Traceback" not in log, "traceback in the log")
        _timing(server, score, bench.many(400, 20_000), check=not bench.quick)


def _raw(method: str, path: str, header: str = "", body: bytes = b"{}") -> bytes:
    raw = request(method, path) if method == "GET" else request(method, path, body, content_type="application/json")
    return raw.replace(b"\r\n\r\n", f"\r\n{header}\r\n\r\n".encode(), 1) if header else raw


def _huge_key(server: Server) -> int:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection, suppress(OSError):
        connection.sendall(b"GET /v1/info HTTP/1.1\r\nhost: localhost\r\nx-api-key: " + b"k" * (1 << 20) + b"\r\n\r\n")
        return receive(connection).status
    return 0


def _timing(server: Server, score: Score, trials: int, *, check: bool) -> None:
    """Compare the time to refuse a key that differs in its last character with one that differs in its first."""
    first, last = ("x" + READ[1:]), (READ[:-1] + "x")
    raws = {key: _raw("GET", "/v1/info", f"x-api-key: {key}") for key in (first, last)}
    times: dict[str, list[float]] = {first: [], last: []}
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        for number in range(2 * trials):
            key = (first, last)[(number + number // 2) % 2]
            began = time.perf_counter_ns()
            connection.sendall(raws[key])
            receive(connection)
            times[key].append((time.perf_counter_ns() - began) / 1000)
    medians = {key: statistics.median(of) for key, of in times.items()}
    spread = statistics.median(abs(one - medians[first]) for one in times[first])
    error = 1.858 * spread / len(times[first]) ** 0.5  # standard error of a median, from the median absolute deviation
    difference = medians[last] - medians[first]
    score.notes.append(
        f"a key that differs in its last character is refused {difference:+.2f} us later than one that differs in its first, "
        f"standard error {error * 2**0.5:.2f} us; limit five standard errors, at least 5 us"
    )
    score.require(not check or abs(difference) < max(5 * error * 2**0.5, 5.0), f"timing leaks the key: {difference:.2f} us")


NAMES = (
    *(
        "..",
        ".",
        "../..",
        "../../etc",
        "/etc",
        "//etc/passwd",
        "C:\\",
        "C:/windows",
        "\\\\host\\share",
        "~",
        "~root",
        "$HOME",
        "%2e%2e",
    ),
    *(
        "..%2f..%2fetc",
        "%2fetc%2fpasswd",
        "..%5c..",
        "....//",
        "a" * 65,
        "a" * 4000,
        "a/b",
        "a%00b",
        "%00",
        "-rf",
        ".hidden",
        "a b",
        "a%0ab",
    ),
    *(
        "%c0%ae%c0%ae",
        "%ff",
        "000001",
        "CURRENT",
        "staging",
        "*",
        "?",
        "%3f",
        "000001-00000000",
        "versions",
        "\u00e9".encode().hex(),
    ),
)
"""Invalid version names, as they appear in a URL path."""


def names(bench: Bench, score: Score) -> None:
    """Case 28."""
    root = bench.root(2)
    live, other = versions.live_name(root), versions.versions(root)[0]
    outside = bench.place("outside")
    outside.mkdir()
    bench.shop.publish(outside)
    (away,) = versions.versions(outside)
    (root / "versions" / "link").symlink_to(away)
    (root / "versions" / "000009-00000000").symlink_to(away)
    trace = bench.place("trace")
    with bench.serve(root) as server:
        server.ready()
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-s", "4096", "-o", str(trace), "-p", str(server.process.pid), "-e", "trace=%file"]
        )
        time.sleep(1)
        for name in (*NAMES, "link", "000009-00000000"):
            for raw in (
                request("POST", f"/v1/models/{name}:activate"),
                request("GET", f"/v1/models/{name}"),
                request("GET", f"/v2/models/{name}"),
            ):
                try:
                    answer: Answer | None = server.ask(raw)
                except OSError:
                    answer = None
                # malformed HTTP is refused by uvicorn, without a problem document
                well = answer is not None and (answer.problem or answer.status == 400) and answer.status in (400, 404, 409, 422)
                score.record(
                    well,
                    f"{raw.split(b' HTTP')[0][:60]!r}: {'no answer' if answer is None else (answer.status, answer.body[:150])}",
                )
        score.record(versions.live_name(root) == live, "the live version has changed")
        (root / "CURRENT").write_text("../../outside\n")
        time.sleep(0.5)
        score.record(server.post("/v1/recommend", {}).json["bundle"] == live, "CURRENT can point outside the root")
        (root / "CURRENT").write_text("000009-00000000\n")
        time.sleep(0.5)
        score.record(
            server.post("/v1/recommend", {}).json["bundle"] == live, "CURRENT can point outside the root through a link"
        )
        tracer.terminate()
        tracer.wait(20)
        (root / "CURRENT").write_text(live + "\n")
        score.record(server.post(f"/v1/models/{other.name}:activate", b"").status == 200, "a valid name is refused")
    opened = [
        line.split('"')[1]
        for line in trace.read_text(errors="replace").splitlines()
        if "open" in line and '"' in line and "O_" in line
    ]
    outside_files = {path for path in opened if _maintenance_connection(path, root)}
    if not trace.stat().st_size:
        score.notes.append("strace may not attach to other processes here: opened files were not checked")
    score.record(not outside_files, f"files outside the root were opened: {sorted(outside_files)[:5]}")
    score.notes.append(f"{len(opened):,} files were opened, {len(outside_files)} of them outside the root")


def _maintenance_connection(path: str, root: Path) -> bool:
    """Whether a file is outside the root and not part of Python or the system."""
    if not path.startswith("/"):
        return False
    real = os.path.realpath(path)
    system = ("/proc/", "/sys/", "/dev/", "/usr/", "/lib/", "/etc/ld.so", "/etc/localtime", str(Path(os.__file__).parent))
    code = str(Path(versions.__file__).parents[2])
    return not (
        real.startswith((str(root.resolve()), *system, code))
        or "site-packages" in real
        or ("/tmp/" in path and "outside" not in real)
    )


CASES = [
    Case(
        27,
        "missing, wrong, malformed and insufficient API keys",
        "every path without a key, with wrong keys, with a read key instead of an admin key, and with a key of one megabyte",
        "401 with WWW-Authenticate, 403 or 431; no key is logged or returned; response times reveal nothing about a key",
        keys,
        fast=True,
    ),
    Case(
        28,
        "path traversal in version names",
        f"{len(NAMES)} names and two symbolic links in activation paths and in CURRENT; strace lists the opened files",
        "all are refused, and no file outside the root is opened",
        names,
        tools=("strace",),
        fast=True,
    ),
]
