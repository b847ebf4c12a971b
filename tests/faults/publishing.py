"""Publishers that are killed, stopped, or in each other's way."""

import os
import signal
import time
from pathlib import Path

from recall.bundle import versions
from recall.errors import PublishBusyError, RecallError
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.publisher import publisher, stopped
from tests.faults.servers import failing
from tests.faults.shop import copy, leftovers, whole

CALLS = ("openat", "mkdir", "write", "copy_file_range", "sendfile", "chmod", "fsync", "flock", "rename", "unlink", "rmdir")
"""System calls at which a publisher dies; a kernel or a library may do some of its work with others of them."""


def _state(root: Path) -> int:
    """Sequence of the live version, and -1 where it is torn."""
    try:
        return whole(root)
    except (RecallError, ValueError, OSError):
        return -1


def kill_at_random(bench: Bench, score: Score) -> None:
    """Case 1."""
    root, told = bench.root(), bench.place("told")
    told.touch()
    template = bench.shop.templates[1]
    last = whole(root)
    with publisher(root, template) as one:
        for _ in range(bench.many(25, 200)):
            pid = one.begin("loop", told)
            time.sleep(bench.random.uniform(0, 0.15))
            os.kill(pid, signal.SIGKILL)
            one.end()
            names = told.read_text().split()
            least = max([last, *(versions.number(name) for name in names)])
            now = _state(root)
            score.ran(now >= least, f"version {now} is live and whole after {least} was published (-1: torn)")
            last = max(now, last)
        began = time.perf_counter()
        one.begin("times", 1, told)
        ended = one.end()
        score.recovered(time.perf_counter() - began)
    score.ask(ended == 0 and _state(root) > last, "the next publication did not succeed")
    score.ask(not leftovers(root), f"left in staging: {len(leftovers(root))}")
    score.notes.append(f"{versions.number(versions.live_name(root)):,} versions published meanwhile")


def kill_at_every_call(bench: Bench, score: Score) -> None:
    """Case 2."""
    root = bench.root()
    points: dict[str, int] = {}
    last = whole(root)
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
                    score.ask(now > last, f"a publisher that nobody killed left version {now} live, {last} was before")
                    last = max(now, last)
                    break
                points[call] = at
                score.ran(now >= last, f"killed at {call} {at}: version {now} is live, {last} was before (-1: torn)")
                last = max(now, last)
        one.begin("times", 1, bench.place("told"))
        ended = one.end()
    score.ask(ended == 0 and _state(root) > last, "the next publication did not succeed")
    score.ask(not leftovers(root), f"left in staging: {len(leftovers(root))}")
    score.notes.append("crash points: " + ", ".join(f"{call} {count}" for call, count in points.items()))


def two_at_once(bench: Bench, score: Score) -> None:
    """Case 11."""
    root = bench.place("bundles")
    bench.shop.publish(root)
    told = [bench.place("told") for _ in range(2)]
    count = bench.many(15, 100)
    with publisher(root, bench.shop.templates[0]) as one, publisher(root, bench.shop.templates[1]) as other:
        for who, where in zip((one, other), told, strict=True):
            who.begin("times", count, where)
        ends = [who.end() for who in (one, other)]
        names = [where.read_text().split() for where in told]
        numbers = [[versions.number(name) for name in of] for of in names]
        score.runs += 2 * count
        score.ask(ends == [0, 0], f"publishers ended with {ends}")
        score.ask(all(of == sorted(of) for of in numbers), "versions do not increase")
        score.ask(
            sorted(numbers[0] + numbers[1]) == list(range(2, 2 * count + 2)),
            "a version is missing, or a number was given twice",
        )
        score.ask(_state(root) == 2 * count + 1, "the last version is not live")

        with bench.serve(root) as server:
            server.ready()
            pid = one.begin("lock")
            _until_locked(root)
            os.kill(pid, signal.SIGSTOP)  # it holds the lock and does nothing
            before = versions.live_name(root)
            try:
                with versions.locked(root / versions.LOCK, 0.3, versions.PUBLISHING):
                    pass
                refused = False
            except PublishBusyError:
                refused = True
            score.ran(refused, "a second publisher was let in beside one that holds the lock")
            if not bench.quick:  # the service waits for ten seconds
                oldest = versions.versions(root)[0].name
                answer = server.post(f"/v1/models/{oldest}:activate", b"")
                score.ran(answer.status == 409 and answer.json["type"].endswith(":publishing"), f"activate: {answer.status}")
            score.ran(versions.live_name(root) == before, "the live version has changed")
            os.kill(pid, signal.SIGKILL)
            killed = time.perf_counter()
            one.end()
            other.begin("times", 1, told[1])
            ended = other.end()
            took = time.perf_counter() - killed
        score.recovered(took)
        score.ran(ended == 0 and _state(root) == 2 * count + 2, "nobody could publish after the holder was killed")
        score.ask(took <= bench.within(1), f"the lock of a dead publisher was free after {took:.2f} s")
        _made_from_an_older_one(bench, root, score)
    score.ask(not leftovers(root), f"left in staging: {len(leftovers(root))}")


def _until_locked(root: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with versions.locked(root / versions.LOCK, 0, versions.PUBLISHING):
                pass
        except PublishBusyError:
            return
        time.sleep(0.01)
    raise TimeoutError("nobody took the lock")


def _made_from_an_older_one(bench: Bench, root: Path, score: Score) -> None:
    """A rebuild of the version that was live when it began must not undo one that was published meanwhile."""
    expected = versions.number(versions.live_name(root))
    newer = bench.shop.publish(root, 1)
    try:
        with versions.staging(root) as staged:
            copy(bench.shop.templates[0], staged)
            versions.publish(staged, root, expected=expected)
        refused = False
    except RecallError:
        refused = True
    score.ran(refused and versions.live_name(root) == newer.name, "a rebuild of an older version undid a newer one")


CASES = [
    Case(
        1,
        "kill -9 during publish, at random",
        "SIGKILL to a publisher at a random moment of 150 ms",
        "the old version or the new one is live, whole, and what was told is published is; the next publisher cleans up",
        kill_at_random,
        fast=True,
    ),
    Case(
        2,
        "kill -9 at every system call of publish",
        f"strace kills it at the N-th {', '.join(CALLS)}, for N = 1, 2, ... until it lives",
        "as 1, at every point",
        kill_at_every_call,
        tools=("strace",),
    ),
    Case(
        11,
        "two publishers at once, one that is stopped, one that is dead",
        "two processes publish; SIGSTOP, then SIGKILL, to one that holds the lock; a rebuild of a version that is live no more",
        "versions increase, none is lost or numbered twice; a holder of the lock keeps others out, a dead one's is free in 1 s",
        two_at_once,
        fast=True,
    ),
]
