"""Verified recall on fresh users, and latency of upserts."""

import http.client
import json
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import Figure
from serving.processes import service
from serving.shop import build

from index.worlds import World
from recall.config import IndexConfig
from recall.index.registry import candidates
from recall.index.tuning.recall import QuerySplit, recalls_found
from recall.index.tuning.tuner import tune
from recall.serving.recommender import Recommender

_FRESH = 3000
_ITEMS = 20_000
_BETWEEN = 0.004  # seconds between requests of the load


@dataclass(frozen=True)
class Certified:
    """A tuned index, and its recall on fresh users."""

    chosen: str
    lower: float
    mean: float
    deviation: float
    seconds: float


def certified(world: World, config: IndexConfig) -> Certified:
    """Tune on one half of a world's users, and measure on the other."""
    half = len(world.users) // 2
    began = time.perf_counter()
    users = QuerySplit.make(np.asarray(world.users[:half]), 0)
    tuning = tune(world.items, users, config, 0, 2, candidates(len(world.items), config.kind))
    seconds = time.perf_counter() - began
    fresh = np.ascontiguousarray(world.users[half : half + _FRESH])
    shares = recalls_found(tuning.index, world.items, fresh, config.n)
    deviation = float(shares.std() / math.sqrt(len(shares)))
    return Certified(tuning.name, tuning.certificate.lower, float(shares.mean()), deviation, seconds)


def upsert_latency(seconds: float) -> Figure:
    """Measure p99 from an acknowledged upsert to the first answer with the item."""
    with tempfile.TemporaryDirectory(prefix="benchmark-index-") as scratch:
        root = build(Path(scratch), _ITEMS, 32, 0)
        writer = Recommender.load(root)
        with service(root) as served, _load(served.port) as sent:
            waits = list(_waits(writer, served.port, seconds))
            rate = sent() / seconds
        writer.close()
    note = (
        f"{len(waits)} upserts by another process while {rate:.0f} requests a second were answered; "
        f"median {np.median(waits) * 1e3:.0f} ms"
    )
    name = "upsert: acknowledged to served, p99, under load, seconds"
    return Figure(name, float(np.quantile(waits, 0.99)), 1.0, 0.05, "less", note)


def _waits(writer: Recommender, port: int, seconds: float) -> Iterator[float]:
    source = writer.bundle.some_items(np.array([0])).to_dicts()[0]
    features = {name: value for name, value in source.items() if name != writer.bundle.encoder.schema.item_id}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    until, number = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        number += 1
        item_id = f"new-{number}"
        writer.items.upsert({item_id: features})
        acknowledged = time.perf_counter()
        while not _ask(connection, {"allow": [item_id], "n": 1})["items"]:
            pass
        yield time.perf_counter() - acknowledged


@contextmanager
def _load(port: int) -> Iterator["Sent"]:
    stop = threading.Event()
    sent = Sent()

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while not stop.is_set():
            _ask(connection, {"features": {"age": 30}, "n": 100})
            sent.count += 1
            time.sleep(_BETWEEN)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


class Sent:
    """Counts answered requests."""

    count = 0

    def __call__(self) -> int:
        """Return the number so far."""
        return self.count


def _ask(connection: http.client.HTTPConnection, body: dict[str, object]) -> dict[str, list[object]]:
    connection.request("POST", "/v1/recommend", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"the server answered {answer.status}: {text[:300]!r}")
    found: dict[str, list[object]] = json.loads(text)
    return found
