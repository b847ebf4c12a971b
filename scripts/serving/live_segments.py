"""Searches while items change: latency, segments, and answers compared."""

import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from recall.bundle.versions import versions
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from serving.open import open_load
from serving.processes import service
from serving.shop import build, requests_of, users_of

Check = Callable[[str, bool, str], None]
BATCH, BATCHES = 100, 20  # changes in a batch, batches a second
SEARCHES = 50.0  # a second, so few that they hardly wait for each other
_PATIENT = (
    "--age",
    "30",
    "--waiting",
    "1000",
    "--standing",
    "1000",
)  # a stall of the machine delays searches, and refuses none


def change(root: Path, table: Path, seconds: float, seed: int) -> None:
    """Write batches on schedule; print acknowledged changes and longest delay.

    Of ten batches, seven give items a new price, two add items, and one deletes some.

    Args:
        root: that a service follows.
        table: the items of the shop.
        seconds: to do so.
        seed: of the changes.
    """
    threadpool_limits(1, user_api="blas")  # as in the service
    drawn = np.random.default_rng(seed)
    items = pl.read_parquet(table, columns=["item_id", "category", "brand", "tags", "price"])
    with Recommender.load(root, verify=False, pause=None, users=None) as live:
        print("ready", flush=True)
        sys.stdin.readline()
        began, late, acknowledged = time.monotonic(), 0.0, 0
        for number in range(int(seconds * BATCHES)):
            chosen = items[drawn.choice(len(items), BATCH, replace=False)].to_dicts()
            named = [str(one.pop("item_id")) for one in chosen]
            if number % 10 in (3, 7):
                named = [f"later-{number}-{one}" for one in named]
            prices = drawn.gamma(2, 10, BATCH).round(2).tolist()
            due = began + number / BATCHES
            time.sleep(max(0.0, due - time.monotonic()))
            if number % 10 == 9:
                live.items.delete(named)
            else:
                live.items.upsert({one: {**its, "price": price} for one, its, price in zip(named, chosen, prices, strict=True)})
            acknowledged += BATCH
            late = max(late, time.monotonic() - due)
        print(acknowledged, late, flush=True)


def segments(folder: Path, quick: bool, check: Check) -> None:
    """Check searches while many items change.

    A second service, on a copy that does not change, gets requests at the same time: other work on the machine delays both.
    """
    items, seconds = (60_000, 5.0) if quick else (1_000_000, 60.0)
    root = build(folder, items, 32, 0)
    still = Path(shutil.copytree(root, folder / "still", copy_function=os.link))
    users = users_of(root, 2_000, 0)
    asked = requests_of(users, 20)
    command = [sys.executable, sys.argv[0], "change_items", *map(str, (root, folder / "items.parquet", seconds, 3))]
    with service(root, *_PATIENT) as served, service(still, *_PATIENT) as other, ThreadPoolExecutor() as pool:
        with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            for port in (served.port, other.port):  # the first requests load what the others share
                open_load(port, asked, SEARCHES, seconds / 10, 1)
            unchanged = pool.submit(_latencies, other.port, asked, seconds, 4)
            changing = pool.submit(_latencies, served.port, asked, seconds, 4)
            said, _ = writer.communicate("go\n")
            quiet, busy = unchanged.result(), changing.result()
        acknowledged, late = said.split()
        metrics = _metrics(served.port)
    wanted = int(seconds * BATCHES) * BATCH
    rate = f"{acknowledged} of {wanted:,} changes in {seconds:g} s, the latest batch after {float(late) * 1e3:.0f} ms"
    # with less data the check is one of many that share a machine, and so few searches have no steady p99
    on_time = quick or float(late) < 1
    check("all changes are acknowledged on time", int(acknowledged) == wanted and on_time, rate)
    (p50, p99), (p50_after, p99_after) = (np.quantile(one, (0.5, 0.99), method="higher") * 1e3 for one in (quiet, busy))
    figures = f"p50 {p50:.1f} ms and p99 {p99:.1f} ms without changes, {p50_after:.1f} ms and {p99_after:.1f} ms with them"
    name = "p99 of search, of too few for a requirement" if quick else "p99 of search below twice that without changes"
    check(name, quick or p99_after < 2 * p99, figures)
    held, hidden = metrics["recall_overlay_items"], metrics["recall_overlay_hidden_items"]
    found = f"{metrics['recall_overlay_segments']:.0f} segments hold {held:,.0f} items, {hidden:,.0f} of the version are hidden"
    check("few segments", 1 <= metrics["recall_overlay_segments"] <= 5, found)
    compactions = metrics["recall_compactions_total"]
    check("no whole compaction", compactions == 0 and len(versions(root)) == 1, f"{compactions:.0f} compactions")
    _compare(root, users[: 50 if quick else 200], check)


def _compare(root: Path, users: Sequence[str], check: Check) -> None:
    """Compare answers with those of one version that holds the changes."""
    asked = [Request(user, n=50) for user in users]
    asked += [Request(user, n=20, filter={"price": {"lt": 12.0}}, popularity=0.5) for user in users]
    began = time.perf_counter()
    with Recommender.load(root, verify=False) as live:
        seconds = time.perf_counter() - began
        changed = live.items.added + live.items.replaced
        expected = [live.recommend(one, exact=True) for one in asked]
        count = len(live.items.current().segments)
    check("a start reads the changes", seconds < 60, f"{seconds:.1f} s to load {changed:,} changed rows")
    compact(root)
    with Recommender.load(root, verify=False) as version:
        one = len(version.items.current().segments) == 1
        answers = [version.recommend(each, exact=True) for each in asked]
    same = sum(ours.items == theirs.items for ours, theirs in zip(expected, answers, strict=True))
    check("same answers as one version", one and same == len(asked), f"{same} of {len(asked)} equal, {count} segments before")


def _latencies(port: int, asked: Sequence[bytes], seconds: float, seed: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return latencies in seconds, infinite where a search failed."""
    taken, statuses = open_load(port, asked, SEARCHES, seconds, seed)
    return np.where(np.array(statuses) == 200, taken, np.inf)


def _metrics(port: int) -> dict[str, float]:
    """Return the largest value of each metric."""
    time.sleep(1)  # until the gauges are set
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    found: dict[str, float] = {}
    for name, _, value in lines:
        bare = name.partition("{")[0]
        found[bare] = max(found.get(bare, 0.0), float(value))
    return found
