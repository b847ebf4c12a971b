"""A complete remote engine, as described in docs/development/add-an-index-engine.md."""

import base64
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int64
from recall.config import IndexConfig
from recall.errors import IndexFileError
from recall.index.base import Candidate, Engine, Params, Ranked, TunableIndex, check_vectors
from recall.index.query import SearchQuery
from recall.index.topk import longest_of, rank, rounding

ROOT = Path(__file__).parents[2]

_NONE: Int64 = np.empty(0, dtype=np.int64)


class RemoteIndex(TunableIndex):
    """An index on a server, searched exactly."""

    kind = "toy_remote"
    exact = True

    def __init__(self, url: str, collection: str, vectors: Float32) -> None:
        self.size, self.dim = vectors.shape
        self._url, self._collection, self._vectors = url, collection, vectors
        self._longest = longest_of(vectors)
        self._idle: SimpleQueue[HTTPConnection] = SimpleQueue()

    @property
    @override
    def params(self) -> Params:
        return {"url": self._url, "collection": self._collection}

    @property
    @override
    def param_grid(self) -> Sequence[float]:
        return (1.0,)

    @override
    def with_search_param(self, value: float, n: int) -> "RemoteIndex":
        return self

    @override
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        found = self.call("POST", "/search", json.dumps([self._wire(one, n) for one in queries]).encode())
        return [
            rank(self._vectors, one.vector, np.array(rows, dtype=np.int64), _NONE, n, exact=True)
            for one, rows in zip(queries, found, strict=True)
        ]

    @override
    def close(self) -> None:
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    @override
    def discard(self) -> None:
        self.call("DELETE")
        self.close()

    def call(self, method: str, path: str = "", body: bytes = b"", **headers: str) -> Any:
        """Send one request for the collection, on a connection exclusive to this thread."""
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = HTTPConnection(urlsplit(self._url).netloc)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request(method, f"/collections/{self._collection}{path}", body, headers)
        answer = json.loads(connection.getresponse().read())
        self._idle.put(connection)
        return answer

    def _wire(self, query: SearchQuery, n: int) -> dict[str, object]:
        return {
            "vector": base64.b64encode(query.vector.tobytes()).decode(),
            "n": n,
            "excluded": query.excluded.tolist(),
            "within": None if query.within is None else base64.b64encode(query.within.bits.tobytes()).decode(),
            "predicate": None if query.predicate is None else query.predicate.request,
            "slack": 2 * float(rounding(query.vector, self._longest)),
        }


@dataclass(frozen=True, slots=True)
class RemoteCollection(Candidate):
    """The candidate: a collection with all vectors."""

    url: str

    @property
    @override
    def name(self) -> str:
        return "toy remote"

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> RemoteIndex:
        check_vectors(vectors)
        index = RemoteIndex(self.url, uuid.uuid4().hex, vectors)
        index.call("PUT", "", np.ascontiguousarray(vectors).tobytes(), **{"X-Dim": str(vectors.shape[1])})
        return index


class RemoteEngine(Engine):
    """The engine for the collections of one server."""

    name = "toy"
    kinds = ("toy_remote",)
    file = None

    def __init__(self, url: str) -> None:
        self.url = url

    @override
    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> RemoteIndex:
        return RemoteCollection(self.url).build(vectors, queries, seed, threads)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> RemoteIndex:
        url, collection = str(params["url"]), str(params["collection"])
        try:
            found = collections(url).get(collection)
        except OSError as error:
            raise IndexFileError("the index cannot be read", where=url, why=str(error)) from None
        if found is None:
            raise IndexFileError("the index cannot be read", where=url, why=f"there is no collection {collection}")
        if found["size"] != len(vectors):
            raise IndexFileError(f"the index holds {found['size']} vectors, the bundle {len(vectors)}", where=url)
        return RemoteIndex(url, collection, vectors)

    @override
    def candidates(self, size: int) -> Sequence[Candidate]:
        return [RemoteCollection(self.url)]

    @override
    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        return [RemoteCollection(str(params["url"]))]


def collections(url: str) -> dict[str, dict[str, int]]:
    """List the collections of a server."""
    connection = HTTPConnection(urlsplit(url).netloc)
    connection.request("GET", "/")
    found: dict[str, dict[str, int]] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@contextmanager
def running_server(delay: float = 0.0) -> Iterator[str]:
    """Start a server in a separate process and return its URL."""
    command = [sys.executable, "-m", "tests.index.remote_server", "--delay", str(delay)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
