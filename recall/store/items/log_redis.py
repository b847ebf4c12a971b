"""Change log in one Redis or Valkey, shared by services on several machines.

    recall:log           hash: `state`, the metadata of the log as JSON, `number`, how many entries there are, and `catalog`,
                         the name of the catalogue, so that the changes of two are not mixed
    recall:log:changes   stream: the last change of each item, as entry SEQUENCE-0, which readers follow by plain XREAD
    recall:log:latest    hash: sequence of the last change of each item
    recall:log:heads     sorted set: hash over all changes up to a commit, for the latest commits
    recall:log:key:KEY   digest of the batch with an idempotency key, and its last sequence

A commit is one script, which writes only if the state is still the one that was read. The entry of an item that changes again
is deleted, so gaps between sequences are normal; a lost entry is detected by the number of entries.

A change is acknowledged when it is on the disk of Redis: with `appendfsync always`, or by WAITAOF if the server supports it.
"""

import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import TypeVar

from redis import exceptions
from typing_extensions import override

from recall.errors import JournalBusyError, JournalDamagedError, JournalDownError, JournalError
from recall.store.group_commit import mentions, write_once
from recall.store.high_water_mark import HighWaterMark
from recall.store.items.log_base import ChangeLog, ItemBatch, LogTables
from recall.store.items.log_position import Base, Reading, State
from recall.store.items.log_redis_tables import CHANGES, DOWN, KEY, LOG, NAMES, ConcurrentWriteError, RedisTables, Server

SECONDS = 1.0
"""Default budget of one call."""

_WAIT = 5.0  # seconds for which a transaction is retried while other processes write
_BLOCK = 0.5  # seconds of one XREAD: an emptied or truncated log is detected after at most this time
_PAUSE = 0.2  # seconds before reconnecting

Result = TypeVar("Result")


