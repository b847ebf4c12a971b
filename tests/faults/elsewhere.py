"""What the service depends on and does not own: the store of users on another machine, and the clock."""

import os
import re
import signal
import threading
import time
from contextlib import ExitStack
from functools import partial

from serving.processes import free_port

from recall.bundle import versions
from tests.faults.asking import Asking
from tests.faults.bench import NOISE, Bench
from tests.faults.case import Case, Score
from tests.faults.far import Proxy, redis_server
from tests.faults.http import wait_for
from tests.faults.meanwhile import meanwhile
from tests.faults.oracle import Oracle
from tests.faults.servers import Server
from tests.faults.shop import leftovers
from tests.faults.tastes import K, Tastes
from tests.faults.upserts import some_items, upsert

USERS = [str(number) for number in range(5, 150, 7)]
_BUDGET = 0.02


def store_down(bench: Bench, score: Score) -> None:
    """Case 25."""
    root = bench.root()
    oracle = Oracle(root)
    seconds = bench.many(2, 30)
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(bench.place("redis")))
        proxy = Proxy(redis.port)
        stack.callback(proxy.close)
        server = stack.enter_context(bench.serve(root, "--users", proxy.url, "--users-seconds", str(_BUDGET))).ready()
        _recovered(server)
        with Asking(server.port, USERS) as asking:
            time.sleep(seconds)
            base = asking.usual(time.perf_counter())
            worst = 0.0
            for fault in ("refuse", "hang", "reset", "slow", "flap", "SIGSTOP"):
                flapping = [partial(_flap, proxy)] if fault == "flap" else []
                if fault == "SIGSTOP":
                    redis.process.send_signal(signal.SIGSTOP)
                elif not flapping:
                    proxy.mode = fault
                broken = time.perf_counter()
                with meanwhile(*flapping):
                    time.sleep(seconds)
                if fault not in ("flap", "SIGSTOP"):
                    score.ran(_parts(server) == ["users"], f"{fault}: the answer does not say that users are degraded")
                mended = time.perf_counter()
                redis.process.send_signal(signal.SIGCONT)
                proxy.mode = "pass"
                took = _recovered(server)
                during = asking.p99(broken, mended)
                worst = max(worst, during)
                score.recovered(took)
                score.ran(took <= 5, f"{fault}: back after {took:.1f} s")
                most = bench.slower(base + 1000 * _BUDGET, 1)
                score.ask(during <= most, f"{fault}: p99 {during:.1f} ms, {base:.1f} ms before, the budget is 20 ms")
                score.notes.append(f"{fault}: p99 {during:.1f} ms, back after {took:.2f} s")
        asking.judge(score, oracle)
        score.p99 = worst
        score.notes.append(
            f"p99 {base:.1f} ms before, it may reach {most:.1f} ms: the budget of 20 ms, and {NOISE:g} ms for noise "
            "(1 s with few faults)"
        )
        score.notes.append("users had no changes, so that every answer has to be the bundle's own")
    oracle.close()
    _how_good(bench, score)


def _how_good(bench: Bench, score: Score) -> None:
    """What users took next is looked for while Redis tells what they took since the bundle was made, and while it does not."""
    tastes = Tastes.open(bench.place("tastes"))
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(bench.place("redis")))
        proxy = Proxy(redis.port)
        stack.callback(proxy.close)
        server = stack.enter_context(bench.serve(tastes.root, "--users", proxy.url, "--users-seconds", "5")).ready()
        _recovered(server)

        def recall(degraded: list[str]) -> tuple[float, list[list[str]]]:
            share, lists, wrong = tastes.recall(
                server,
                lambda user: {"user_id": user.user_id},
                lambda answer: [one["part"] for one in answer.json["degraded"]] == degraded,
            )
            score.ran(wrong == 0, f"{wrong} of {len(lists)} answers do not say that {degraded or 'nothing'} is degraded")
            return share, lists

        _, of_bundle = recall([])
        since = [{"user_id": user.user_id, "item_id": item} for user in tastes.users for item in user.since]
        for at in range(0, len(since), 500):
            answer = server.post("/v1/interactions", {"interactions": since[at : at + 500]})
            score.ran(answer.status == 200, f"interactions were not taken: {answer.status} {answer.body[:200]!r}")
        usual, lists = recall([])
        proxy.mode = "refuse"
        down, without = recall(["users"])
        proxy.mode = "pass"
        _recovered(server)
        _, again = recall([])
    score.ask(without == of_bundle, "without Redis the bundle's own users are answered with something else")
    score.ask(again == lists, "after Redis came back answers are others than before")
    score.ask(
        usual > down, f"what users took since the bundle is of no use: recall@{K} {usual:.3f} with it, {down:.3f} without"
    )
    score.notes.append(
        f"recall@{K} of what {len(tastes.users)} users took next: {usual:.3f} with what Redis holds of them, "
        f"{down:.3f} ({down - usual:+.3f}) while it is down, which is the bundle's own"
    )


