"""Users, items, values and columns that nobody has seen."""

from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.oracle import Oracle


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


CASES = [
    Case(
        19,
        "unknown users, items, values and columns",
        "requests that name what nobody has seen",
        "users and values are answered and said to be unknown, columns and keys are refused; wrong 0",
        unknown,
        fast=True,
    ),
]