class RedisChangeLog(ChangeLog):
    """The log in a Redis; `ChangeLog` has the contract."""

    def __init__(
        self,
        url: str,
        mark: HighWaterMark,
        *,
        seconds: float = SECONDS,
        catalog: Callable[[], str] = str,
    ) -> None:
        """Connect at the first call.

        Args:
            url: `redis://HOST:PORT/DB`, with `USER:PASSWORD@` before the host where Redis wants them; `rediss://` for TLS,
                `unix://PATH` for a socket.
            mark: high-water mark, a file on this machine.
            seconds: time limit of one call.
            catalog: returns the name of the catalogue; empty while it is unknown.

        Raises:
            ConfigError: The address is malformed.
        """
        self._server, self._url = Server(url, seconds), url
        super().__init__(mark, self._server.where, JournalError)
        self._find_catalog, self._catalog = catalog, ""
        self._watch: _Watch | None = None
        self._waits = True

    @override
    def read(self, position: State | None, base: Base) -> Reading:
        reading = self._retry(lambda: ChangeLog.read(self, position, base))
        if reading.mark is None and reading.state is not None and reading.state.last:  # the first read from this root
            self.mark.advance(reading.state.identity, reading.state.last)
            return reading._replace(mark=self.mark.read())
        return reading

    @override
    def version(self) -> tuple[int, int]:
        with self._server.translate_errors("read"):
            seen = _change_token(self._server)
        if self._watch is not None:
            self._watch.seen = seen
        return seen

    @override
    def peek(self) -> tuple[int, int]:
        if self._watch is None:
            waiting = Server(self._url, _BLOCK + self._server.seconds)
            self._watch = _Watch(waiting, self.version())
            weakref.finalize(self, self._watch.stop)
        if self._watch.down:
            raise JournalDownError(DOWN, where=self.where, why=self._watch.down, hint="Check Redis")
        return self._watch.seen

    @override
    def set_aside_damaged(self) -> str | None:
        with self._server.translate_errors("moved away"):
            try:
                tables = self._tables()
                if tables.exists:
                    tables.rows_after(0, whole=True)
                return None
            except ConcurrentWriteError:
                return None
            except JournalDamagedError:
                to = f"{LOG}.damaged-{secrets.token_hex(4)}"
            for name in NAMES:
                if self._server.ask("EXISTS", name):
                    self._server.ask("RENAME", name, to + name.removeprefix(LOG))
        return f"{self.where}, {to}"

    @override
    def size(self) -> int:
        try:
            with self._server.translate_errors("read"):
                sizes = self._server.ask_all(*(("MEMORY", "USAGE", name) for name in NAMES))
        except JournalError:
            return 0
        return sum(int(size or 0) for size in sizes)

    @override
    def checkpoint(self) -> None:
        """Do nothing: Redis keeps its own files."""

    @override
    def forget(self, ids: Sequence[str]) -> int:
        with self._server.translate_errors("written"):
            keys = {key for key in self._server.scan(KEY + "*") if mentions(key.decode().removeprefix(KEY), ids)}
            if keys:
                self._server.ask("DEL", *keys)
        return len(keys)

    @override
    def durability_warning(self) -> str:
        with self._server.translate_errors("read"):
            return self._server.durability_warning()

    @override
    def close(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._server.close()

    @override
    @contextmanager
    def _open_tables(self) -> Iterator[LogTables | None]:
        with self._server.translate_errors("read"):
            tables = self._tables()
            yield tables if tables.exists else None

    @override
    def _transact(self, change: Callable[[LogTables], int]) -> int:
        with self._lock:
            return self._transaction(change)

    @override
    def _store(self, batches: Sequence[ItemBatch]) -> None:
        def add_all(tables: RedisTables) -> None:
            for batch in batches:
                write_once(batch, tables, partial(self._append_batch, tables))

        self._transaction(add_all, list(dict.fromkeys(batch.key for batch in batches if batch.key is not None)))

    def _transaction(self, change: Callable[[RedisTables], Result], keys: Sequence[str] = ()) -> Result:
        """Run a change, and commit what it writes; the caller holds the lock."""

        def once() -> Result:
            self._staged_mark = None  # a failed transaction may have left one
            with self._server.translate_errors("written"):
                tables = self._tables(keys)
                before = tables.state()
                result = change(tables)
                if tables.state() is not before:
                    self._execute(tables)
            return result

        result = self._retry(once)
        self._advance_mark()
        return result

    def _execute(self, tables: RedisTables) -> None:
        """Run the commit script, and wait until the server has synced it to disk.

        Raises:
            ConcurrentWriteError: Another process wrote meanwhile.
            JournalError: The commit may have been applied, but is not on disk.
        """
        wait = [("WAITAOF", 1, 0, int(self._server.seconds * 500))] if self._waits else []
        done, *waited = self._server.ask_all(*tables.commands(), *wait, return_errors=True)
        waited = waited[-1:] if wait else []
        if isinstance(done, Exception):
            raise done
        if done != 1:
            raise ConcurrentWriteError
        if waited and isinstance(waited[0], exceptions.ResponseError):  # an older server, or one without an append-only file
            self._waits = False
        elif waited and not isinstance(waited[0], Exception) and waited[0][0] < 1:
            raise JournalError("Redis did not write the change to its disk in time", where=self.where, hint="Send it again")

    def _tables(self, keys: Sequence[str] = ()) -> RedisTables:
        self._catalog = self._catalog or self._find_catalog()
        return RedisTables(self._server, keys, self._catalog)

    def _retry(self, act: Callable[[], Result]) -> Result:
        """Retry an operation while other processes write. Raises JournalBusyError."""
        deadline = time.monotonic() + _WAIT
        while True:
            try:
                return act()
            except ConcurrentWriteError:
                if time.monotonic() > deadline:
                    what = "other processes keep writing to the log"
                    raise JournalBusyError(what, where=self.where, hint="Try again later") from None


def _change_token(server: Server) -> tuple[int, int]:
    """Return the log's change token, see `ChangeLog.version`. Raises RedisError."""
    raw, length = server.ask_all(("HGET", LOG, "state"), ("XLEN", CHANGES))
    return hash(raw or b""), int(length)


class _Watch:
    """Background thread that updates the change token when other processes write.

    Attributes:
        seen: latest change token.
        down: why the server does not answer; empty if it does.
    """

    def __init__(self, server: Server, seen: tuple[int, int]) -> None:
        """Start the thread, which ends some time after `stop`.

        Args:
            server: separate connections with a time limit above `_BLOCK`.
            seen: latest change token.
        """
        self.seen, self.down = seen, ""
        self._server, self._stopped = server, Event()
        Thread(target=self._run, name="watching the log", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopped.set()

    def _run(self) -> None:
        last: bytes = b"$"  # entry of the stream to read after
        while not self._stopped.is_set():
            try:
                self.seen, self.down = _change_token(self._server), ""
                command = ("XREAD", "COUNT", 1000, "BLOCK", int(_BLOCK * 1000), "STREAMS", CHANGES, last)
                streams = self._server.ask(*command)
                last = streams[0][1][-1][0] if streams else last
            except (exceptions.RedisError, OSError) as error:
                self.down, last = str(error) or type(error).__name__, b"$"
                self._stopped.wait(_PAUSE)
        self._server.close()
