"""Indexes in Milvus: an immutable collection for each index.

    fm_recall_<random>     row, the primary key; v, the vector; c0, c1, ... the codes of columns: integers, and arrays of them
                           for columns with several values an item

RECALL_MILVUS_URL is the address, `http://USER:PASSWORD@HOST:19530`. A manifest records only the name of the collection. Since
a collection never changes, searches need no guarantee of freshness (consistency `Eventually`).
"""

import logging
from collections.abc import Sequence
from contextlib import closing, suppress
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int32, Int64
from recall.index.base import Params
from recall.index.query import MOST_RANGES, CodedColumn, CodeRanges
from recall.index.remote import RemoteIndex
from recall.index.servers import Server, client_package

VARIABLE = "RECALL_MILVUS_URL"
MOST = 16_384
"""Maximum number of results of one search in Milvus."""

_BUILDING = 600.0  # time limit in seconds of one call while an index is built
_ROWS = 5_000  # rows sent at once: a message may have 64 MB
_MAX_BAG = 4_096  # maximum number of values of an array in Milvus
_MAX_COLUMNS = 62  # besides row and vector; filters on further columns are evaluated in this process
_EVENTUALLY = "Eventually"
_CONNECT_FAILED = 2  # error code of pymilvus


def _client() -> Any:
    pymilvus = client_package("pymilvus", "Milvus", "milvus")
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs a traceback of each failed call, which is raised anyway
    return pymilvus


def _host(url: str) -> str:
    found = urlsplit(url)
    if not found.hostname or found.port == 0 or "@" in f"{found.path}{found.query}{found.fragment}":
        raise ValueError  # a part of the password was parsed as another part of the address
    return found.hostname


def _connect(server: Server, seconds: float) -> Any:
    return _client().MilvusClient(server.url, timeout=seconds, dedicated=True)


