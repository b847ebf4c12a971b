"""Engine of indexes on servers: build, open and drop collections."""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from typing_extensions import override

from recall._arrays import Float32
from recall.config import IndexConfig
from recall.errors import IndexDownError
from recall.index.base import Candidate, Engine, Params, TunableIndex, check_vectors
from recall.index.query import CodedColumn
from recall.index.remote import RemoteIndex
from recall.index.servers import StoredColumns, collection_of
from recall.index.tuning.recall import recalls_found

_LINKS = 16  # of a vector in the graph, the default of pgvector
_CALIBRATING = 256  # queries that the effort of a prescribed kind is set with


@dataclass(frozen=True, slots=True)
class Collection(Candidate):
    """The candidate: a collection, with a graph unless `links` is 0."""

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
        server = replace(self.index.read_server(), local=False)  # what answers in its place would be measured
        columns = self.index.storable(self.columns)
        name = f"fm_recall_{secrets.token_hex(8)}"
        params = {"collection": name, "links": self.links, "effort": 0, **StoredColumns.of(columns).params}
        index = self.index(server, self._kind, params, vectors)
        try:
            index.fill(vectors, columns, threads)
            index.check()
            index.prove(columns)
        except BaseException as error:
            with suppress(IndexDownError):
                index.discard()
            if isinstance(error, index.failures()):
                why = server.reason(error, lost=index.lost(error))
                raise IndexDownError("the index could not be built", where=index.place, why=why) from None
            raise
        return index


class RemoteEngine(Engine):
    """Indexes on a server; the type of its indexes knows which."""

    file = None

    def __init__(self, index: type[RemoteIndex], columns: Sequence[CodedColumn] = ()) -> None:
        """Make no connection yet.

        Args:
            index: type of the indexes.
            columns: stored beside the vectors.
        """
        self.name, self.kinds = index.engine, index.kinds
        self._index, self._columns = index, tuple(columns)

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
        some, n = queries[:_CALIBRATING], min(config.n, len(vectors))
        for value in built.param_grid:  # the least that reaches the target
            tried = built.with_search_param(value, n)
            if built.exact or recalls_found(tried, vectors, some, n).mean() >= config.target:
                break
        return tried

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> RemoteIndex:
        return self._index(self._index.read_server(), kind, params, vectors).opened()

    @override
    def candidates(self, size: int) -> Sequence[Candidate]:
        return [Collection(self._index, _LINKS, self._columns)]

    @override
    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        return [] if kind == self.kinds[0] else [Collection(self._index, int(params["links"]), self._columns)]
