"""Small requests that would cost much memory, and requests that a browser sends for another site's page."""

from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import request

MOST_MEMORY = 64 << 20
"""Bytes that a request of a kilobyte may add to the process; the catalogue of the board has thousands of items."""


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
        score.ran(plain.status == 200, f"a plain request: {plain.status}")
        before = server.memory()
        for body in _wide() * bench.many(1, 20):
            answer = server.post("/v1/recommend", body)
            score.ran(answer.status == 200, f"{list(body)}: {answer.status} {answer.body[:150]!r}")
        grown = server.memory() - before
        score.ask(grown < MOST_MEMORY, f"requests of less than a kilobyte made the process {grown >> 20} MB larger")
        score.notes.append(f"memory {grown / 2**20:+.1f} MB")
        unread = server.post(
            "/v1/recommend", {"n": 10, "user_id": "3", "rules": [{"kind": "quota", "column": "none", "most": 1}]}
        )
        score.ran(unread.status == 422 and unread.problem, f"a column that items do not have: {unread.status}")


PAGES = (
    {"origin": "https://strange.example", "sec_fetch_site": "cross-site", "content_type": "text/plain"},
    {"origin": "https://strange.example"},
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
                    score.ran(answer.status == 403 and answer.problem, f"{path} with {headers}: {answer.status}")
            raw = request("POST", "/v1/models:rollback", b"").replace(b"host: localhost", b"host: rebound.example")
            answer = server.ask(raw)
            score.ran(answer.status == 421 and answer.problem, f"a name that stands for this machine: {answer.status}")
        score.ask(server.get("/v1/models").json["live"] == live, "a page of another site has changed the live version")
        own = {"origin": f"http://localhost:{server.port}", "sec_fetch_site": "same-origin"}
        answer = server.ask(request("POST", f"/v1/models/{live}:activate", b"", **own))
        score.ran(answer.status == 200, f"the service's own page: {answer.status} {answer.body[:150]!r}")


CASES = [
    Case(
        41,
        "small requests that ask for wide rankings",
        "requests of less than a kilobyte for 1,000 items with ten quotas, ten diversifications, or channels of 1,000 items",
        "all are answered, and the process grows by less than 64 MB; what names no column is refused",
        widths,
        fast=True,
    ),
    Case(
        42,
        "pages of other sites in a browser",
        "changes sent as a browser sends them for a page of another origin, and under a public name that stands for this "
        "machine (DNS rebinding), to a service without keys",
        "all are refused and nothing changes; the service's own page and programs are answered",
        pages,
        fast=True,
    ),
]