def _flap(proxy: Proxy, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.15):
        proxy.mode = ("refuse", "pass", "hang", "pass", "reset", "pass")[number % 6]
        number += 1


def _parts(server: Server) -> list[str]:
    return [one["part"] for one in server.post("/v1/recommend", {"user_id": "5"}).json["degraded"]]


def _recovered(server: Server) -> float:
    began = time.perf_counter()
    while _parts(server):
        if time.perf_counter() > began + 30:
            raise TimeoutError("users are degraded for ever")
        time.sleep(0.02)
    return time.perf_counter() - began


def clocks(bench: Bench, score: Score) -> None:
    """Case 26."""
    root, port = bench.root(), free_port()
    oracle = Oracle(root)
    sequence, number = 0, 0
    zone = {"TZ": "Europe/Berlin"}
    clock = bench.place("clock")
    for said in ("-1h", "+1h", "@2038-01-19 03:14:00", "@2026-10-25 02:59:50", "@1971-01-01 00:00:00")[: bench.many(3, 5)]:
        faked = ("faketime", "-f", said)
        with bench.serve(root, port=port, before=faked, environment=zone) as server:
            server.ready()
            with Asking(port, USERS, rate=50) as asking:
                for _ in range(3):
                    changes = some_items("clock", number)
                    answer = server.ask(upsert(changes, f"clock-{number}"))
                    well = answer.status == 200 and answer.json["sequence"] > sequence
                    score.ran(well, f"{said}: a change: {answer.status} {answer.body[:200]!r}, {sequence} was the last")
                    sequence, number = answer.json["sequence"], number + 1
                    oracle.changed(sequence, changes)
                newer = bench.shop.publish(root, number % 2)  # its publisher has the right time
                deadline = time.monotonic() + 10
                while server.post("/v1/recommend", {}).json["bundle"] != newer.name and time.monotonic() < deadline:
                    time.sleep(0.02)
                score.ran(
                    server.post("/v1/recommend", {}).json["bundle"] == newer.name, f"{said}: the newer version is not served"
                )
            asking.judge(score, oracle)
            log = server.log.read_text()
            score.ask("Traceback" not in log, f"{said}: a trace is in the log: {log[-300:]}")
    clock.write_text("+0\n")
    jumping = (
        "env",
        f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_NO_CACHE=1",
        f"LD_PRELOAD={_library()}",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    )
    with bench.serve(root, port=port, before=jumping, environment=zone) as server:
        server.ready()
        with Asking(port, USERS, rate=50) as asking:
            for jump in ("+1h", "-1h", "+20y", "+0")[: bench.many(4, 4)]:
                clock.write_text(jump + "\n")
                time.sleep(bench.many(1, 10))
                changes = some_items("jump", number)
                answer = server.ask(upsert(changes, f"jump-{number}"))
                score.ran(
                    answer.status == 200 and answer.json["sequence"] > sequence,
                    f"after a jump of {jump}: {answer.body[:200]!r}",
                )
                sequence, number = answer.json["sequence"], number + 1
                oracle.changed(sequence, changes)
                late = server.post("/v1/recommend", {}, x_request_timeout_ms="5000")
                score.ran(late.status == 200, f"after a jump of {jump}, a deadline of 5 s: {late.status}")
        asking.judge(score, oracle)
        score.ran(wait_for(port, "/health/ready", 200, 5).status == 200, "it is not ready after its clock has jumped")
    score.ask(not leftovers(root) and bool(versions.live_name(root)), "something is left in staging")
    oracle.close()


def _library() -> str:
    found = [line for line in os.popen("faketime -f +0 env").read().splitlines() if re.match("LD_PRELOAD=", line)]
    return found[0].partition("=")[2]


CASES = [
    Case(
        25,
        "the store of users is down",
        "the way to Redis is refused, hangs, is reset, is slow by 2 s, flaps; Redis itself is stopped",
        "lost 0, wrong 0, answers say that users are degraded and are the bundle's own; "
        "p99 at most the budget of 20 ms, and 5 ms for noise, more than before; back within 5 s",
        store_down,
        tools=("redis-server",),
    ),
    Case(
        26,
        "the clock jumps",
        "services whose clocks are an hour off, in 2038, in the hour that comes twice, in 1971; one whose clock jumps",
        "changes and versions go by their numbers; no deadline is missed for it; lost 0, wrong 0",
        clocks,
        tools=("faketime",),
    ),
]
