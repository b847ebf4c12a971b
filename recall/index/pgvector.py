"""Indexes in Postgres with pgvector: an immutable table for each index.

    fm_recall_<random>         row integer, v vector, and c0, c1, ... the codes of columns with one value an item
    fm_recall_<random>_bags    place of a column, code, row: the entries of columns with several values an item

RECALL_PGVECTOR_URL is the address. A manifest records only the name of the table.
"""

import re
import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Int64
from recall.index.base import Params
from recall.index.query import CodedColumn, CodeRanges
from recall.index.remote import RemoteIndex
from recall.index.servers import Server, client_package

VARIABLE = "RECALL_PGVECTOR_URL"

_BUILDING = 3600.0  # time limit in seconds of one statement while an index is built
_ROWS = 10_000  # rows converted to text at once


def _client() -> Any:
    return client_package("psycopg", "Postgres", "pgvector")


def _host(url: str) -> str:
    try:
        found = _client().conninfo.conninfo_to_dict(url)
    except _client().Error:
        raise ValueError from None
    host = str(found.get("host", "localhost"))
    if "@" in f"{host}{found.get('dbname', '')}" or not re.fullmatch(r"[\d,]*", str(found.get("port", ""))):
        raise ValueError  # a part of the password was parsed as another part of the address
    return host


def _connect(url: str, seconds: float, **options: str) -> Any:
    """Connect to Postgres.

    Args:
        url: address of the server.
        seconds: time limit of each statement.
        options: settings of the session, by name.
    """
    base: Any = _client().Connection

    class Bounded(base):  # type: ignore[misc]
        effort = 0  # value of hnsw.ef_search that was set

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ARG002
            return super().wait(gen, interval, timeout=seconds)

    # the time limit in the server is shorter, so that the client's is reached only if the server does not answer
    settings = " ".join(
        f"-c {name}={value}" for name, value in {"statement_timeout": f"{seconds * 900:.0f}", **options}.items()
    )
    return Bounded.connect(url, autocommit=True, connect_timeout=2, options=settings)


