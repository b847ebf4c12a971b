"""Publishers that crash, hang, or run concurrently."""

import os
import signal
import time
from pathlib import Path

from recall._file_system import locked
from recall.bundle import versions
from recall.errors import PublishBusyError, RecallError
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.publisher import publisher, stopped
from tests.faults.servers import failing
from tests.faults.shop import copy, leftovers, verified_number

CALLS = ("openat", "mkdir", "write", "copy_file_range", "sendfile", "chmod", "fsync", "flock", "rename", "unlink", "rmdir")
"""System calls at which a publisher is killed; which of them occur depends on the kernel and libraries."""


def _state(root: Path) -> int:
    """Return the number of the live version, or -1 if it is torn (incomplete or inconsistent)."""
    try:
        return verified_number(root)
    except (RecallError, ValueError, OSError):
        return -1


def kill_at_random(bench: Bench, score: Score) -> None:
    """Case 1."""
    root, log = bench.root(), bench.place("published")
    log.touch()
    template = bench.shop.templates[1]
    last = verified_number(root)
    with publisher(root, template) as one:
        for _ in range(bench.many(25, 200)):
            pid = one.begin("loop", log)
            time.sleep(bench.random.uniform(0, 0.15))
            os.kill(pid, signal.SIGKILL)
            one.end()
            names = log.read_text().split()
            least = max([last, *(versions.number(name) for name in names)])
            now = _state(root)
            score.record(now >= least, f"after version {least} was published, version {now} is live (-1: torn)")
            last = max(now, last)
        began = time.perf_counter()
        one.begin("times", 1, log)
        ended = one.end()
        score.recovered(time.perf_counter() - began)
    score.require(ended == 0 and _state(root) > last, "the next publication did not succeed")
    score.require(not leftovers(root), f"{len(leftovers(root))} folders left in staging")
    score.notes.append(f"{versions.number(versions.live_name(root)):,} versions published during the case")


def kill_at_every_call(bench: Bench, score: Score) -> None:
    """Case 2."""
    root = bench.root()
    points: dict[str, int] = {}
    last = verified_number(root)
    with publisher(root, bench.shop.templates[1]) as one:
        for call in CALLS if not bench.quick else ("fsync", "rename"):
            for at in range(1, 1000):
                pid = one.begin("once")
                while not stopped(pid):
                    time.sleep(0.002)
                with failing(pid, call, f"signal=KILL:when={at}"):
                    os.kill(pid, signal.SIGCONT)
                    ended = one.end()
                now = _state(root)
                if ended == 0:
                    score.require(now > last, f"a publisher that was not killed left version {now} live, as before ({last})")
                    last = max(now, last)
                    break
                points[call] = at
                score.record(now >= last, f"killed at {call} {at}: version {now} is live, was {last} (-1: torn)")
                last = max(now, last)
        one.begin("times", 1, bench.place("published"))
        ended = one.end()
    score.require(ended == 0 and _state(root) > last, "the next publication did not succeed")
    score.require(not leftovers(root), f"{len(leftovers(root))} folders left in staging")
    score.notes.append("crash points: " + ", ".join(f"{call} {count}" for call, count in points.items()))


def two_at_once(bench: Bench, score: Score) -> None:
    """Case 11."""
    root = bench.place("bundles")
    bench.shop.publish(root)
    logs = [bench.place("published") for _ in range(2)]
    count = bench.many(15, 100)
    with publisher(root, bench.shop.templates[0]) as one, publisher(root, bench.shop.templates[1]) as other:
        for who, where in zip((one, other), logs, strict=True):
            who.begin("times", count, where)
        ends = [who.end() for who in (one, other)]
        names = [where.read_text().split() for where in logs]
        numbers = [[versions.number(name) for name in of] for of in names]
        score.runs += 2 * count
        score.require(ends == [0, 0], f"exit codes of the publishers: {ends}")
        score.require(all(of == sorted(of) for of in numbers), "version numbers do not increase")
        score.require(
            sorted(numbers[0] + numbers[1]) == list(range(2, 2 * count + 2)),
            "a version is missing, or a number was used twice",
        )
        score.require(_state(root) == 2 * count + 1, "the last version is not live")

        with bench.serve(root) as server:
            server.ready()
            pid = one.begin("lock")
            _until_locked(root)
            os.kill(pid, signal.SIGSTOP)  # holds the lock without progress
            before = versions.live_name(root)
            try:
                with locked(root / versions.LOCK, 0.3, versions.PUBLISHING):
                    pass
                refused = False
            except PublishBusyError:
                refused = True
            score.record(refused, "a second publisher got the lock while another held it")
            if not bench.quick:  # the service waits ten seconds for the lock
                oldest = versions.versions(root)[0].name
                answer = server.post(f"/v1/models/{oldest}:activate", b"")
                score.record(answer.status == 409 and answer.json["type"].endswith(":publishing"), f"activate: {answer.status}")
            score.record(versions.live_name(root) == before, "the live version has changed")
            os.kill(pid, signal.SIGKILL)
            killed = time.perf_counter()
            one.end()
            other.begin("times", 1, logs[1])
            ended = other.end()
            took = time.perf_counter() - killed
        score.recovered(took)
        score.record(ended == 0 and _state(root) == 2 * count + 2, "publication failed after the lock holder was killed")
        score.require(took <= bench.within(1), f"the lock of a killed publisher was free after {took:.2f} s")
        _outdated_rebuild(bench, root, score)
    score.require(not leftovers(root), f"{len(leftovers(root))} folders left in staging")


def _until_locked(root: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with locked(root / versions.LOCK, 0, versions.PUBLISHING):
                pass
        except PublishBusyError:
            return
        time.sleep(0.01)
    raise TimeoutError("the lock was not taken")


def _outdated_rebuild(bench: Bench, root: Path, score: Score) -> None:
    """A rebuild of an older version must not replace one that was published since it started."""
    expected = versions.number(versions.live_name(root))
    newer = bench.shop.publish(root, 1)
    try:
        with versions.staging(root) as staged:
            copy(bench.shop.templates[0], staged)
            versions.publish(staged, root, expected=expected)
        refused = False
    except RecallError:
        refused = True
    score.record(refused and versions.live_name(root) == newer.name, "a rebuild of an older version replaced a newer one")


CASES = [
    Case(
        1,
        "kill -9 during publication, at random times",
        "SIGKILL to a publisher after 0 to 150 ms",
        "the old or the new version is live and intact, and no version that was reported as published is lost; "
        "the next publication removes what the crash left in staging",
        kill_at_random,
        fast=True,
    ),
    Case(
        2,
        "kill -9 at every system call of a publication",
        f"strace kills the publisher at the N-th {', '.join(CALLS)}, for N = 1, 2, ... until it survives",
        "as in case 1, at every crash point",
        kill_at_every_call,
        tools=("strace",),
    ),
    Case(
        11,
        "concurrent, stopped and killed publishers",
        "two processes publish; SIGSTOP, then SIGKILL, to one that holds the lock; a rebuild of a version that is no "
        "longer live",
        "version numbers increase, none is lost or used twice; a held lock excludes other publishers, and is free within 1 s "
        "of the death of its holder",
        two_at_once,
        fast=True,
    ),
]
