"""Registry of engines: build, open and check indexes.

To add an engine, write a module with a class that implements `recall.index.base.Engine` and list it in `ENGINES`; another
program may call `register` instead. docs/development/add-an-index-engine.md describes the requirements.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int32
from recall.config import INDEX_KINDS, IndexConfig
from recall.errors import IndexDownError, IndexFileError, did_you_mean
from recall.index.base import Candidate, Engine, ItemIndex, Params, TunableIndex, check_vectors
from recall.index.cells.index import CellIndex, CellsEngine
from recall.index.faiss_engine import FaissEngine
from recall.index.flat import brute_force, prepare_faiss
from recall.index.milvus import MilvusIndex
from recall.index.pgvector import PgvectorIndex
from recall.index.query import CodedColumn
from recall.index.remote import RemoteIndex
from recall.index.servers import StoredColumns, collection_of
from recall.index.tuning.recall import GroundTruth, least_param

_LINKS = 16  # links of a vector in a graph (HNSW's M): the default of pgvector
_CALIBRATION_QUERIES = 256  # that the effort of a prescribed kind is set with
_REPLACE_HINT = "Copy the bundle again, or make another index for it: recall tune-index BUNDLE"


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
            index.fill(vectors, columns, threads)
            index.check()
            index.check_columns(columns)
        except BaseException as error:
            with suppress(IndexDownError):
                index.discard()
            if isinstance(error, index.failures()):
                why = server.reason(error, lost=index.lost(error))
                raise IndexDownError("the index could not be built", where=index.location, why=why) from None
            raise
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
        if built.exact:
            return built
        truth = GroundTruth.of(vectors, queries[:_CALIBRATION_QUERIES], config.n)
        return built.with_search_param(least_param(built, truth, config.target), truth.n)

    @override
    def open(self, path: Path | None, kind: str, params: Params, vectors: Float32, threads: int) -> RemoteIndex:
        return self._index(self._index.read_server(), kind, params, vectors).opened()

    @override
    def candidates(self, size: int) -> Sequence[Candidate]:
        return [Collection(self._index, _LINKS, self._columns)]

    @override
    def like(self, kind: str, params: Params) -> Sequence[Candidate]:
        return [] if kind == self.kinds[0] else [Collection(self._index, int(params["links"]), self._columns)]


ENGINES: dict[str, Engine] = {engine.name: engine for engine in (CellsEngine(), FaissEngine())}
"""Engines in this process, by name, in the order in which the tuner tries their candidates."""
SERVERS: dict[str, RemoteEngine] = {index.engine: RemoteEngine(index) for index in (MilvusIndex, PgvectorIndex)}
"""Engines on servers, by name; used only if the configuration names one. The first kind of each is exact."""


def register(engine: Engine) -> None:
    """Add an engine for this process.

    Kind 'auto' then tries its candidates, too. A configuration may name one of its kinds; or the engine, to use the fastest of
    its candidates.
    """
    ENGINES[engine.name] = engine
    INDEX_KINDS.update({engine.name: True} | dict.fromkeys(engine.kinds, False))


def require_server(kind: str) -> None:
    """Raise ConfigError if a kind of index needs a server that is not configured.

    Args:
        kind: name of a kind or an engine.
    """
    for engine in SERVERS.values():
        if kind in (engine.name, *engine.kinds):
            engine.require()


def engine_of(kind: str) -> Engine:
    """Return the engine of a kind of index. Raises KeyError for an unknown kind."""
    for engine in _all():
        if kind in engine.kinds:
            return engine
    raise KeyError(kind)


def _all() -> Iterator[Engine]:
    return chain(ENGINES.values(), SERVERS.values())


def _named(name: str) -> Engine | None:
    return next((one for one in _all() if one.name == name), None)


def drop(engine: str, kind: str, params: Params) -> None:
    """Delete what an index has outside of its bundle.

    Args:
        engine: name of its engine; nothing happens if the engine is unknown.
        kind: the index's `kind`.
        params: the index's `params`.

    Raises:
        IndexFileError: It cannot be deleted.
    """
    found = _named(engine)
    if found is not None:
        found.drop(kind, params)


def build_index(
    vectors: Float32,
    queries: Float32,
    config: IndexConfig,
    seed: int,
    threads: int | None = None,
    columns: Sequence[CodedColumn] = (),
) -> ItemIndex:
    """Build the index of a configuration, without comparing candidates.

    Args:
        vectors: float32 [items, dim].
        queries: float32 [q, dim], vectors of real users, at least one; an approximate index is fitted to them.
        config: kind, threshold and target; a kind to be chosen ('auto', 'faiss') means exact search up to the threshold of
            items, and an inverted file above.
        seed: the same vectors, queries and seed give the same index.
        threads: threads to build with; all cores if None. A search uses one.
        columns: for an engine that evaluates filters itself.

    Raises:
        ExportError: The vectors are not finite.
    """
    prepare_faiss()
    kind = config.kind
    if kind in SERVERS:
        kind = SERVERS[kind].kinds[0]
    elif config.chooses:
        kind = "exact" if len(vectors) <= config.exact_up_to else "ivf"
    engine = engine_of(kind).with_columns(columns)
    return engine.build(kind, vectors, queries, config, seed, threads or os.cpu_count() or 1)


def open_index(path: Path | None, engine: str, kind: str, params: Params, vectors: Float32, threads: int = 1) -> ItemIndex:
    """Open an index, its file memory-mapped.

    Args:
        path: the file that `ItemIndex.write` wrote; None if the engine has no local file.
        engine: name of the engine.
        kind: the index's `kind`.
        params: the index's `params`.
        vectors: float32 [items, dim], the vectors it was built over.
        threads: threads that one call of `search` may use.

    Raises:
        IndexFileError: The engine is unknown or lacks its file, or the file is unreadable, of another kind, or of other
            vectors.
    """
    prepare_faiss()
    found = _named(engine)
    if found is None:
        raise IndexFileError(
            f"the index engine {engine!r} is not known",
            where=str(path) if path is not None else "manifest, index.engine",
            why=f"this version opens {', '.join(one.name for one in _all())}",
            hint="Upgrade fm-recall, or make an index of another kind: recall tune-index BUNDLE",
        )
    if path is None and found.file is not None:
        raise IndexFileError(
            f"the manifest must name an index file for engine {engine!r}, got null",
            where="manifest, index.file",
            hint=_REPLACE_HINT,
        )
    if kind not in found.kinds:
        hint = did_you_mean(kind, found.kinds)
        raise IndexFileError(f"engine {engine!r} does not open indexes of kind {kind!r}", where=str(path), hint=hint)
    return found.open(path, kind, params, vectors, threads)


def index_beside(index: ItemIndex, vectors: Float32) -> ItemIndex:
    """Build an exact index over further vectors, in a fraction of a second.

    All codes are in one cell. A scan of the codes takes a quarter of the time of a scan of the vectors.

    Args:
        index: of the bundle; if it has cells, the codes are fitted to the same users.
        vectors: float32 [m, dim], finite.
    """
    # the codes depend on the second moments of the users alone: rows with the same moments replace the users
    queries = index.moment_root() if isinstance(index, CellIndex) else np.eye(index.dim, dtype=np.float32)
    return CellIndex.build(vectors, queries, seed=0, cells=1)


def candidates(size: int, kind: str = "auto", columns: Sequence[CodedColumn] = ()) -> list[Candidate]:
    """Return the candidates for a number of items, the most promising first.

    Args:
        size: number of items.
        kind: 'auto', or the name of an engine: then only its candidates.
        columns: for engines that evaluate filters themselves.
    """
    tried = ENGINES.values() if kind == "auto" else [one for one in _all() if one.name == kind]
    return list(dict.fromkeys(chain.from_iterable(one.with_columns(columns).candidates(size) for one in tried)))


def like(kind: str, params: Params, columns: Sequence[CodedColumn] = ()) -> Sequence[Candidate]:
    """Return candidates that resemble an existing index; none for an exact one.

    Args:
        kind: of the index; an unknown kind has no candidates.
        params: of the index.
        columns: for an engine that evaluates filters itself.
    """
    return next((one.with_columns(columns).like(kind, params) for one in _all() if kind in one.kinds), [])


# A few queries are repeated whenever an index is opened: a damaged or exchanged index answers them differently.

CHECKS = 8
"""Number of queries: some milliseconds of searching, and enough rows to tell a worse index from rounding."""
_SLACK = 0.02  # share of all rows: other processors sum in another order, which moves a few rows at the end of a list


@dataclass(frozen=True, slots=True, eq=False)
class Checks:
    """Queries and their exact answers, repeated when an index is opened.

    Attributes:
        queries: float32 [c, dim].
        rows: int32 [c, n], the exact answer.
    """

    queries: Float32
    rows: Int32

    @classmethod
    def of(cls, vectors: Float32, queries: Float32, n: int) -> "Checks":
        """Find the exact answers to the first `CHECKS` queries.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim].
            n: length of the lists; cut to the number of vectors.
        """
        some = queries[:CHECKS]
        return cls(some, brute_force(vectors, some, min(n, len(vectors)))[1].astype(np.int32))

    def found(self, index: ItemIndex) -> float:
        """Return the share of the expected rows that an index finds.

        Only one query is repeated with an exact index, which reads all vectors for each.
        """
        count = 1 if index.exact else len(self.queries)
        rows = self.rows[:count]
        hits = index.search(self.queries[:count], rows.shape[1])
        pairs = zip(hits.rows, rows, strict=True)
        return sum(int(np.isin(expected, found).sum()) for found, expected in pairs) / rows.size


def recheck(index: ItemIndex, checks: Checks, before: float, path: Path) -> None:
    """Check that an opened index answers as well as when it was published.

    Args:
        index: the opened index.
        checks: the stored queries and answers.
        before: share of the expected rows that it found when it was published.
        path: its file, for the message.

    Raises:
        IndexFileError: It finds less, or does not have the expected rows.
    """
    if checks.rows.size and not (checks.rows.min() >= 0 and checks.rows.max() < index.size):
        what = f"the stored checks expect rows outside of the {index.size} of the index"
        raise IndexFileError(what, where=str(path), hint=_REPLACE_HINT)
    found = checks.found(index)
    if found < before - _SLACK:
        raise IndexFileError(
            f"the index finds {found:.1%} of what its stored checks expect, and found {before:.1%} when it was published",
            where=str(path),
            why="the file or its settings are not those that were published",
            hint=_REPLACE_HINT,
        )
