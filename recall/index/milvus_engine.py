"""Indexes in Milvus: an immutable collection for each index.

    fm_recall_<random>     row, the primary key; v, the vector; c0, c1, ... the codes of columns: integers, and arrays of them
                           for columns with several values an item

RECALL_MILVUS_URL has the address, `http://USER:PASSWORD@HOST:19530`. A manifest has the name of the collection alone. Since a
collection never changes, searches need no guarantee of freshness (consistency `Eventually`).
"""

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int32, Int64
from recall.config import IndexConfig
from recall.errors import ConfigError, IndexDownError
from recall.index.base import Candidate, Engine, ItemIndex, Params, check_vectors
from recall.index.query import MOST_RANGES, CodedColumn, CodeRanges
from recall.index.remote import RemoteIndex, calibrated
from recall.index.servers import Server, StoredColumns

VARIABLE = "RECALL_MILVUS_URL"
FLAT, HNSW = "milvus_flat", "milvus_hnsw"
MOST = 16_384
"""Results of one search, at most, by Milvus' own limit."""

_BUILDING = 600.0  # seconds that one call may take while an index is built
_ROWS = 5_000  # rows sent at once: a message may have 64 MB
_MOST_BAG = 4_096  # values of an array, at most, by Milvus' own limit
_MOST_COLUMNS = 62  # beside row and vector; the others are filtered by in this process
_LINKS = 16
_EVENTUALLY = "Eventually"


@cache
def _client() -> Any:
    try:
        import pymilvus
    except ModuleNotFoundError:
        raise ConfigError(
            "an index in Milvus needs the package pymilvus", where="index", hint="pip install 'fm-recall[milvus]'"
        ) from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs the trace of each failed call; errors here say why
    return pymilvus


def _failures() -> tuple[type[Exception], ...]:
    from grpc import RpcError  # which some calls let through

    return (_client().MilvusException, RpcError, OSError, ValueError)


def _connect(server: Server, seconds: float) -> Any:
    return _client().MilvusClient(server.url, timeout=seconds, dedicated=True)


class MilvusIndex(RemoteIndex):
    """A collection with vectors: all are compared, or those that a graph leads to."""

    most = MOST
    efforts = (32, 64, 128, 256, 512, 1024, 2048, 4096, 2 * MOST)  # Milvus' most

    def __init__(self, server: Server, kind: str, params: Params, vectors: Float32) -> None:
        """Make no connection yet.

        Args:
            server: its settings.
            kind: `FLAT` or `HNSW`.
            params: as recorded.
            vectors: float32 [size, dim], those in the collection.
        """
        super().__init__(server, "Milvus collection", kind, params, vectors)
        self.failures = _failures()
        self._lock, self._connected = Lock(), None

    @override
    def ask(self, vector: Float32, where: str | None, count: int) -> tuple[Int64, float]:
        params = {"metric_type": "IP", "params": {} if self.exact else {"ef": self.effort(count)}}
        (hits,) = self._call(
            "search", data=[vector.tolist()], limit=count, filter=where or "", search_params=params, anns_field="v"
        )
        return np.array(hits.ids, dtype=np.int64), float(hits.distances[-1]) if len(hits) else -np.inf

    @override
    def sample(self, rows: list[int]) -> tuple[int, Float32]:
        found = {one["row"]: one["v"] for one in self._call("query", filter=f"row in {rows}", output_fields=["row", "v"])}
        return self._count(""), np.array([found[row] for row in rows if row in found], dtype=np.float32)

    @override
    def count(self, where: str) -> int:
        return self._count(where)

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
        with self._lock:
            client, self._connected = self._connected, None
        if client is not None:
            with suppress(*self.failures):
                client.close()

    @override
    def discard(self) -> None:
        self.close()
        _drop(self._server, self.collection)

    def _count(self, where: str) -> int:
        (found,) = self._call("query", filter=where, output_fields=["count(*)"])
        return int(found["count(*)"])

    def _call(self, what: str, **arguments: Any) -> Any:
        with self._lock:
            if self._connected is None:
                self._connected = _connect(self._server, self._server.seconds)
            client = self._connected
        try:
            return getattr(client, what)(
                self.collection, timeout=self._server.seconds, consistency_level=_EVENTUALLY, **arguments
            )
        except BaseException:
            self.close()  # a channel to a server that was started again would be tried ever more rarely
            raise


def _drop(server: Server, collection: str) -> None:
    try:
        client = _connect(server, server.seconds)
        try:
            client.drop_collection(collection, timeout=_BUILDING)  # nothing if there is none
        finally:
            client.close()
    except _failures() as error:
        why = str(error).strip().replace(server.url, "the server")
        raise IndexDownError("a collection could not be removed", where=f"Milvus collection {collection}", why=why) from None


