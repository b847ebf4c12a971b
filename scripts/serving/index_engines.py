"""An index on a server beside the embedded one: answers, times, memory, failures.

The server runs on loopback, so times are without a network.
"""

import gc
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Protocol

import numpy as np

from recall.bundle.activation import activate
from recall.bundle.manifest import Manifest
from recall.bundle.versions import live_name, resolve, versions
from recall.errors import RequestError
from recall.index.remote import RemoteIndex
from recall.index.servers import FALLBACK, SECONDS
from recall.publish.derived import reindex
from recall.serving.recommender import Recommender
from recall.serving.request import Request, ScoredItem
from serving.processes import service
from serving.redis_servers import until
from serving.shop import build

Check = Callable[[str, bool, str], None]
EXACT = {"milvus": "milvus_flat", "pgvector": "pgvector_exact"}


def filters_of(recommender: Recommender) -> list[dict[str, object]]:
    """Return filters of several forms over values that the items have."""
    categories = recommender.bundle.item_column("category").drop_nulls().unique().sort().to_list()
    tags = recommender.bundle.item_column("tags").explode().drop_nulls().unique().sort().to_list()
    half = float(recommender.bundle.item_column("price").drop_nulls().median() or 0)  # type: ignore[arg-type]
    return [
        {"category": {"in": categories[: len(categories) // 2]}},
        {"not": {"category": categories[0]}},
        {"price": {"gte": half}, "tags": {"any": tags[: len(tags) // 2]}},
        {"any": [{"brand": {"missing": True}}, {"price": {"lt": half}}]},
        {"tags": {"any": tags[::2]}, "not": {"category": categories[-1]}},
    ]


class IndexServer(Protocol):
    """A server of tests."""

    url: str

    def tables(self) -> set[str]:
        """Return the names of its collections."""

    def kill(self) -> None:
        """End it by SIGKILL."""

    def start(self) -> None:
        """Start it again."""

    def pause(self) -> None:
        """Stop its processes."""

    def resume(self) -> None:
        """Let them go on."""

    def memory(self) -> float:
        """Return the MB that it holds."""

    def close(self) -> None:
        """End it and remove its files."""


def pgvector(folder: Path, quick: bool, check: Check) -> None:
    """Check an index in Postgres."""
    from serving.postgres_server import Postgres

    _engine("pgvector", Postgres, folder, quick, check)


def milvus(folder: Path, quick: bool, check: Check) -> None:
    """Check an index in Milvus."""
    from serving.milvus_server import Milvus

    _engine("milvus", Milvus, folder, quick, check)


def _engine(name: str, start: Callable[[], IndexServer], folder: Path, quick: bool, check: Check) -> None:
    root = build(folder, 4_000 if quick else 30_000, 16 if quick else 32, 0)
    with Recommender.load(root) as embedded:
        users = embedded.users.sample(40 if quick else 200, 0)
        asked = [Request(user, n=100) for user in users]
        filtered = [Request(user, n=20, filter=one) for user in users for one in filters_of(embedded)]
        expected = [[embedded.recommend(one, exact=True).items for one in requests] for requests in (asked, filtered)]
        record = embedded.bundle.manifest.index
        took = _times(embedded, asked)
        _figures(f"embedded, {record.kind}", took, f"{_file(root):.0f} MB of index file")
    empty = start()
    os.environ |= {f"RECALL_{name.upper()}_URL": empty.url, SECONDS: "10"}
    try:
        _exactly(name, root, empty, (asked, filtered), expected, check)
        _graph(name, root, asked, 0.9 if quick else 0.95, check)
        _limit(name, root, check)
        activate(root, next(one.name for one in versions(root) if Manifest.read(one).index.kind == EXACT[name]))
        _failures(root, empty, users[0], 60 if quick else 300, check)
        _life_cycle(name, root, empty, check)
    finally:
        empty.close()


def _exactly(
    name: str,
    root: Path,
    server: IndexServer,
    asked: tuple[Sequence[Request], Sequence[Request]],
    expected: Sequence[Sequence[tuple[ScoredItem, ...]]],
    check: Check,
) -> None:
    before, began = server.memory(), time.perf_counter()
    index = reindex(root, root, {"kind": EXACT[name]}).index
    print(f"        built in {time.perf_counter() - began:.1f} s, with its certificate")
    with Recommender.load(root) as recommender:
        for what, requests, answers in zip(("lists of 100", "lists with filters"), asked, expected, strict=True):
            same = sum(one.items == other for one, other in zip(map(recommender.recommend, requests), answers, strict=True))
            check(f"{what} equal the exact ones to the last bit", same == len(answers), f"{same} of {len(answers)}")
        took = _times(recommender, asked[0])
        check("recall through the engine is 1", index.recall == 1.0, f"{index.recall:.4f}, {index.queries} users")
        _figures(index.kind, took, f"{server.memory() - before:.0f} MB more in the server")
        _figures(f"{index.kind}, filters", _times(recommender, asked[1]), "of the requests with filters")
    secret = server.url.partition("@")[0].rpartition(":")[2]
    manifest = resolve(root) / "manifest.json"
    check("no manifest holds the password", secret not in manifest.read_text() if "@" in server.url else True, manifest.name)


def _graph(name: str, root: Path, asked: Sequence[Request], target: float, check: Check) -> None:
    index = reindex(root, root, {"kind": name, "target": target, "seconds": 300.0}).index
    for trial in index.candidates:
        seconds = "" if trial.microseconds is None else f"{trial.microseconds / 1000:.2f} ms a query by the wall clock"
        print(f"        {trial.name}: built in {trial.seconds:.1f} s, {seconds or trial.note}")
    shown = index.certificate
    met = shown is not None and shown.met and index.engine == name
    figures = "" if shown is None else f"{index.kind}: recall {shown.recall:.4f}, bound {shown.lower:.4f}, target {target}"
    check("what is chosen has a certificate through the engine", met, figures)
    with Recommender.load(root) as recommender:
        _figures(f"{index.kind}, chosen", _times(recommender, asked), f"recall {index.recall:.4f}")


def _limit(name: str, root: Path, check: Check) -> None:
    with Recommender.load(root) as recommender:
        index = recommender.index
        assert isinstance(index, RemoteIndex)
        rng = np.random.default_rng(0)
        most = index.max_rows or index.size
        vectors = rng.standard_normal((most + 1, index.dim)).astype(np.float32)
        if index.max_rows is None:
            rows = index.search(vectors[:1], index.size).rows[0]
            check("lists may be as long as the catalogue", len(set(rows)) == index.size, f"{len(rows):,} rows")
            return
        large = _built(name, vectors)
        try:
            large.search(vectors[:1], most + 1)
            message = "it was answered"
        except RequestError as error:
            message = str(error)
        finally:
            large.discard()
        check("a list beyond the limit is refused by its name", f"{most}" in message and message.startswith("/n"), message)
        n = min(1000, index.size)
        same = len(set(index.search(vectors[:1], n).rows[0].tolist()) - {-1}) == n
        check("a list of 1,000 is answered", same, f"{n:,} rows")


def _built(name: str, vectors: "np.ndarray") -> RemoteIndex:
    from recall.config import IndexConfig
    from recall.index.registry import build_index

    built = build_index(vectors, vectors[:64], IndexConfig(kind=EXACT[name]), 0)
    assert isinstance(built, RemoteIndex)
    return built


def _failures(root: Path, server: IndexServer, user: str, many: int, check: Check) -> None:
    with _serving(root, "") as ask:
        healthy = ask(user)
        check("a service answers from the engine", healthy == (200, "", healthy[2]), f"status {healthy[0]}")
        delays = _health_during(ask, server, user)
        p50, p95 = np.percentile(1e3 * np.array(delays), [50, 95])
        figures = f"median {p50:.1f} ms, p95 {p95:.1f} ms, largest {1e3 * max(delays):.1f} ms of {len(delays)}"
        check("a stall of the engine for 1 s does not delay /health", p95 < 250 and p50 < 50, figures)
        check("it answers after the stall", until(lambda: ask(user) == healthy, 20), "the same list")
        server.kill()
        statuses = Counter(ask(user)[:2] for _ in range(many))
        check("without the engine, answers are 503", set(statuses) == {(503, "index-down")}, str(dict(statuses)))
        server.start()
        check("it recovers without a restart", until(lambda: ask(user) == healthy, 20), "the same list")
    with _serving(root, "local") as ask:
        server.kill()
        found = Counter(ask(user) == (200, "index", healthy[2]) for _ in range(many))
        check("with a local copy, answers are the same and degraded", set(found) == {True}, f"{found[True]} of {many}")
        server.start()
        check("they are whole again without a restart", until(lambda: ask(user) == healthy, 20), "the same list")


def _life_cycle(name: str, root: Path, server: IndexServer, check: Check) -> None:
    with Recommender.load(root) as recommender:
        sample = [Request(user, n=10) for user in recommender.users.sample(10, 1)]
        before, first = [one.items for one in map(recommender.recommend, sample)], live_name(root)
    with _serving(root, "") as ask:
        old = ask(sample[0].user_id or "")
        reindex(root, root, {"kind": EXACT[name]})
        second = live_name(root)
        activate(root, first)
        check("a rollback answers from the old collection", ask(sample[0].user_id or "") == old, f"{second} to {first}")
    with Recommender.load(root) as recommender:
        same = [one.items for one in map(recommender.recommend, sample)] == before
        check("and so does a process that opens it", same, f"{len(sample)} lists")
    for _ in range(2):
        reindex(root, root, {"kind": EXACT[name]})
        kept = {str(Manifest.read(one).index.params.get("collection")) for one in versions(root)} - {"None"}
        live = str(Manifest.read(resolve(root)).index.params["collection"])
        assert live in server.tables()
    check("pruning removes collections of removed versions alone", server.tables() == kept, f"{len(kept)} versions")


@dataclass
class _Ask:
    """Sends a request to the service; counts its answers."""

    port: int
    count: Counter[int] = field(default_factory=Counter)

    def __call__(self, user: str) -> tuple[int, str, tuple[str, ...]]:
        """Return status, kind of problem or parts that are degraded, and ids."""
        body = json.dumps({"user_id": user, "n": 20}).encode()
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/recommend", body, head)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found = json.load(answer)
                parts = ",".join(one["part"] for one in found["degraded"])
                return 200, parts, tuple(one["item_id"] for one in found["items"])
        except urllib.error.HTTPError as error:
            return error.code, str(json.load(error)["type"]).rpartition(":")[2], ()


@contextmanager
def _serving(root: Path, fallback: str) -> Iterator[_Ask]:
    os.environ |= {SECONDS: "2", FALLBACK: fallback}
    with service(root) as served:
        yield _Ask(served.port)
    os.environ |= {SECONDS: "10", FALLBACK: ""}


def _health_during(ask: _Ask, server: IndexServer, user: str) -> list[float]:
    """Stop the server for a second; return how long each /health took meanwhile."""
    server.pause()
    waiting = [threading.Thread(target=ask, args=(user,)) for _ in range(8)]
    for one in waiting:
        one.start()
    delays: list[float] = []
    connection = HTTPConnection("127.0.0.1", ask.port, timeout=30)
    until_ = time.perf_counter() + 1.0
    while time.perf_counter() < until_:
        began = time.perf_counter()
        connection.request("GET", "/health/live")
        assert connection.getresponse().read() is not None
        delays.append(time.perf_counter() - began)
        time.sleep(0.01)
    server.resume()
    for one in waiting:
        one.join()
    connection.close()
    return delays


def _times(recommender: Recommender, requests: Sequence[Request]) -> "np.ndarray":
    """Return the seconds of each request, alone."""
    for one in requests[:20]:
        recommender.recommend(one)
    gc.collect()
    seconds = []
    for one in requests:
        began = time.perf_counter()
        recommender.recommend(one)
        seconds.append(time.perf_counter() - began)
    return np.array(seconds)


def _figures(name: str, seconds: "np.ndarray", beside: str) -> None:
    p50, p99 = np.percentile(1e3 * seconds, [50, 99])
    print(f"        {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms of {len(seconds)} requests; {beside}")


def _file(root: Path) -> float:
    entry = Manifest.read(resolve(root))
    return entry.files[entry.index.file].bytes / 1e6 if entry.index.file is not None else 0.0
