"""Index on a server: searches, checks of results, and a local scan as a fallback.

A search asks the server for more rows than are wanted, and for more again, until the list is complete and no further row may
tie with its last. Results are checked: rows are scored again in this process, rows outside of the bitmap are dropped, and too
few rows are an error. Small sets of eligible rows, and lists of a large part of the catalogue, are scored in this process.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from threading import local
from typing import Self, TypeVar

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int64
from recall._breaker import Breaker
from recall.errors import ExportError, IndexDownError, IndexFileError, RequestError
from recall.index.base import Params, Ranked, TunableIndex
from recall.index.query import CodedColumn, CodeRanges, SearchQuery, expression
from recall.index.servers import Server, StoredColumns, collection_of
from recall.index.topk import longest_of, rank, rounding, scan

_FEW = 256  # eligible rows up to which all are scored in this process, which is faster than a call of the server
_SPARE = 16  # rows beyond those needed, for ties at the end of the list
_WIDER = 4  # factor by which a search widens if its rows do not suffice. Chosen, not tuned.

Answer = TypeVar("Answer")


class RemoteIndex(TunableIndex):
    """Index in an immutable collection on a server. Thread-safe.

    Attributes:
        engine: name of the engine.
        kinds: kinds of index: the first compares all vectors, the second searches an HNSW graph.
        label: term for a collection in messages, such as "Postgres table".
        location: label and name of the collection, for messages.
        collection: name of the collection.
        settings: parameters as recorded: the collection, its columns, and links and effort of the graph, both 0 without one.
        max_rows: maximum number of rows that one search may return; None without a limit.
        efforts: efforts of a graph, ascending.
    """

    engine: str
    kinds: tuple[str, str]
    label: str
    remote = True
    max_rows: int | None = None
    efforts: Sequence[float]

    def __init__(self, server: Server, kind: str, params: Params, vectors: Float32) -> None:
        """Describe the index; no connection is made.

        Args:
            server: settings of the server.
            kind: one of `kinds`.
            params: the index's `params`.
            vectors: float32 [size, dim], the vectors of the collection.
        """
        self.kind, self.settings, self.collection = kind, params, collection_of(params)
        self.size, self.dim = vectors.shape
        self.location = f"{self.label} {self.collection}"
        self._failures = self.failures()
        self._server, self._vectors, self._columns = server, vectors, StoredColumns.read(params)
        self._breaker = Breaker()
        self._checked = False
        self._error = ""  # of the last call of any thread; that of the last call of this thread is in:
        self._of_thread = local()

    @property
    @override
    def exact(self) -> bool:
        return not self.settings["links"]

    @property
    @override
    def params(self) -> Params:
        return self.settings

    @property
    @override
    def param_grid(self) -> Sequence[float]:
        return (0,) if self.exact else self.efforts

    @override
    def with_search_param(self, value: float, n: int) -> Self:
        tuned = copy(self)  # connections are shared
        tuned.settings = {**self.settings, "effort": int(value)}
        return tuned

    @staticmethod
    @abstractmethod
    def read_server() -> Server:
        """Read the settings of the server from the environment. Raises ConfigError."""

    @staticmethod
    @abstractmethod
    def failures() -> tuple[type[Exception], ...]:
        """Return the exceptions of the client library. Raises ConfigError without it."""

    @staticmethod
    @abstractmethod
    def lost(error: BaseException) -> bool:
        """Return whether an error means that the connection failed, or timed out."""

    @staticmethod
    @abstractmethod
    def remove(server: Server, collection: str) -> None:
        """Delete a collection, if it exists; raises one of `failures`.

        Args:
            server: settings of the server.
            collection: its name.
        """

    @staticmethod
    def storable(columns: Sequence[CodedColumn]) -> Sequence[CodedColumn]:
        """Return the columns that fit into a collection."""
        return columns

    @abstractmethod
    def fill(self, vectors: Float32, columns: Sequence[CodedColumn], threads: int) -> None:
        """Create the collection.

        Args:
            vectors: float32 [size, dim].
            columns: from `storable`.
            threads: to build a graph with.
        """

    def effort(self, count: int) -> int:
        """Return the effort of a search of the graph for a number of rows."""
        return min(max(int(self.settings["effort"]), 2 * count), int(self.efforts[-1]))

    @abstractmethod
    def ask(self, vector: Float32, where: str | None, count: int) -> tuple[Int64, float]:
        """Search the collection.

        Args:
            vector: from `to_stored_query`.
            where: a filter, of conditions from `express`; None for all rows.
            count: rows wanted.

        Returns:
            Rows int64 [m], and the smallest of their scores according to the server.
        """

    @abstractmethod
    def sample(self, rows: list[int]) -> Float32:
        """Return the stored vectors of rows, without missing ones: float32 [found, ...]."""

    @abstractmethod
    def express(self, condition: CodeRanges) -> str | None:
        """Write a condition in the server's language; None if the column is not stored."""

    @override
    def discard(self) -> None:
        self.close()
        self.drop(self._server, self.collection)

    @classmethod
    def drop(cls, server: Server, collection: str) -> None:
        """Delete a collection, if it exists.

        Args:
            server: settings of the server.
            collection: its name.

        Raises:
            IndexDownError: It cannot be deleted.
        """
        try:
            cls.remove(server, collection)
        except cls.failures() as error:
            why = server.reason(error, lost=cls.lost(error))
            raise IndexDownError("a collection could not be deleted", where=f"{cls.label} {collection}", why=why) from None

    @property
    @override
    def error(self) -> str:
        return getattr(self._of_thread, "error", "") or self._error

    @cached_property
    def _longest(self) -> float:
        return longest_of(self._vectors)

    @override
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        self._of_thread.error = ""
        return [self._answer(one, n, exact=exact) for one in queries]

    def to_stored(self, vectors: Float32) -> Float32:
        """Convert vectors to those that the collection stores.

        A graph of inner products leads mostly to long vectors. A further component makes the length of all vectors 1; then the
        vectors with the largest inner products are the nearest neighbours (Bachrach et al. 2014), which a graph finds.

        Args:
            vectors: float32 [m, dim].

        Returns:
            The same vectors for an exact index; else float32 [m, dim + 1].
        """
        if self.exact:
            return vectors
        scaled = vectors / np.float64(self._longest or 1.0)
        rest = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", scaled, scaled), 0))
        return np.column_stack([scaled, rest]).astype(np.float32)

    def to_stored_query(self, query: Float32) -> Float32:
        """Convert a query, float32 [dim], to one for the stored vectors."""
        if self.exact:
            return query
        length = float(np.linalg.norm(query.astype(np.float64)))
        return np.append(query / np.float64(length or 1.0), 0).astype(np.float32)

    def opened(self) -> Self:
        """Return the index itself after `check`.

        If the server does not answer and the local fallback is on, the check is postponed.

        Raises:
            IndexFileError: The collection has other vectors or is incomplete, or the server does not answer.
        """
        try:
            self.check()
        except IndexDownError as error:
            if not self._server.local:
                self.close()
                raise
            self._error = _INSTEAD.format(error.what)
        except BaseException:
            self.close()
            raise
        return self

    def check(self) -> None:
        """Compare the number of rows, and three vectors, with those of the bundle.

        Raises:
            IndexDownError: The server does not answer.
            IndexFileError: The collection has other vectors, or is incomplete.
        """
        self.guarded(lambda: self._compare(counted=True))

    @abstractmethod
    def count(self, where: str | None) -> int:
        """Count rows, or those of a filter, with the time limit of a build."""

    def check_columns(self, columns: Sequence[CodedColumn]) -> None:
        """Check stored columns by the counts of rows with some codes.

        Args:
            columns: that `fill` was called with.

        Raises:
            ExportError: The server counts other rows than this process.
        """
        for column in columns:
            top = int(column.codes.max(initial=0))
            for low, high in {(0, 1), (1, top // 2 + 1), (top, top + 1)}:
                where = expression(CodeRanges(column.name, column.kind, ((low, high),)), self.express)
                here = (column.codes >= low) & (column.codes < high)
                expected = np.count_nonzero(here) if column.rows is None else len(np.unique(column.rows[here]))
                if low < high and where is not None and (found := self.count(where)) != expected:
                    raise ExportError(
                        f"column {column.name!r} has {found} rows on the server where it must have {expected}",
                        where=self.location,
                        hint="Nothing was published. Try again; if it repeats, report it with the version of the server",
                    )

    def guarded(self, call: Callable[[], Answer]) -> Answer:
        """Call the server through the circuit breaker.

        Args:
            call: sends a request; raises one of `failures`.

        Raises:
            IndexDownError: The server does not answer, or the circuit breaker is open.
            IndexFileError: The collection was changed.
        """
        if not self._breaker.admits():
            refused = IndexDownError(_DOWN, where=self.location, why="it did not answer lately; the next call is in a moment")
            refused.repeated = True
            raise refused
        try:
            found = call()
        except Exception as error:
            lost, self._checked = self.lost(error), False
            (self._breaker.failed if lost else self._breaker.succeeded)()
            if isinstance(error, self._failures):
                why = self._server.reason(error, lost=lost)
                raise IndexDownError(_DOWN, where=self.location, why=why, hint="Check the server") from None
            raise
        self._breaker.succeeded()
        self._checked = True
        self._error = ""
        return found

    def _compare(self, *, counted: bool = False) -> None:
        rows = sorted({0, self.size // 2, self.size - 1})
        vectors = self.sample(rows)  # before the count, which waits long for a server that does not answer
        if counted and (count := self.count(None)) != self.size:
            what = f"the index holds {count} vectors, the bundle {self.size}"
            raise IndexFileError(what, where=self.location, hint=_RESTORE)
        if len(vectors) != len(rows):
            what = f"the index holds {len(vectors)} of {len(rows)} rows that were looked up"
            raise IndexFileError(what, where=self.location, hint=_RESTORE)
        expected = self.to_stored(self._vectors[rows])
        if vectors.shape != expected.shape or not np.allclose(vectors, expected, rtol=1e-5, atol=1e-6 if not self.exact else 0):
            raise IndexFileError("the index holds other vectors than the bundle", where=self.location, hint=_RESTORE)

    def _answer(self, query: SearchQuery, n: int, *, exact: bool) -> Ranked:
        eligible = self.size if query.within is None else query.within.count
        if self.max_rows is not None and min(n, eligible) > self.max_rows:
            engine = self.label.partition(" ")[0]
            raise RequestError(f"n must be at most {self.max_rows} with an index in {engine}, got {n}", where="/n")
        if (query.within is not None and eligible <= _FEW) or (exact and not self.exact):
            return self._scan(query, n)
        try:
            return self._search(query, n, eligible)
        except IndexFileError as error:
            if not self._server.local:
                raise
            self._of_thread.error = self._error = _INSTEAD.format(error.what)
            return self._scan(query, n)

    def _search(self, query: SearchQuery, n: int, eligible: int) -> Ranked:
        """Ask the server for rows, more and more of them, until the list is complete."""
        where = None if query.predicate is None else expression(query.predicate.plan, self.express)
        # without a filter on the server, the share of its rows that are expected to be eligible
        share = eligible / self.size if where is None else 1.0
        least = eligible if where is not None else self.size  # rows that the server can return, at least
        width = math.ceil((n + _SPARE) / share) + len(query.excluded)
        slack = float(rounding(query.vector, self._longest))
        while width < least // 2 and (self.max_rows is None or width <= self.max_rows):
            rows, worst = self._rows_of_server(query.vector, where, width, least)
            if query.within is not None:
                rows = rows[query.within.holds(rows)]
            found = rank(self._vectors, query.vector, rows, query.excluded, n, exact=self.exact)
            if len(found.rows) == n and (not self.exact or found.scores[-1] > worst + slack):  # no further row may tie
                return found
            width *= _WIDER
        return self._scan(query, n)

    def _rows_of_server(self, vector: Float32, where: str | None, width: int, least: int) -> tuple[Int64, float]:
        """Return the result of `ask`; raise IndexDownError if rows are missing."""

        def call() -> tuple[Int64, float]:
            if not self._checked:
                self._compare()
            return self.ask(self.to_stored_query(vector), where, width)

        rows, worst = self.guarded(call)
        complete = len(rows) >= (min(width, least) if self.exact else 1)
        if not complete or not 0 <= rows.min() <= rows.max() < self.size:
            self._checked = False  # the next call compares the collection first, and reports the difference
            why = "it returned rows of another index" if complete else f"it returned {len(rows)} of {min(width, least)} rows"
            raise IndexDownError("the index lacks items", where=self.location, why=why, hint=_RESTORE)
        return rows, worst

    def _scan(self, query: SearchQuery, n: int) -> Ranked:
        return scan(self._vectors, query.vector, n, self._longest, within=query.within, excluded=query.excluded)


_INSTEAD = "the index is searched in this process: {}"
_DOWN = "the server of the index does not answer"
_RESTORE = "Restore the collection, or make another index for the bundle: recall tune-index BUNDLE"
