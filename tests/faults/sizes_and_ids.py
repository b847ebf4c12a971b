"""Invalid result counts and unusual ids."""

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
"""Invalid values of n."""


def sizes(bench: Bench, score: Score) -> None:
    """Case 17."""
    root = bench.root()
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        for text in NUMBERS:
            answer = server.post("/v1/recommend", b'{"n": %b}' % text.encode())
            named = answer.status == 422 and "/n" in answer.pointers
            score.record(named and answer.problem, f"n is {text}: {answer.status} {answer.body[:200]!r}")
        for text in ("1e400", "NaN", "0x10", "+1", "01"):
            must_refuse(server, post("/v1/recommend", b'{"n": %b}' % text.encode()), score, f"n is {text}")
        for text in ("0", "-1", "1e9", "ten", "", "1000000000000000000000", "%31%00", "1.0"):
            answer = server.get(f"/v1/users/3/recommendations?n={text}")
            score.record(answer.status == 422 and answer.problem, f"?n={text}: {answer.status} {answer.body[:200]!r}")
        answer = server.post("/v1/recommend", {"n": 1000, "allow": [*ITEMS[:7], "no such item"], "exclude_seen": False})
        score.record(
            answer.status == 200 and sorted(one["item_id"] for one in answer.json["items"]) == ITEMS[:7],
            "n larger than the allow list",
        )
        for item_id in ITEMS[10:]:
            server.ask(request("DELETE", f"/v1/items/{quote(item_id, safe='')}")) if not bench.quick else None
        for user in USERS[: bench.many(5, 30)]:
            for n in (1, 1000):
                answer = server.post("/v1/recommend", {"user_id": user, "n": n})
                ids = [one["item_id"] for one in answer.json["items"]]
                score.record(answer.status == 200 and "-1" not in ids and "" not in ids, f"n is {n}: {answer.status}")
                if bench.quick and (fault := oracle.fault(answer.json, user, n)):
                    score.wrong += 1
                    score.unmet.append(f"wrong: {fault}")
        if not bench.quick:
            score.record(
                len(server.post("/v1/recommend", {"n": 1000}).json["items"]) == 10,
                "n larger than the catalogue does not return all items",
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
            score.record(
                answer.status == 200 and answer.json["item_id"] == item_id,
                f"item {item_id[:20]!r}: {answer.status} {answer.body[:150]!r}",
            )
            answer = server.post("/v1/recommend", {"allow": [item_id], "exclude_seen": False, "n": 5})
            score.record(
                [one["item_id"] for one in answer.json["items"]] == [item_id], f"allow {item_id[:20]!r}: {answer.body[:150]!r}"
            )
            answer = server.post("/v1/recommend", {"user_id": item_id})
            score.record(
                answer.status == 200 and answer.json["user"] == "known", f"user {item_id[:20]!r}: {answer.body[:150]!r}"
            )
        for item_id in new:
            path = quote(item_id, safe="")
            body = {"items": [{"item_id": item_id, "features": {"genre": "noir"}}]}
            score.record(server.post("/v1/items:upsert", body).status == 200, f"upsert {item_id[:20]!r}")
            answer = server.get(f"/v1/items/{path}")
            score.record(
                answer.status == 200 and answer.json["item_id"] == item_id, f"new item {item_id[:20]!r}: {answer.status}"
            )
            logged = server.post("/v1/interactions", {"interactions": [{"user_id": item_id, "item_id": item_id}]})
            score.record(logged.status == 200, f"interaction {item_id[:20]!r}: {logged.status} {logged.body[:150]!r}")
            known = server.get(f"/v1/users/{path}")
            score.record(
                known.status == 200 and item_id in known.json["history"],
                f"user {item_id[:20]!r}: {known.status} {known.body[:150]!r}",
            )
            score.record(server.ask(request("DELETE", f"/v1/items/{path}")).status == 200, f"delete {item_id[:20]!r}")
            score.record(server.get(f"/v1/items/{path}").status == 404, f"{item_id[:20]!r} exists after deletion")
        for odd in ('""', '"' + "x" * 10_000 + '"', "[1]", "{}", "true", "1.5", '"\\ud800"'):
            must_refuse(server, post("/v1/recommend", b'{"user_id": %b}' % odd.encode()), score, f"user {odd[:20]}")
            must_refuse(
                server, post("/v1/items:upsert", b'{"items": [{"item_id": %b}]}' % odd.encode()), score, f"item {odd[:20]}"
            )
        for path in ("%ff", "%c0%af", "%ed%a0%80", quote("x" * 5000)):
            for of in ("items", "users"):
                answer = server.get(f"/v1/{of}/{path}")
                score.record(
                    answer.status in (400, 404, 422) and answer.problem,
                    f"/v1/{of}/{path[:20]}: {answer.status} {answer.body[:150]!r}",
                )
        page = server.get("/")
        score.record(b"<script>alert" not in page.body, "the page contains an unescaped id")
        answer = server.post("/v1/recommend", {"allow": ["<script>alert(1)</script>"], "exclude_seen": False})
        score.record(answer.headers.get("x-content-type-options") == "nosniff", "an answer lacks nosniff")
        lines = server.log.read_text().splitlines()
        score.record(
            not any(line.startswith("ERROR service: forged") or "forged" in line.split(" ")[:1] for line in lines),
            "an id injected a log line",
        )
        score.record(not any("\x00" in line or "\u202e" in line for line in lines), "the log contains control characters")


CASES = [
    Case(
        17,
        "invalid numbers of results",
        f"n of {', '.join(NUMBERS)} and more",
        "422 that names n; a number beyond the catalogue returns every item once; no 500, wrong 0",
        sizes,
        fast=True,
    ),
    Case(
        18,
        "unusual ids",
        f"{len(ODD_IDS)} ids with slashes, quotes, markup, line breaks, NUL and more, through path and body",
        "each is returned exactly as sent; invalid ids are refused; no id can inject a log line or markup",
        odd_ids,
        fast=True,
    ),
]
