"""Unknown users, items, values and columns."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.held_out import HeldOutShop, HeldOutUser, K
from tests.faults.http import Answer
from tests.faults.oracle import Oracle


def unknown(bench: Bench, score: Score) -> None:
    """Case 19."""
    root = bench.root()
    oracle = Oracle(root)
    with bench.serve(root) as server:
        server.ready()
        for number in range(bench.many(20, 500)):
            answer = server.post("/v1/recommend", {"user_id": f"unknown {number}", "n": 20})
            score.record(
                answer.status == 200 and answer.json["user"] == "unknown",
                f"an unknown user: {answer.status} {answer.body[:150]!r}",
            )
            score.wrong += bool(oracle.fault(answer.json, None, 20))  # answered as an anonymous user
            body = {"user_id": "3", "n": 20, "context": {"device": f"never seen {number}"}}
            answer = server.post("/v1/recommend", body)
            score.record(
                answer.status == 200 and "device" in answer.json["unknown"],
                f"an unknown value: {answer.status} {answer.body[-250:]!r}",
            )
            answer = server.post("/v1/recommend", {"history": [f"no item {number}"], "exclude": ["none"], "n": 3})
            score.record(
                answer.status == 200 and bool(answer.json["warnings"]), f"unknown items: {answer.status} {answer.body[-250:]!r}"
            )
            for mistaken in (
                {"features": {f"feild{number}": 1}},
                {"context": {"dvice": "web"}},
                {"userid": "3"},
                {"filter": {"gerne": "noir"}},
            ):
                answer = server.post("/v1/recommend", mistaken)
                score.record(answer.status == 422 and answer.problem, f"{mistaken}: {answer.status} {answer.body[:150]!r}")
        metrics = server.get("/metrics").body.decode()
        flagged = next((line for line in metrics.splitlines() if line.startswith("recall_fallback_total")), "")
        score.require(
            flagged.endswith((f" {bench.many(20, 500)}.0", f" {bench.many(20, 500)}")),
            f"recall_fallback_total is {flagged!r}",
        )
    oracle.close()
    _recall_of_unknown_users(bench, score)


def _recall_of_unknown_users(bench: Bench, score: Score) -> None:
    """Measure recall on held-out items for known users, and for the same users under unknown ids."""
    shop = HeldOutShop.open(bench.place("shop"))
    asked: dict[str, Callable[[HeldOutUser], Mapping[str, Any]]] = {
        "the id alone": lambda user: {"user_id": f"unknown {user.user_id}"},
        "features": lambda user: {"user_id": f"unknown {user.user_id}", "features": user.features},
        "features and history": lambda user: {
            "user_id": f"unknown {user.user_id}",
            "features": user.features,
            "history": user.history,
            "exclude": list(dict.fromkeys(user.history)),
        },
    }
    with bench.serve(shop.root) as server:
        server.ready()
        known, _, wrong = shop.recall(server, lambda user: {"user_id": user.user_id}, lambda answer: _user(answer) == "known")
        score.record(wrong == 0, f"{wrong} known users were not flagged as known")
        found = {}
        for what, asks in asked.items():
            found[what], _, wrong = shop.recall(server, asks, lambda answer: _user(answer) == "unknown")
            score.record(wrong == 0, f"with {what}: {wrong} unknown users were not flagged as unknown")
    chance = K / shop.items
    score.notes.append(
        f"recall@{K} on the held-out items of {len(shop.users)} users: {known:.3f} for known users; for unknown users "
        + ", ".join(f"{value:.3f} ({value - known:+.3f}) with {what}" for what, value in found.items())
        + f"; {chance:.3f} by chance"
    )
    for what, value in {"a known user": known, **found}.items():
        score.require(value > 2 * chance, f"with {what}: recall@{K} is {value:.3f}, {chance:.3f} by chance")


def _user(answer: Answer) -> str:
    return str(answer.json["user"])


CASES = [
    Case(
        19,
        "unknown users, items, values and columns",
        "requests that name unknown ones; known users repeat their requests under unknown ids",
        "unknown users and values are answered and flagged, unknown columns and keys are refused; wrong 0; recall for "
        "unknown users "
        "is more than twice that of chance",
        unknown,
        fast=True,
    ),
]
