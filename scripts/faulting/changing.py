"""Changes that were acknowledged stay, whatever happens to the process, the disk, or the version that is served."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from serving.processes import free_port

from faulting.asking import Asking
from faulting.bench import Bench
from faulting.case import Case, Score
from faulting.http import Answer, ask, post
from faulting.oracle import Changes, Oracle
from faulting.publisher import publisher
from faulting.servers import Server, failing
from faulting.shop import GENRES, leftovers
from recall.bundle import publish

USERS = [str(number) for number in range(1, 150, 4)]


class Upserting:
    """Adds and deletes items all the while, each change under a key of its own, until the block ends.

    Attributes:
        acknowledged: sequence and items of every change that was answered 2xx, by its key.
        unanswered: those that were not, by their keys.
    """

    def __init__(self, port: int, prefix: str, rate: float) -> None:
        self.acknowledged: dict[str, tuple[int, Changes]] = {}
        self.unanswered: dict[str, Changes] = {}
        self.refused: list[Answer] = []
        self._port, self._prefix, self._rate = port, prefix, rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._change, daemon=True)

    def __enter__(self) -> "Upserting":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join(60)

    def _change(self) -> None:
        number = 0
        while not self._stop.is_set():
            began = time.perf_counter()
            key, changes = f"{self._prefix}-{number}", some_items(self._prefix, number)
            try:
                answer = ask(self._port, upsert(changes, key))
            except OSError:
                self.unanswered[key] = changes
                if self._stop.wait(0.01):
                    break
            else:
                if answer.status == 200:
                    self.acknowledged[key] = (answer.json["sequence"], changes)
                else:
                    self.unanswered[key] = changes
                    self.refused.append(answer)
            number += 1
            self._stop.wait(max(0.0, 1 / self._rate - (time.perf_counter() - began)))


def some_items(prefix: str, number: int) -> Changes:
    """A batch of changes: two new items, and every other time one of the catalogue replaced."""
    genre = GENRES[number % len(GENRES)]
    items: dict[str, dict[str, object]] = {
        f"{prefix}/{number}/{at}": {"genre": genre, "price": float(number % 50 + at)} for at in range(2)
    }
    if number % 2:
        items[str(number % 1000)] = {"genre": genre, "price": float(number % 37)}
    return items


def upsert(changes: Changes, key: str) -> bytes:
    """The request that makes changes."""
    items = [{"item_id": item_id, "features": values} for item_id, values in changes.items()]
    return post("/v1/items:upsert", {"items": items}, idempotency_key=key)


def killed_while_changing(bench: Bench, score: Score) -> None:
    """Case 3."""
    root, port = bench.root(), free_port()
    oracle = Oracle(root)
    everything: set[str] = set()
    upserting: Upserting | None = None
    loads = []
    for number in range(bench.many(5, 50)):
        with bench.serve(root, port=port) as server:
            server.ready()
            loads.append(time.perf_counter() - server.started)
            if upserting is not None:
                _after_the_kill(server, score, oracle, upserting, everything, bench)
            with Upserting(port, f"new-{number}", 1000) as upserting:
                time.sleep(bench.random.uniform(0.2, 0.8) if bench.quick else bench.random.uniform(2, 5))
                server.kill()
                upserting.stop()
        score.ran(bool(upserting.acknowledged), "nothing was acknowledged before the kill")
    assert upserting is not None
    with bench.serve(root, port=port) as server:
        server.ready()
        loads.append(time.perf_counter() - server.started)
        _after_the_kill(server, score, oracle, upserting, everything, bench, sample=200)
    oracle.close()
    score.ask(bool(everything), "nothing was given")
    for seconds in loads[1:]:
        score.recovered(seconds)
    score.ask(
        score.recovery <= bench.within(2 + loads[0]),
        f"ready after {score.recovery:.1f} s, {loads[0]:.1f} s before anything was changed",
    )
    score.notes.append(f"{len(everything):,} items were given; the first start took {loads[0]:.1f} s")


def _after_the_kill(
    server: Server,
    score: Score,
    oracle: Oracle,
    upserting: Upserting,
    everything: set[str],
    bench: Bench,
    sample: int = 50,
) -> None:
    """Everything that was acknowledged is there, and what was not can be sent again, twice, and is taken once."""
    for sequence, changes in upserting.acknowledged.values():
        oracle.changed(sequence, changes)
        everything.update(changes)
    for item_id in bench.random.sample(sorted(everything), min(sample, len(everything))):
        if server.get(f"/v1/items/{quote(item_id, safe='')}").status != 200:
            score.lost_ack += 1
    for key, changes in list(upserting.unanswered.items())[:2]:
        first, second = (server.ask(upsert(changes, key)) for _ in range(2))
        same = first.status == second.status == 200 and first.json["sequence"] == second.json["sequence"]
        score.ask(same, f"a change that was sent again: {first.status} {second.status} {second.body[:200]!r}")
        if same:
            oracle.changed(first.json["sequence"], changes)
    for key, (sequence, changes) in list(upserting.acknowledged.items())[-2:]:
        again = server.ask(upsert(changes, key))
        score.ask(
            again.status == 200 and again.json["sequence"] == sequence,
            f"an acknowledged change was taken twice: {again.body[:200]!r}",
        )
    known = list(upserting.unanswered)[2:]
    for user in USERS[:5] if not known else ():  # else some changes may be there that nobody knows the sequence of
        answer = server.post("/v1/recommend", {"user_id": user, "n": 50}).json
        if fault := oracle.fault(answer, user, 50):
            score.wrong += 1
            score.missed.append(f"wrong: {fault}")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory, of a size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk_full(bench: Bench, score: Score) -> None:
    """Case 9."""
    _publishers_limited(bench, score)
    if not _may_mount(bench.place("try")):
        score.notes.append("mounting is not allowed here: only publishers were limited, by RLIMIT_FSIZE")
        return
    with small_disk(bench.place("disk"), "16m") as disk, ExitStack() as stack:
        root = bench.shop.root(disk / "bundles")
        live = publish.live_name(root)
        oracle = Oracle(root)
        stack.callback(oracle.close)
        server = stack.enter_context(bench.serve(root)).ready()
        with Asking(server.port, USERS, rate=50) as asking:
            given = server.ask(upsert(some_items("first", 0), "first"))
            score.ran(given.status == 200, f"a change before the disk is full: {given.status} {given.body[:200]!r}")
            oracle.changed(given.json["sequence"], some_items("first", 0))
            ballast = disk / "ballast"
            _fill(ballast)
            refused = 0
            for number in range(bench.many(20, 200)):
                answer = server.ask(upsert(some_items("full", number), f"full-{number}"))
                if answer.status == 200:  # the journal had room left in it
                    oracle.changed(answer.json["sequence"], some_items("full", number))
                    _fill(ballast)
                else:
                    refused += 1
                    score.ran(answer.status == 507 and answer.problem, f"a full disk: {answer.status} {answer.body[:200]!r}")
            score.ask(refused > 0, "the disk was never full")
            with publisher(root, bench.shop.templates[1]) as one:
                one.begin("times", 1, bench.place("told"))
                ended = one.end()
                score.ran(ended > 0 and publish.live_name(root) == live, f"a publication on a full disk ended with {ended}")
                score.ask(not leftovers(root), "a part of a bundle is left on the full disk")
            ballast.unlink()
            freed = time.perf_counter()
            answer = server.ask(upsert(some_items("after", 0), "after"))
            score.ran(answer.status == 200, f"after space was freed: {answer.status} {answer.body[:200]!r}")
            score.recovered(time.perf_counter() - freed)
            if answer.status == 200:
                oracle.changed(answer.json["sequence"], some_items("after", 0))
            newer = bench.shop.publish(root, 1)
            _served_within(server, newer.name, 20)
            time.sleep(0.3)
        asking.judge(score, oracle)


def _may_mount(folder: Path) -> bool:
    try:
        with small_disk(folder, "1m"):
            return True
    except subprocess.CalledProcessError:
        return False


def _publishers_limited(bench: Bench, score: Score) -> None:
    root = bench.root()
    live = publish.live_name(root)
    with publisher(root, bench.shop.templates[1]) as one:
        for most in (0, 1000, 20_000, 100_000)[: bench.many(3, 4)]:
            one.begin("small", most)
            ended = one.end()
            well = ended > 0 and publish.live_name(root) == live and not leftovers(root)
            score.ran(well, f"no file may grow beyond {most} bytes: ended with {ended}, left {leftovers(root)}")


def _fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


def _served_within(server: Server, version: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while server.post("/v1/recommend", {"n": 1}).json["bundle"] != version:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{version} was not served within {seconds:g} s: {server.log.read_text()[-500:]}")
        time.sleep(0.02)


def fsync_fails(bench: Bench, score: Score) -> None:
    """Case 10."""
    for number, (calls, error) in enumerate((("fsync,fdatasync", "EIO"), ("fsync,fdatasync", "ENOSPC"), ("pwrite64", "EIO"))):
        root, port = bench.root(), free_port()
        oracle = Oracle(root)
        acknowledged: dict[str, Changes] = {}
        with bench.serve(root, port=port) as server:
            server.ready()
            first = some_items(f"before {number}", 0)
            answer = server.ask(upsert(first, "before"))
            oracle.changed(answer.json["sequence"], first)
            acknowledged["before"] = first
            with Asking(port, USERS, rate=50) as asking:
                with failing(server.process.pid, calls, f"error={error}"):
                    for at in range(bench.many(5, 20)):
                        changes = some_items(f"failing {number}", at)
                        answer = server.ask(upsert(changes, f"failing-{at}"))
                        well = answer.problem and answer.status in (500, 503, 507)
                        score.ran(well, f"{calls} {error}: {answer.status} {answer.body[:200]!r}")
                        if answer.status == 200:
                            acknowledged[f"failing-{at}"] = changes
                            oracle.changed(answer.json["sequence"], changes)
                mended = time.perf_counter()
                after = some_items(f"after {number}", 0)
                answer = server.ask(upsert(after, "after"))
                while answer.status != 200 and time.perf_counter() < mended + 20:
                    time.sleep(0.1)
                    answer = server.ask(upsert(after, "after"))
                score.ran(answer.status == 200, f"after {calls} worked again: {answer.status} {answer.body[:200]!r}")
                score.recovered(time.perf_counter() - mended)
                if answer.status == 200:
                    oracle.changed(answer.json["sequence"], after)
                    acknowledged["after"] = after
                time.sleep(0.2)
            asking.judge(score, oracle)
            server.kill()
        with bench.serve(root, port=port) as server:
            server.ready()
            for changes in acknowledged.values():
                for item_id in changes:
                    score.lost_ack += server.get(f"/v1/items/{quote(item_id, safe='')}").status != 200
        oracle.close()


def swapped(bench: Bench, score: Score) -> None:
    """Case 12."""
    root = bench.root()
    oracle = Oracle(root)
    swaps, pause = bench.many(8, 150), 0.5 if bench.quick else 2.0
    with bench.serve(root) as server:
        server.ready()
        with Asking(server.port, USERS) as asking:
            time.sleep(bench.many(3, 30))
            memory, began = server.memory(), time.perf_counter()
            for number in range(swaps):
                due = began + (number + 1) * pause
                newer = bench.shop.publish(root, (number + 1) % 2)
                changes = some_items("meanwhile", number)
                answer = server.ask(upsert(changes, f"meanwhile-{number}"))
                score.ran(answer.status == 200, f"a change meanwhile: {answer.status} {answer.body[:200]!r}")
                oracle.changed(answer.json["sequence"], changes)
                if number == 9:
                    memory = server.memory()
                time.sleep(max(0.0, due - time.perf_counter()))
            _served_within(server, newer.name, 20)
            ended = time.perf_counter()
            time.sleep(bench.many(1, 10))
            after = server.memory()
        base, during = asking.p99(until=began), asking.p99(began, ended)
        asking.judge(score, oracle)
        score.p99 = during
        versions = {one.answer.json["bundle"] for one in asking.asked if one.answer is not None and one.answer.status == 200}
        score.ask(len(versions) > swaps // 2, f"only {len(versions)} versions were served")
        if not bench.quick:  # a few seconds tell nothing of either
            score.ask(during <= 1.5 * base, f"p99 is {during:.1f} ms, {base:.1f} ms before")
            score.ask(after <= 1.1 * memory, f"{after / 1e6:.0f} MB after {swaps} swaps, {memory / 1e6:.0f} MB after ten")
        score.notes.append(
            f"p99 {base:.1f} ms before and {during:.1f} ms during {swaps} swaps; {len(versions)} versions answered"
        )
        score.notes.append(f"{memory / 1e6:.0f} MB of its own before, {after / 1e6:.0f} MB after")
    oracle.close()


def worker_killed(bench: Bench, score: Score) -> None:
    """Case 4."""
    root, threads = bench.root(), 4
    oracle = Oracle(root)
    with bench.serve(root, "--workers", "2") as server:
        server.ready()
        _both(server, 2)
        kills = bench.many(2, 10)
        with Asking(server.port, USERS, threads=threads) as asking:
            for number in range(kills):
                time.sleep(1)
                workers = server.children()
                os.kill(workers[number % 2], signal.SIGKILL)
                killed = time.perf_counter()
                _both(server, 3 + number)
                took = time.perf_counter() - killed
                score.recovered(took)
                score.ran(took <= bench.within(3), f"a worker was back after {took:.1f} s")
            time.sleep(1)
        lost = Score()
        asking.judge(lost, oracle)
        score.wrong, score.p50, score.p99, score.notes = lost.wrong, lost.p50, lost.p99, lost.notes
        score.ask(
            lost.lost <= kills * threads, f"{lost.lost} requests were lost by {kills} kills, with at most {threads} under way"
        )
        score.notes.append(f"{lost.lost} requests were under way at a worker that was killed")
    oracle.close()


def _both(server: Server, count: int) -> None:
    """Wait until so many workers have begun to serve in all."""
    deadline = time.monotonic() + 60
    while server.log.read_text().count("serving bundle") < count:
        if time.monotonic() > deadline:
            raise TimeoutError(server.log.read_text()[-1000:])
        time.sleep(0.02)


CASES = [
    Case(
        3,
        "kill -9 while items are changed",
        "SIGKILL to a service that takes up to 1,000 changes a second, again and again",
        "every acknowledged change is there, one that is sent again is taken once; ready within 2 s and the time to load",
        killed_while_changing,
        fast=True,
    ),
    Case(
        4,
        "kill -9 of a worker under load",
        "SIGKILL to one of two workers that are asked 100 times a second",
        "only requests under way at that worker are lost; another takes its place within 3 s; wrong 0",
        worker_killed,
    ),
    Case(
        9,
        "the disk is full",
        "a file system of 16 MB filled to the last byte under changes and a publication; RLIMIT_FSIZE on a publisher",
        "changes are answered 507, a publication fails and leaves nothing, answers go on; all works again when there is room",
        disk_full,
        tools=("mount",),
        fast=True,
    ),
    Case(
        10,
        "fsync fails",
        "strace has fsync, fdatasync and pwrite64 of the running service fail with EIO or ENOSPC",
        "no change is acknowledged meanwhile; those before and after are there after a kill -9",
        fsync_fails,
        tools=("strace",),
    ),
    Case(
        12,
        "versions are exchanged under load",
        "a version is published every 2 s, and items changed, while 100 requests a second come",
        "lost 0, wrong 0, no answer of two versions; p99 at most 1.5 times what it was, memory within a tenth (full run)",
        swapped,
        fast=True,
    ),
]
