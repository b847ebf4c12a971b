"""Measure the memory of further workers of the real service.

    python scripts/measure_workers.py bundles --workers 2

Each worker first answers requests, so that it has touched the memory that answers need. The table has (in MB, for all workers
together) private memory (`anonymous`), memory mapped from files, which may be shared (`files`), and the total with shared
memory counted once (`pss`). `anonymous` per worker should not depend on the number of workers, and the index should be in
`files`, once.
"""

import argparse
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import orjson

from recall.bundle.versions import resolve
from recall.store.users.bundle_users import SqliteUsers

_PORT = 18_790


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Return the process ids of the workers, or that of a single process."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(one) for one in children] or [process.pid]


def memory(process: int) -> Counter[str]:
    """Return the kilobytes of one process by kind."""
    found: Counter[str] = Counter()
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, _ = line.split()
        found[name.rstrip(":")] = int(size)
    return Counter(anonymous=found["Anonymous"], files=found["Rss"] - found["Anonymous"], pss=found["Pss"])


def ask(path: str, body: bytes | None = None) -> int:
    """Return the status of an answer, 0 for none.

    Each request uses a new connection, so that all workers get some.
    """
    request = urllib.request.Request(f"http://127.0.0.1:{_PORT}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def measure(root: Path, workers: int, users: list[str], requests: int) -> tuple[Counter[str], Counter[str]]:
    """Return the memory of all workers together, and of the largest, after requests."""
    command = [sys.executable, "-m", "service", str(root), "--port", str(_PORT), "--workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        serving = 0
        while serving < workers:  # each logs this once
            serving += b"serving bundle" in process.stderr.readline()
        while ask("/health/ready") != 200:
            time.sleep(0.1)
        for number in range(requests * workers):
            status = ask("/v1/recommend", orjson.dumps({"user_id": users[number % len(users)], "n": 100}))
            assert status == 200, status
        each = [memory(one) for one in workers_of(process)]
    finally:
        process.terminate()
        process.communicate()
    return sum(each, Counter()), max(each, key=lambda one: one["anonymous"])


def main() -> None:
    """Parse the command line, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder of published bundles")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--requests", type=int, default=2000, help="for each worker")
    given = parser.parse_args()
    folder = resolve(given.root)
    store = SqliteUsers(folder / "users.sqlite")
    users = store.sample(1000, seed=0)
    store.close()
    index = sum(path.stat().st_size for path in folder.glob("index*")) / 2**20
    print(f"{folder.name}: {index:.1f} MB of index")
    print("| workers | anonymous MB | of the largest | files MB | pss MB |\n|---|---|---|---|---|")
    largest = []
    for workers in (1, given.workers):
        total, one = measure(given.root, workers, users, given.requests)
        largest.append(one["anonymous"])
        figures = (total["anonymous"], one["anonymous"], total["files"], total["pss"])
        print(f"| {workers} | " + " | ".join(f"{figure / 1024:.1f}" for figure in figures) + " |", flush=True)
    print(f"a worker among {given.workers} has {largest[1] / largest[0] - 1:+.1%} anonymous memory")


if __name__ == "__main__":
    main()
