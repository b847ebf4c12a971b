"""An index on a server: questions, checks of answers, a local scan in its place.

The server is asked for more rows than are wanted, until the list is complete and no tie extends beyond it. It is not trusted:
rows are scored here, rows outside of the bitmap are dropped, and an answer with fewer rows than there must be is an error.
Small sets of rows, and lists as long as a large part of the catalogue, are scored here alone.
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
from recall.index.bitmap import RowBitmap
from recall.index.query import CodedColumn, CodeRanges, SearchQuery, expression
from recall.index.servers import Server, StoredColumns, collection_of
from recall.index.topk import longest_of, rank, rounding, scan

_FEW = 256  # rows of a filter that are all scored here, in less time than a question to a server takes
_SPARE = 16  # rows beyond those needed: room for a tie or two at the end of the list
_WIDER = 4  # times as many rows, where the first answer was not enough. Chosen, not tuned.

Answer = TypeVar("Answer")


class RemoteIndex(TunableIndex):
    """Searches an immutable collection of a server. Thread-safe.

    Attributes:
        engine: name of the engine.
        kinds: of index: one compares all vectors, the other those that a graph leads to.
        holder: what holds a collection, for messages.
        place: engine and collection, for messages.
        collection: its name.
        settings: what is recorded: the collection, its columns, links and effort of a graph, of which 0 means there is none.
        most: rows that one search may return; None for any number.
        efforts: of a graph, rising.
    """

    engine: str
    kinds: tuple[str, str]
    holder: str
    remote = True
    most: int | None = None
    efforts: Sequence[float]

    def __init__(self, server: Server, kind: str, params: Params, vectors: Float32) -> None:
        """Make no connection yet.

        Args:
            server: its settings.
            kind: one of `kinds`.
            params: as recorded.
            vectors: float32 [size, dim], the vectors of the collection.
        """
        self.kind, self.settings, self.collection = kind, params, collection_of(params)
        self.size, self.dim = vectors.shape
        self.place = f"{self.holder} {self.collection}"
        self._failures = self.failures()
        self._server, self._vectors, self._columns = server, vectors, StoredColumns.read(params)
        self._breaker = Breaker()
        self._checked = False
        self._error, self._own = "", local()

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
        """Return the errors of the client's library. Raises ConfigError if it is missing."""

    @staticmethod
    @abstractmethod
    def lost(error: BaseException) -> bool:
        """Return whether an error means that there is no connection, or no answer in time."""

    @staticmethod
    @abstractmethod
    def remove(server: Server, collection: str) -> None:
        """Remove a collection, for `drop`.

        Args:
            server: that has it.
            collection: its name.
        """

    @staticmethod
    def storable(columns: Sequence[CodedColumn]) -> Sequence[CodedColumn]:
        """Return the columns that fit into a collection."""
        return columns

    @abstractmethod
    def fill(self, vectors: Float32, columns: Sequence[CodedColumn], threads: int) -> None:
        """Make the collection.

        Args:
            vectors: float32 [size, dim].
            columns: of `storable`.
            threads: to build a graph with.
        """

    def effort(self, count: int) -> int:
        """Return how far a graph is searched for so many rows."""
        return min(max(int(self.settings["effort"]), 2 * count), int(self.efforts[-1]))

    @abstractmethod
    def ask(self, vector: Float32, where: str | None, count: int) -> tuple[Int64, float]:
        """Search the collection.

        Args:
            vector: from `asked`.
            where: from `express`; None for all rows.
            count: rows wanted.

        Returns:
            Rows int64 [m], and the smallest of their scores as the server has it.
        """

    @abstractmethod
    def sample(self, rows: list[int]) -> Float32:
        """Return some vectors as stored: float32 [found, ...]."""

    @abstractmethod
    def express(self, condition: CodeRanges) -> str | None:
        """Write a condition in the language of the server; None if it has not that column."""

    @override
    def discard(self) -> None:
        self.close()
        self.drop(self._server, self.collection)

    @classmethod
    def drop(cls, server: Server, collection: str) -> None:
        """Remove a collection, if it is still there.

        Args:
            server: that has it.
            collection: its name.

        Raises:
            IndexDownError: It could not be removed.
        """
        try:
            cls.remove(server, collection)
        except cls.failures() as error:
            why = server.reason(error, lost=cls.lost(error))
            raise IndexDownError("a collection could not be removed", where=f"{cls.holder} {collection}", why=why) from None

    @property
    @override
    def error(self) -> str:
        return getattr(self._own, "error", "") or self._error

    @cached_property
    def _longest(self) -> float:
        return longest_of(self._vectors)

    @override
    def find(self, queries: Sequence[SearchQuery], n: int, *, exact: bool) -> list[Ranked]:
        self._own.error = ""
        return [self._answer(one, n, exact=exact) for one in queries]

    def stored(self, vectors: Float32) -> Float32:
        """Return vectors as the collection has them.

        A graph over inner products leads to long vectors alone. With one more number all vectors are of length 1, and those
        with the largest inner product are the nearest ones (Bachrach et al. 2014), so the graph finds them.

        Args:
            vectors: float32 [m, dim].

        Returns:
            The same of an exact index; else float32 [m, dim + 1].
        """
        if self.exact:
            return vectors
        scaled = vectors / np.float64(self._longest or 1.0)
        rest = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", scaled, scaled), 0))
        return np.column_stack([scaled, rest]).astype(np.float32)

    def asked(self, query: Float32) -> Float32:
        """Return a query, float32 [dim], as the collection is asked for it."""
        if self.exact:
            return query
        length = float(np.linalg.norm(query.astype(np.float64)))
        return np.append(query / np.float64(length or 1.0), 0).astype(np.float32)

    def opened(self) -> Self:
        """Return the index after a check.

        A server that is down is checked later, if this process answers in its place.

        Raises:
            IndexFileError: The collection is a different one or incomplete, or the server does not answer.
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
        """Compare the collection with the vectors: the number of rows, and three of them.

        Raises:
            IndexDownError: The server does not answer.
            IndexFileError: The collection is a different one, or incomplete.
        """
        self.guarded(lambda: self._compare(counted=True))

    @abstractmethod
    def count(self, where: str | None) -> int:
        """Count the rows, or those for which a filter holds.

        It has the time that building has.
        """

    def prove(self, columns: Sequence[CodedColumn]) -> None:
        """Compare the columns of the collection with what was sent, by counting rows.

        Args:
            columns: as they were sent.

        Raises:
            ExportError: A filter would find other rows on the server than here.
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
                        where=self.place,
                        hint="Nothing was published. Try again; if it repeats, report it with the version of the server",
                    )

    def guarded(self, call: Callable[[], Answer]) -> Answer:
        """Call the server, unless it did not answer lately.

        Args:
            call: sends a question, and raises one of `failures`.

        Raises:
            IndexDownError: It does not answer, or did not lately.
            IndexFileError: The collection is not what it was.
        """
        if not self._breaker.admits():
            refused = IndexDownError(_DOWN, where=self.place, why="it did not answer lately, and is left alone for a moment")
            refused.repeated = True
            raise refused
        try:
            found = call()
        except Exception as error:
            lost, self._checked = self.lost(error), False
            (self._breaker.failed if lost else self._breaker.succeeded)()
            if isinstance(error, self._failures):
                why = self._server.reason(error, lost=lost)
                raise IndexDownError(_DOWN, where=self.place, why=why, hint="Look at the server") from None
            raise
        self._breaker.succeeded()
        self._checked = True
        self._error = ""
        return found

    def _compare(self, *, counted: bool = False) -> None:
        rows = sorted({0, self.size // 2, self.size - 1})
        vectors = self.sample(rows)  # before a count, which waits long for a server that does not answer
        if counted and (count := self.count(None)) != self.size:
            raise IndexFileError(f"the index holds {count} vectors, the bundle {self.size}", where=self.place, hint=_AGAIN)
        if len(vectors) != len(rows):
            what = f"the index holds {len(vectors)} of {len(rows)} rows that were looked up"
            raise IndexFileError(what, where=self.place, hint=_AGAIN)
        expected = self.stored(self._vectors[rows])
        if vectors.shape != expected.shape or not np.allclose(vectors, expected, rtol=1e-5, atol=1e-6 if not self.exact else 0):
            raise IndexFileError("the index holds other vectors than the bundle", where=self.place, hint=_AGAIN)

    def _answer(self, query: SearchQuery, n: int, *, exact: bool) -> Ranked:
        eligible = self.size if query.within is None else query.within.count
        if self.most is not None and min(n, eligible) > self.most:
            limit = f"{self.place.partition(' ')[0]} returns at most {self.most}"
            raise RequestError(f"{n} results were asked for, and {limit}", where="/n", hint=f"Ask for at most {self.most}")
        if (query.within is not None and eligible <= _FEW) or (exact and not self.exact):
            return self._scan(query, n)
        try:
            return self._search(query, n, eligible)
        except IndexFileError as error:
            if not self._server.local:
                raise
            self._own.error = self._error = _INSTEAD.format(error.what)
            return self._scan(query, n)

    def _search(self, query: SearchQuery, n: int, eligible: int) -> Ranked:
        where = None if query.predicate is None else expression(query.predicate.plan, self.express)
        # a row that the server returns is eligible with this probability, as far as is known
        share = eligible / self.size if where is None else 1.0
        least = eligible if where is not None else self.size
        width = math.ceil((n + _SPARE) / share) + len(query.excluded)
        slack = float(rounding(query.vector, self._longest))
        while width < least // 2 and (self.most is None or width <= self.most):
            rows, worst = self._asked(query.vector, where, width, least)
            found = rank(self._vectors, query.vector, _within(rows, query.within), query.excluded, n, exact=self.exact)
            if len(found.rows) == n and (not self.exact or found.scores[-1] > worst + slack):  # else a tie may go on
                return found
            width *= _WIDER
        return self._scan(query, n)

    def _asked(self, vector: Float32, where: str | None, width: int, least: int) -> tuple[Int64, float]:
        """Return the answer of the server; raise IndexDownError if rows are missing."""

        def call() -> tuple[Int64, float]:
            if not self._checked:
                self._compare()
            return self.ask(self.asked(vector), where, width)

        rows, worst = self.guarded(call)
        whole = len(rows) >= (min(width, least) if self.exact else 1)
        if not whole or not 0 <= rows.min() <= rows.max() < self.size:
            self._checked = False  # and so the next call says what is missing
            why = f"it returned {len(rows)} rows, and there are {least}"
            raise IndexDownError("the index lacks items", where=self.place, why=why, hint=_AGAIN)
        return rows, worst

    def _scan(self, query: SearchQuery, n: int) -> Ranked:
        return scan(self._vectors, query.vector, n, self._longest, within=query.within, excluded=query.excluded)


def _within(rows: Int64, within: RowBitmap | None) -> Int64:
    return rows if within is None else rows[within.holds(rows)]


_INSTEAD = "the index is searched in this process: {}"
_DOWN = "the server of the index does not answer"
_AGAIN = "Restore the collection, or make another index for the bundle: recall tune-index BUNDLE"
