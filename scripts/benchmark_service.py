"""How long answers take: the real server under an open load, asked by known users.

    python scripts/benchmark_service.py --items 100000 --rate 100 --seconds 20
    python scripts/benchmark_service.py --bundle bundles --rate 100 --seconds 20 --out report.json

Requests leave when they are due (Poisson), whether or not earlier ones were answered, and each latency counts from the
moment its request was due: a server that stalls is charged for everything that had to wait. Sender and server share the
machine, so the figures are an upper bound.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson
import uvloop

from recall.bundle import files
from recall.bundle.publish import resolve
from recall.stores.sqlite import SqliteUsers

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "age": {"side": "user", "kind": "numeric"},
    "country": {"side": "user", "kind": "categorical"},
    "interests": {"side": "user", "kind": "bag"},
    "device": {"side": "user", "kind": "categorical"},
    "history": {"kind": "history"},
    "item_id": {"side": "item", "kind": "categorical"},
    "category": {"side": "item", "kind": "categorical"},
    "brand": {"side": "item", "kind": "categorical"},
    "tags": {"side": "item", "kind": "bag"},
    "price": {"side": "item", "kind": "numeric", "scale": "log"},
}


@dataclass(frozen=True)
class Report:
    """Latencies in milliseconds from the moment a request was due; `server_cpu_us` is the server's CPU time a request."""

    items: int
    index: str
    n: int
    rate: float
    achieved: float
    requests: int
    failed: int
    p50: float
    p95: float
    p99: float
    worst: float
    server_cpu_us: float
    server_peak_mb: float


class Connection(asyncio.Protocol):
    """One keep-alive connection that carries one request at a time."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[int] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the way to send."""
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Count the request under way as failed."""
        if self.answered is not None and not self.answered.done():
            self.answered.set_result(0)

    async def ask(self, raw: bytes) -> int:
        """Send a request and wait for its status; 0 when the connection broke."""
        if self.transport.is_closing():
            return 0
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        return await self.answered

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._data = b""
            assert self.answered is not None
            self.answered.set_result(int(head.split(b" ", 2)[1]))


async def send(port: int, requests: list[bytes], due: list[float]) -> tuple[list[float], list[int]]:
    """Latencies in seconds and statuses of `requests`, each sent `due` seconds after the start."""
    loop = asyncio.get_running_loop()
    idle: list[Connection] = []
    start = loop.time() + 0.1

    async def one(raw: bytes, at: float) -> tuple[float, int]:
        connection = idle.pop() if idle else (await loop.create_connection(Connection, "127.0.0.1", port))[1]
        status = await connection.ask(raw)
        if status:
            idle.append(connection)
        return loop.time() - at, status

    tasks = []
    for raw, offset in zip(requests, due, strict=True):
        pause = start + offset - loop.time()
        if pause > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(raw, start + offset)))
    results = await asyncio.gather(*tasks)
    return [latency for latency, _ in results], [status for _, status in results]


@contextmanager
def server(bundle: Path) -> Iterator[tuple[int, int]]:
    """The service as a subprocess; gives its port and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "service", str(bundle), "--port", str(port), "--drain", "0"])
    try:
        while not _ready(port):
            if process.poll() is not None:
                raise SystemExit("the server ended before it was ready")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """Most memory that a process has held."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(bundle: Path, rate: float, seconds: float, n: int, seed: int) -> Report:
    """Load the server over `bundle` with Poisson arrivals."""
    users = SqliteUsers(resolve(bundle) / files.USERS)
    bodies = [orjson.dumps({"user_id": user_id, "n": n}) for user_id in users.sample(1000, seed)]
    users.close()
    drawn = random.Random(seed)  # reproducible load, no secret
    requests = [
        b"POST /v1/recommend HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (len(body), body)
        for body in drawn.choices(bodies, k=int(rate * seconds))
    ]
    gaps = [drawn.expovariate(rate) for _ in requests]
    due = list(np.cumsum(gaps))
    with server(bundle) as (port, pid):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/info") as answer:
            info = json.load(answer)
        uvloop.run(send(port, requests[:200], [i / rate for i in range(min(200, len(requests)))]))  # warm
        before, start = cpu_seconds(pid), time.perf_counter()
        latencies, statuses = uvloop.run(send(port, requests, due))
        took = time.perf_counter() - start
        used, peak = cpu_seconds(pid) - before, peak_mb(pid)
    p50, p95, p99, worst = np.percentile(np.array(latencies) * 1000, [50, 95, 99, 100]).round(3).tolist()
    failed = sum(status != 200 for status in statuses)
    achieved = round((len(requests) - failed) / took, 1)
    cpu = round(used / len(requests) * 1e6, 1)
    return Report(
        info["sizes"]["items"],
        info["index"],
        n,
        rate,
        achieved,
        len(requests),
        failed,
        p50,
        p95,
        p99,
        worst,
        cpu,
        round(peak, 1),
    )


def build(folder: Path, items: int, k: int, seed: int) -> Path:
    """Make a shop of `items` items, train a model of it for a little, and publish it; gives the root."""
    from recall.config import parse_config  # torch and training are needed only here
    from recall.data.dataset import load_dataset
    from recall.data.synthetic import SyntheticConfig, generate
    from recall.export import export
    from recall.features.encoder import FeatureEncoder
    from recall.training.train import train

    users = max(200, items // 5)
    shop = SyntheticConfig(users=users, items=items, interactions=20 * users, considered=200, seed=seed)
    generate(shop).write(folder)
    config = parse_config(
        {
            "name": "benchmark",
            "seed": seed,
            "data": {"users": "users.parquet", "items": "items.parquet", "time": "time"},
            "fields": FIELDS,
            "model": {"k": k},
            "train": {"sweeps": 4},
        }
    )
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    model = train(config, dataset, encoder, lambda sweep: print(sweep, file=sys.stderr)).model
    export(model, encoder, dataset, config, folder / "bundles")
    return folder / "bundles"


def main() -> None:
    """Parse, build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="measure this bundle instead of building one")
    parser.add_argument("--items", type=int, default=100_000, help="items of the bundle that is built")
    parser.add_argument("--k", type=int, default=64, help="factors of the bundle that is built")
    parser.add_argument("--keep", type=Path, help="folder to build in, and to leave the bundle in")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--n", type=int, default=100, help="results a request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the report here, as JSON")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bundle = given.bundle or build(folder, given.items, given.k, given.seed)
        report = measure(bundle, given.rate, given.seconds, given.n, given.seed)
    print(json.dumps(asdict(report), indent=2))
    if given.out:
        given.out.write_text(json.dumps(asdict(report), indent=2) + "\n")
    if report.failed:
        raise SystemExit(f"{report.failed} of {report.requests} requests were not answered 200")


if __name__ == "__main__":
    main()
