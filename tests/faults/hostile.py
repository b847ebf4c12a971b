"""Small requests that could use much memory, and cross-site requests from a browser."""

from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import request

MOST_MEMORY = 64 << 20
"""Limit for the memory growth of the process, in bytes."""


def _wide() -> list[dict[str, object]]:
    quota = {"kind": "quota", "column": "genre", "most": 1000}
    dedupe = {"kind": "dedupe", "column": "genre"}
    diversify = {"kind": "diversify", "relevance": 0.5, "pool": 2000}
    popular = {"lists": [{"kind": "model"}, {"kind": "popular"}, {"kind": "latest"}], "depth": 1000}
    return [
        {"n": 1000, "rules": [quota] * 10},
        {"n": 1000, "rules": [dedupe] * 10},
        {"n": 1000, "rules": [quota, diversify] * 5},
        {"n": 1000, "rules": [diversify] * 10},
        {"n": 1000, "rules": [quota] * 10, "channels": popular},
    ]


def widths(bench: Bench, score: Score) -> None:
    """Case 41."""
    with bench.serve(bench.root()) as server:
        server.ready()
        plain = server.post("/v1/recommend", {"n": 1000})
        score.record(plain.status == 200, f"a plain request: {plain.status}")
        before = server.memory()
        for body in _wide() * bench.many(1, 20):
            answer = server.post("/v1/recommend", body)
            score.record(answer.status == 200, f"{list(body)}: {answer.status} {answer.body[:150]!r}")
        grown = server.memory() - before
        score.require(grown < MOST_MEMORY, f"requests of less than a kilobyte added {grown >> 20} MB to the process")
        score.notes.append(f"memory {grown / 2**20:+.1f} MB")
        unread = server.post(
            "/v1/recommend", {"n": 10, "user_id": "3", "rules": [{"kind": "quota", "column": "none", "most": 1}]}
        )
        score.record(unread.status == 422 and unread.problem, f"an unknown column: {unread.status}")


PAGES = (
    {"origin": "https://other.example", "sec_fetch_site": "cross-site", "content_type": "text/plain"},
    {"origin": "https://other.example"},
    {"origin": "null", "sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
)


def pages(bench: Bench, score: Score) -> None:
    """Case 42."""
    root = bench.root()
    with bench.serve(root, "--host", "0.0.0.0", "--insecure") as server:
        server.ready()
        live = server.get("/v1/models").json["live"]
        changes = (
            "/v1/models:rollback",
            f"/v1/models/{live}:activate",
            "/v1/items:delete",
            "/v1/items:upsert",
            "/v1/interactions",
        )
        for _ in range(bench.many(1, 50)):
            for headers in PAGES:
                for path in changes:
                    answer = server.ask(request("POST", path, b"", **headers))
                    score.record(answer.status == 403 and answer.problem, f"{path} with {headers}: {answer.status}")
            raw = request("POST", "/v1/models:rollback", b"").replace(b"host: localhost", b"host: rebind.example")
            answer = server.ask(raw)
            score.record(answer.status == 421 and answer.problem, f"a foreign host name: {answer.status}")
        score.require(server.get("/v1/models").json["live"] == live, "a cross-site request changed the live version")
        own = {"origin": f"http://localhost:{server.port}", "sec_fetch_site": "same-origin"}
        answer = server.ask(request("POST", f"/v1/models/{live}:activate", b"", **own))
        score.record(answer.status == 200, f"a request from the service's own page: {answer.status} {answer.body[:150]!r}")


CASES = [
    Case(
        41,
        "small requests for expensive rankings",
        "requests of less than a kilobyte for 1,000 items with ten quotas, ten diversification rules, or channels of "
        "1,000 items",
        "all are answered, and memory grows by less than 64 MB; an unknown column is refused",
        widths,
        fast=True,
    ),
    Case(
        42,
        "cross-site requests from a browser",
        "changes sent as a browser does for a page of another origin, and with a foreign host name (DNS rebinding), to "
        "a service "
        "without API keys",
        "all are refused and nothing changes; requests from the service's own page and from programs are answered",
        pages,
        fast=True,
    ),
]
