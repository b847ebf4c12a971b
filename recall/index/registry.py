"""Registry of engines: build and open indexes.

To add an engine, write a module with a class that implements `recall.index.base.Engine` and list it in `ENGINES`; another
program may call `register` instead. docs/development/add-an-index-engine.md describes the requirements.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from recall._arrays import Float32
from recall.config import INDEX_KINDS, IndexConfig
from recall.errors import IndexFileError, did_you_mean
from recall.index.base import REPLACE_HINT, Candidate, Engine, ItemIndex, Params
from recall.index.cells.index import CellIndex, CellsEngine
from recall.index.faiss_engine import FaissEngine
from recall.index.flat import prepare_faiss
from recall.index.milvus import MilvusIndex
from recall.index.pgvector import PgvectorIndex
from recall.index.query import CodedColumn
from recall.index.remote_engine import RemoteEngine

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
    """Delete the data of an index outside of its bundle.

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
            hint=REPLACE_HINT,
        )
    if kind not in found.kinds:
        hint = did_you_mean(kind, found.kinds)
        where = str(path) if path is not None else "manifest, index.kind"
        raise IndexFileError(f"engine {engine!r} does not open indexes of kind {kind!r}", where=where, hint=hint)
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