class PgvectorIndex(RemoteIndex):
    """Index in Postgres: a sequential scan, or an HNSW graph."""

    engine, kinds, label = "pgvector", ("pgvector_exact", "pgvector_hnsw"), "Postgres table"
    efforts = (20, 40, 80, 160, 320, 640, 1000)  # up to pgvector's limit; its iterative scan returns longer lists

    def __init__(self, server: Server, kind: str, params: Params, vectors: Float32) -> None:
        """Describe the index; the arguments are those of `RemoteIndex`."""
        super().__init__(server, kind, params, vectors)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    @staticmethod
    @override
    def read_server() -> Server:
        return Server.read(VARIABLE, "pgvector", _host)

    @staticmethod
    @override
    def failures() -> tuple[type[Exception], ...]:
        return (_client().Error, OSError)

    @staticmethod
    @override
    def lost(error: BaseException) -> bool:
        state = getattr(error, "sqlstate", None)  # None for errors of the connection
        return isinstance(error, PgvectorIndex.failures()) and (state is None or state[:2] == "08" or state[:3] == "57P")

    @staticmethod
    @override
    def remove(server: Server, collection: str) -> None:
        with _connect(server.url, _BUILDING) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {collection}, {collection}_bags")

    @override
    def ask(self, vector: Float32, where: str | None, count: int) -> tuple[Int64, float]:
        condition = "" if where is None else f"WHERE {where} "
        effort = 0 if self.exact else self.effort(count)
        text = f"[{','.join(map(repr, vector.tolist()))}]"
        with self._connection() as connection:
            if connection.effort != effort:
                connection.execute("SELECT set_config('hnsw.ef_search', %s, false)", (str(effort),))
                connection.effort = effort
            found = connection.execute(
                f"SELECT row, -(v <#> %s::vector) FROM {self.collection} {condition}ORDER BY v <#> %s::vector LIMIT {count}",
                (text, text),
                prepare=where is None,
            ).fetchall()
        rows = np.fromiter((row for row, _ in found), dtype=np.int64, count=len(found))
        return rows, float(found[-1][1]) if found else -np.inf

    @override
    def sample(self, rows: list[int]) -> Float32:
        with self._connection() as connection:
            found = connection.execute(
                f"SELECT v::text FROM {self.collection} WHERE row = ANY(%s) ORDER BY row", (rows,)
            ).fetchall()
        return np.array([text.strip("[]").split(",") for (text,) in found], dtype=np.float32)

    @override
    def count(self, where: str | None) -> int:
        with _connect(self._server.url, _BUILDING) as connection:
            found = connection.execute(f"SELECT count(*) FROM {self.collection} WHERE {where or 'true'}").fetchone()
        return int(found[0])

    @override
    def express(self, condition: CodeRanges) -> str | None:
        column = self._columns.find(condition)
        if column is None:
            return None
        place, bag = column
        name = "code" if bag else f"c{place}"
        single = [str(low) for low, high in condition.ranges if high - low == 1]
        parts = [f"{name} BETWEEN {low} AND {high - 1}" for low, high in condition.ranges if high - low > 1]
        parts += [f"{name} IN ({','.join(single)})"] if single else []
        joined = f"({' OR '.join(parts) or 'false'})"
        return f"row IN (SELECT row FROM {self.collection}_bags WHERE place = {place} AND {joined})" if bag else joined

    @override
    def close(self) -> None:
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """Yield a connection for this thread; if a call fails, close the idle ones, too."""
        try:
            connection = self._idle.get_nowait()
        except Empty:
            connection = None
        if connection is not None and not _alive(connection):  # the server was restarted
            connection.close()
            self.close()
            connection = None
        if connection is None:
            options = {} if self.exact else {"hnsw.iterative_scan": "strict_order", "enable_seqscan": "off"}
            connection = _connect(self._server.url, self._server.seconds, **options)
        try:
            yield connection
        except BaseException:
            connection.close()
            self.close()
            raise
        self._idle.put(connection)

    @override
    def fill(self, vectors: Float32, columns: Sequence[CodedColumn], threads: int) -> None:
        with _connect(self._server.url, _BUILDING, synchronous_commit="on") as connection, connection.transaction():
            self._fill(connection, vectors, columns, threads)

    def _fill(self, connection: Any, vectors: Float32, columns: Sequence[CodedColumn], threads: int) -> None:
        """Create the tables in the transaction of a connection."""
        execute, table, links = connection.execute, self.collection, int(self.settings["links"])
        dim = self.to_stored(vectors[:1]).shape[1]
        single = [(place, one) for place, one in enumerate(columns) if one.rows is None]
        bags = [(place, one.codes, one.rows) for place, one in enumerate(columns) if one.rows is not None]
        execute("CREATE EXTENSION IF NOT EXISTS vector")
        columns_of_codes = "".join(f", c{place} integer NOT NULL" for place, _ in single)
        execute(f"CREATE TABLE {table} (row integer PRIMARY KEY, v vector({dim}) NOT NULL{columns_of_codes})")
        execute(f"CREATE TABLE {table}_bags (place integer, code integer, row integer, PRIMARY KEY (place, code, row))")
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for first in range(0, len(vectors), _ROWS):
                stored = self.to_stored(vectors[first : first + _ROWS])
                part = (one.codes[first : first + _ROWS].tolist() for _, one in single)
                for row in zip(range(first, first + len(stored)), map(str, stored.tolist()), *part, strict=True):
                    copy.write_row(row)
        with connection.cursor().copy(f"COPY {table}_bags FROM STDIN") as copy:
            for place, codes, rows in bags:
                for code, row in np.unique(np.stack([codes, rows], axis=1), axis=0).tolist():
                    copy.write_row((place, code, row))
        if links:
            execute(f"SET LOCAL max_parallel_maintenance_workers = {max(threads - 1, 0)}")
            execute(f"CREATE INDEX ON {table} USING hnsw (v vector_ip_ops) WITH (m = {links}, ef_construction = 200)")
        execute(f"ANALYZE {table}")
        execute(f"ANALYZE {table}_bags")


def _alive(connection: Any) -> bool:
    """Return whether the server has not closed a connection, without a call."""
    poll = select.poll()  # select.select refuses descriptors from 1024 on
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)  # between two statements, a server sends only the end of the connection