@dataclass(frozen=True, slots=True)
class MilvusCollection(Candidate):
    """The candidate: a collection, with so many links a vector unless that is 0."""

    links: int
    columns: tuple[CodedColumn, ...] = field(default=(), compare=False)

    @property
    @override
    def name(self) -> str:
        return f"{HNSW} {self.links}" if self.links else FLAT

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> MilvusIndex:
        check_vectors(vectors)
        server = Server.read(VARIABLE, "milvus")
        stored = [one for one in self.columns if one.rows is None or _longest(one.rows) <= _MOST_BAG][:_MOST_COLUMNS]
        params = {
            "collection": f"fm_recall_{secrets.token_hex(8)}",
            "links": self.links,
            "effort": 0,
            **StoredColumns.of(stored).params,
        }
        index = MilvusIndex(server, HNSW if self.links else FLAT, params, vectors)
        try:
            client = _connect(server, _BUILDING)
            try:
                self._fill(client, index, vectors, stored)
            finally:
                client.close()
            index.check()
            index.prove(stored)
        except BaseException as error:
            with suppress(IndexDownError):
                index.discard()
            if isinstance(error, index.failures):
                why = str(error).strip().replace(server.url, "the server")
                raise IndexDownError("the index could not be built", where=index.place, why=why) from None
            raise
        return index

    def _fill(self, client: Any, index: MilvusIndex, vectors: Float32, stored: Sequence[CodedColumn]) -> None:
        kinds, collection = _client().DataType, str(index.params["collection"])
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", kinds.INT64, is_primary=True)
        schema.add_field("v", kinds.FLOAT_VECTOR, dim=index.stored(vectors[:1]).shape[1])
        values: list[Sequence[Any]] = []
        for place, one in enumerate(stored):
            if one.rows is None:
                schema.add_field(f"c{place}", kinds.INT32)
                values.append(one.codes.tolist())
            else:
                most = max(_longest(one.rows), 1)
                schema.add_field(f"c{place}", kinds.ARRAY, element_type=kinds.INT32, max_capacity=most)
                values.append(_lists(one.codes, one.rows, len(vectors)))
        client.create_collection(collection, schema=schema, consistency_level=_EVENTUALLY)
        for first in range(0, len(vectors), _ROWS):
            part = index.stored(vectors[first : first + _ROWS]).tolist()
            rows = [
                {"row": row, "v": vector, **{f"c{place}": column[row] for place, column in enumerate(values)}}
                for row, vector in enumerate(part, first)
            ]
            client.insert(collection, rows, timeout=_BUILDING)
        client.flush(collection, timeout=_BUILDING)
        graph = {"M": self.links, "efConstruction": 200}
        shape = client.prepare_index_params()
        shape.add_index("v", index_type="HNSW" if self.links else "FLAT", metric_type="IP", params=graph if self.links else {})
        client.create_index(collection, shape, timeout=_BUILDING)
        client.load_collection(collection, timeout=_BUILDING)


def _longest(rows: Int32) -> int:
    return int(np.bincount(rows).max(initial=0)) if len(rows) else 0


def _lists(codes: Int32, rows: Int32, size: int) -> list[list[int]]:
    """Return the codes of each row."""
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows, minlength=size))
    return [part.tolist() for part in np.split(codes[order], ends[:-1])]


@dataclass(frozen=True, slots=True)
class MilvusEngine(Engine):
    """Indexes in a Milvus."""

    columns: tuple[CodedColumn, ...] = field(default=(), compare=False)

    name = "milvus"
    kinds = (FLAT, HNSW)
    file = None

    @override
    def with_columns(self, columns: Sequence[CodedColumn]) -> "MilvusEngine":
        return MilvusEngine(tuple(columns))

    @override
    def drop(self, kind: str, params: Params) -> None:
        _drop(Server.read(VARIABLE, self.name), str(params["collection"]))

    @override
    def build(self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int) -> ItemIndex:
        built = MilvusCollection(_LINKS if kind == HNSW else 0, self.columns).build(vectors, queries, seed, threads)
        return calibrated(built, vectors, queries, config)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> MilvusIndex:
        return MilvusIndex(Server.read(VARIABLE, self.name), kind, params, vectors).opened()

    @override
    def candidates(self, size: int) -> Sequence[Candidate]:
        return [MilvusCollection(_LINKS, self.columns)]

    @override
    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        return [] if kind == FLAT else [MilvusCollection(int(params["links"]), self.columns)]
