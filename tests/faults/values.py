"""Numbers of results, and ids, of every odd kind."""

from urllib.parse import quote

from tests.faults.bench import Bench
from tests.faults.bodies import must_refuse
from tests.faults.case import Case, Score
from tests.faults.http import post, request
from tests.faults.oracle import Oracle
from tests.faults.shop import ITEMS, ODD_IDS

USERS = [str(number) for number in range(2, 150, 5)]


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


def sizes(bench: Bench, score: Score) -> None:
    """Case 17."""
    root = bench.root()
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        for text in NUMBERS:
            answer = server.post("/v1/recommend", b'{"n": %b}' % text.encode())
            named = answer.status == 422 and "/n" in answer.pointers
            score.ran(named and answer.problem, f"n is {text}: {answer.status} {answer.body[:200]!r}")
        for text in ("1e400", "NaN", "0x10", "+1", "01"):
            must_refuse(server, post("/v1/recommend", b'{"n": %b}' % text.encode()), score, f"n is {text}")
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
            must_refuse(server, post("/v1/recommend", b'{"user_id": %b}' % odd.encode()), score, f"user {odd[:20]}")
            must_refuse(
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


CASES = [
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
]