class MilvusIndex(RemoteIndex):
    """Index in Milvus: a flat index, or an HNSW graph."""

    engine, kinds, label = "milvus", ("milvus_flat", "milvus_hnsw"), "Milvus collection"
    max_rows = MOST
    efforts = (32, 64, 128, 256, 512, 1024, 2048, 4096, 2 * MOST)  # up to Milvus' limit

    def __init__(self, server: Server, kind: str, params: Params, vectors: Float32) -> None:
        """Describe the index; the arguments are those of `RemoteIndex`."""
        super().__init__(server, kind, params, vectors)
        self._lock, self._connected = Lock(), None

    @staticmethod
    @override
    def read_server() -> Server:
        return Server.read(VARIABLE, "milvus", _host)

    @staticmethod
    @override
    def failures() -> tuple[type[Exception], ...]:
        pymilvus = _client()
        from grpc import RpcError  # some calls raise it

        return (pymilvus.MilvusException, RpcError, OSError, ValueError)

    @staticmethod
    @override
    def lost(error: BaseException, *, late: bool = True) -> bool:
        """Return whether the connection failed or, if `late`, the call timed out."""
        from grpc import StatusCode

        code = getattr(error, "code", None)
        code = code() if callable(code) else code
        return (
            isinstance(error, OSError)
            or code in (_CONNECT_FAILED, StatusCode.UNAVAILABLE)
            or (late and code == StatusCode.DEADLINE_EXCEEDED)
        )

    @staticmethod
    @override
    def remove(server: Server, collection: str) -> None:
        with closing(_connect(server, server.seconds)) as connection:
            connection.drop_collection(collection, timeout=_BUILDING)  # without an effect if it does not exist

    @staticmethod
    @override
    def storable(columns: Sequence[CodedColumn]) -> Sequence[CodedColumn]:
        return [one for one in columns if one.rows is None or _longest(one.rows) <= _MAX_BAG][:_MAX_COLUMNS]

    @override
    def ask(self, vector: Float32, where: str | None, count: int) -> tuple[Int64, float]:
        params = {"metric_type": "IP", "params": {} if self.exact else {"ef": self.effort(count)}}
        (hits,) = self._call(
            "search", data=[vector.tolist()], limit=count, filter=where or "", search_params=params, anns_field="v"
        )
        return np.array(hits.ids, dtype=np.int64), float(hits.distances[-1]) if len(hits) else -np.inf

    @override
    def sample(self, rows: list[int]) -> Float32:
        found = {one["row"]: one["v"] for one in self._call("query", filter=f"row in {rows}", output_fields=["row", "v"])}
        return np.array([found[row] for row in rows if row in found], dtype=np.float32)

    @override
    def count(self, where: str | None) -> int:
        (found,) = self._call("query", _BUILDING, filter=where or "", output_fields=["count(*)"])
        return int(found["count(*)"])

    @override
    def express(self, condition: CodeRanges) -> str | None:
        column = self._columns.find(condition)
        if column is None:
            return None
        place, bag = column
        if not bag:
            parts = [f"(c{place} >= {low} and c{place} < {high})" for low, high in condition.ranges]
            return f"({' or '.join(parts) or 'row < 0'})"
        codes = [code for low, high in condition.ranges for code in range(low, min(high, low + MOST_RANGES + 1))]
        if len(codes) > MOST_RANGES:
            return None
        return f"array_contains_any(c{place}, {codes})" if codes else "(row < 0)"

    @override
    def close(self) -> None:
        self._close(self._connected)

    def _close(self, client: Any) -> None:
        """Close a client, unless it was replaced."""
        with self._lock:
            if self._connected is not client:
                return
            self._connected = None
        if client is not None:
            with suppress(*self._failures):
                client.close()

    @override
    def fill(self, vectors: Float32, columns: Sequence[CodedColumn], threads: int) -> None:
        with closing(_connect(self._server, _BUILDING)) as connection:
            self._fill(connection, vectors, columns)

    def _fill(self, connection: Any, vectors: Float32, columns: Sequence[CodedColumn]) -> None:
        kinds, collection, links = _client().DataType, self.collection, int(self.settings["links"])
        schema = connection.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", kinds.INT64, is_primary=True)
        schema.add_field("v", kinds.FLOAT_VECTOR, dim=self.to_stored(vectors[:1]).shape[1])
        values: list[Sequence[Any]] = []
        for place, one in enumerate(columns):
            if one.rows is None:
                schema.add_field(f"c{place}", kinds.INT32)
                values.append(one.codes.tolist())
            else:
                most = max(_longest(one.rows), 1)
                schema.add_field(f"c{place}", kinds.ARRAY, element_type=kinds.INT32, max_capacity=most)
                values.append(_lists(one.codes, one.rows, len(vectors)))
        connection.create_collection(collection, schema=schema, consistency_level=_EVENTUALLY)
        for first in range(0, len(vectors), _ROWS):
            part = self.to_stored(vectors[first : first + _ROWS]).tolist()
            rows = [
                {"row": row, "v": vector, **{f"c{place}": value[row] for place, value in enumerate(values)}}
                for row, vector in enumerate(part, first)
            ]
            connection.insert(collection, rows, timeout=_BUILDING)
        connection.flush(collection, timeout=_BUILDING)
        graph = {"M": links, "efConstruction": 200}
        shape = connection.prepare_index_params()
        shape.add_index("v", index_type="HNSW" if links else "FLAT", metric_type="IP", params=graph if links else {})
        connection.create_index(collection, shape, timeout=_BUILDING)
        connection.load_collection(collection, timeout=_BUILDING)

    def _call(self, what: str, seconds: float | None = None, **arguments: Any) -> Any:
        client, budget = self._connected, self._server.seconds
        if client is None:
            made = _connect(self._server, budget)  # without the lock: each thread waits at most for its own time limit
            with self._lock:
                client = self._connected = self._connected or made
            if client is not made:
                made.close()
        try:
            return getattr(client, what)(self.collection, timeout=seconds or budget, consistency_level=_EVENTUALLY, **arguments)
        except Exception as error:
            if self.lost(error, late=False):
                self._close(client)  # gRPC would try a channel to a restarted server more and more rarely
            raise


def _longest(rows: Int32) -> int:
    """Return the largest number of entries of one row."""
    return int(np.bincount(rows).max(initial=0))


def _lists(codes: Int32, rows: Int32, size: int) -> list[list[int]]:
    """Return the codes of each row."""
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows, minlength=size))
    return [part.tolist() for part in np.split(codes[order], ends[:-1])]
