"""Full disks and failing disks."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from serving.processes import free_port

from recall.bundle import versions
from tests.faults.bench import Bench
from tests.faults.case import Case, Score
from tests.faults.oracle import Changes, Oracle
from tests.faults.publisher import publisher
from tests.faults.servers import failing
from tests.faults.shop import leftovers
from tests.faults.steady_load import SteadyLoad
from tests.faults.upserts import some_items, upsert

USERS = [str(number) for number in range(1, 150, 4)]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of a given size until the block ends."""
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
        score.notes.append("mounting a tmpfs is not permitted here: tested with RLIMIT_FSIZE on publishers only")
        return
    with small_disk(bench.place("disk"), "16m") as disk, ExitStack() as stack:
        root = bench.shop.root(disk / "bundles")
        live = versions.live_name(root)
        oracle = Oracle(root)
        stack.callback(oracle.close)
        server = stack.enter_context(bench.serve(root)).ready()
        with SteadyLoad(server.port, USERS, rate=50) as load:
            answer = server.ask(upsert(some_items("first", 0), "first"))
            score.record(answer.status == 200, f"a change before the disk is full: {answer.status} {answer.body[:200]!r}")
            oracle.changed(answer.json["sequence"], some_items("first", 0))
            ballast = disk / "ballast"
            _fill(ballast)
            refused = 0
            for number in range(bench.many(20, 200)):
                answer = server.ask(upsert(some_items("full", number), f"full-{number}"))
                if answer.status == 200:  # there was free space left in the log file
                    oracle.changed(answer.json["sequence"], some_items("full", number))
                    _fill(ballast)
                else:
                    refused += 1
                    score.record(answer.status == 507 and answer.problem, f"a full disk: {answer.status} {answer.body[:200]!r}")
            score.require(refused > 0, "the disk was never full")
            with publisher(root, bench.shop.templates[1]) as one:
                one.begin("times", 1, bench.place("published"))
                ended = one.end()
                score.record(
                    ended > 0 and versions.live_name(root) == live, f"exit code of a publication on a full disk: {ended}"
                )
                score.require(not leftovers(root), "a partial bundle is left in staging")
            ballast.unlink()
            freed = time.perf_counter()
            answer = server.ask(upsert(some_items("after", 0), "after"))
            score.record(answer.status == 200, f"after space was freed: {answer.status} {answer.body[:200]!r}")
            score.recovered(time.perf_counter() - freed)
            if answer.status == 200:
                oracle.changed(answer.json["sequence"], some_items("after", 0))
            newer = bench.shop.publish(root, 1)
            server.serves(newer.name, 20)
            time.sleep(0.3)
        load.check(score, oracle)


def _may_mount(folder: Path) -> bool:
    try:
        with small_disk(folder, "1m"):
            return True
    except subprocess.CalledProcessError:
        return False


def _publishers_limited(bench: Bench, score: Score) -> None:
    root = bench.root()
    live = versions.live_name(root)
    with publisher(root, bench.shop.templates[1]) as one:
        for most in (0, 1000, 20_000, 100_000)[: bench.many(3, 4)]:
            one.begin("small", most)
            ended = one.end()
            well = ended > 0 and versions.live_name(root) == live and not leftovers(root)
            score.record(well, f"file size limit of {most} bytes: exit code {ended}, left in staging {leftovers(root)}")


def _fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


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
            with SteadyLoad(port, USERS, rate=50) as load:
                with failing(server.process.pid, calls, f"error={error}"):
                    for at in range(bench.many(5, 20)):
                        changes = some_items(f"failing {number}", at)
                        answer = server.ask(upsert(changes, f"failing-{at}"))
                        well = answer.problem and answer.status in (500, 503, 507)
                        score.record(well, f"{calls} {error}: {answer.status} {answer.body[:200]!r}")
                        if answer.status == 200:
                            acknowledged[f"failing-{at}"] = changes
                            oracle.changed(answer.json["sequence"], changes)
                repaired = time.perf_counter()
                after = some_items(f"after {number}", 0)
                answer = server.ask(upsert(after, "after"))
                while answer.status != 200 and time.perf_counter() < repaired + 20:
                    time.sleep(0.1)
                    answer = server.ask(upsert(after, "after"))
                score.record(answer.status == 200, f"after {calls} worked again: {answer.status} {answer.body[:200]!r}")
                score.recovered(time.perf_counter() - repaired)
                if answer.status == 200:
                    oracle.changed(answer.json["sequence"], after)
                    acknowledged["after"] = after
                time.sleep(0.2)
            load.check(score, oracle)
            server.kill()
        with bench.serve(root, port=port) as server:
            server.ready()
            for changes in acknowledged.values():
                for item_id in changes:
                    score.lost_ack += server.get(f"/v1/items/{quote(item_id, safe='')}").status != 200
        oracle.close()


CASES = [
    Case(
        9,
        "the disk is full",
        "a 16 MB file system is filled to the last byte during upserts and a publication; RLIMIT_FSIZE on a publisher",
        "changes are answered with 507, a publication fails and leaves nothing behind, reads continue; everything works again "
        "once space is freed",
        disk_full,
        tools=("mount",),
        fast=True,
    ),
    Case(
        10,
        "fsync fails",
        "strace makes fsync, fdatasync and pwrite64 of the running service fail with EIO or ENOSPC",
        "no change is acknowledged during the fault; those before and after it survive a kill -9",
        fsync_fails,
        tools=("strace",),
    ),
]
