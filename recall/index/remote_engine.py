"""Engine and tuning candidate of indexes on servers."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from typing_extensions import override

from recall._arrays import Float32
from recall.config import IndexConfig
from recall.errors import IndexDownError
from recall.index.base import Candidate, Engine, Params, TunableIndex, check_vectors, discarded_on_error
from recall.index.query import CodedColumn
from recall.index.remote import RemoteIndex
from recall.index.servers import StoredColumns, collection_of
from recall.index.tuning.recall import calibrated

_LINKS = 16  # links of a vector in a graph (HNSW's M): the default of pgvector


@dataclass(frozen=True, slots=True)
class Collection(Candidate):
    """Candidate on a server: a collection, with an HNSW graph unless `links` is 0.

    Attributes:
        index: class of the index.
        links: links of a vector in the graph.
        columns: to store beside the vectors, for filters.
    """

    index: type[RemoteIndex]
    links: int
    columns: tuple[CodedColumn, ...] = field(default=(), compare=False)

    @property
    @override
    def name(self) -> str:
        return f"{self._kind} {self.links}" if self.links else self._kind

    @property
    def _kind(self) -> str:
        exact, graph = self.index.kinds
        return graph if self.links else exact

    @override
    def build(self, vectors: Float32, queries: Float32, seed: int, threads: int) -> RemoteIndex:
        check_vectors(vectors)
        server = replace(self.index.read_server(), local=False)  # the local fallback must not be measured in its place
        columns = self.index.storable(self.columns)
        name = f"fm_recall_{secrets.token_hex(8)}"
        params = {"collection": name, "links": self.links, "effort": 0, **StoredColumns.of(columns).params}
        index = self.index(server, self._kind, params, vectors)
        try:
            with discarded_on_error(index):
                index.fill(vectors, columns, threads)
                index.check()
                index.check_columns(columns)
        except index.failures() as error:
            why = server.reason(error, lost=index.lost(error))
            raise IndexDownError("the index could not be built", where=index.location, why=why) from None
        return index


class RemoteEngine(Engine):
    """Indexes on a server, of one class of `RemoteIndex`."""

    file = None

    def __init__(self, index: type[RemoteIndex], columns: Sequence[CodedColumn] = ()) -> None:
        """Describe the engine; no connection is made.

        Args:
            index: class of the indexes.
            columns: to store beside the vectors, for filters.
        """
        self.name, self.kinds = index.engine, index.kinds
        self._index, self._columns = index, tuple(columns)

    def require(self) -> None:
        """Raise ConfigError if the address of the server or the client package is missing."""
        self._index.read_server()
        self._index.failures()

    @override
    def with_columns(self, columns: Sequence[CodedColumn]) -> "RemoteEngine":
        return RemoteEngine(self._index, columns)

    @override
    def drop(self, kind: str, params: Params) -> None:
        self._index.drop(self._index.read_server(), collection_of(params))

    @override
    def build(
        self, kind: str, vectors: Float32, queries: Float32, config: IndexConfig, seed: int, threads: int
    ) -> TunableIndex:
        links = 0 if kind == self.kinds[0] else _LINKS
        built = Collection(self._index, links, self._columns).build(vectors, queries, seed, threads)
        with discarded_on_error(built):
            return built if built.exact else calibrated(built, vectors, queries, config)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> RemoteIndex:
        return self._index(self._index.read_server(), kind, params, vectors).opened()

    @override
    def candidates(self, size: int) -> Sequence[Candidate]:
        return [Collection(self._index, _LINKS, self._columns)]

    @override
    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        return [] if kind == self.kinds[0] else [Collection(self._index, int(params["links"]), self._columns)]
