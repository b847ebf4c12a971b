"""Users, items, values and columns that nobody has seen."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.http import Answer
from tests.faults.oracle import Oracle
from tests.faults.tastes import K, Taster, Tastes


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
    _how_good(bench, score)


def _how_good(bench: Bench, score: Score) -> None:
    """What users took next is looked for in their own lists, and in those that they get when nobody knows them."""
    tastes = Tastes.open(bench.place("tastes"))
    asked: dict[str, Callable[[Taster], Mapping[str, Any]]] = {
        "nothing": lambda user: {"user_id": f"nobody {user.user_id}"},
        "their features": lambda user: {"user_id": f"nobody {user.user_id}", "features": user.features},
        "features and history": lambda user: {
            "user_id": f"nobody {user.user_id}",
            "features": user.features,
            "history": user.history,
            "exclude": list(dict.fromkeys(user.history)),
        },
    }
    with bench.serve(tastes.root) as server:
        server.ready()
        known, _, wrong = tastes.recall(server, lambda user: {"user_id": user.user_id}, lambda answer: _user(answer) == "known")
        score.ran(wrong == 0, f"{wrong} known users were not answered as such")
        found = {}
        for what, asks in asked.items():
            found[what], _, wrong = tastes.recall(server, asks, lambda answer: _user(answer) == "unknown")
            score.ran(wrong == 0, f"told {what}: {wrong} unknown users were not answered, and said to be unknown")
    chance = K / tastes.items
    score.notes.append(
        f"recall@{K} of what {len(tastes.users)} users took next: {known:.3f} for known users; for unknown ones "
        + ", ".join(f"{value:.3f} ({value - known:+.3f}) told {what}" for what, value in found.items())
        + f"; {chance:.3f} by chance"
    )
    for what, value in {"nothing of known users": known, **found}.items():
        score.ask(value > 2 * chance, f"told {what}: recall@{K} is {value:.3f}, {chance:.3f} by chance")


def _user(answer: Answer) -> str:
    return str(answer.json["user"])


CASES = [
    Case(
        19,
        "unknown users, items, values and columns",
        "requests that name what nobody has seen; users of a shop who took something next ask as if nobody knew them",
        "users and values are answered and said to be unknown, columns and keys are refused; wrong 0; what is answered instead "
        "finds more than twice what chance would",
        unknown,
        fast=True,
    ),
]
