"""Change log in one Redis or Valkey, shared by services on several machines.

    recall:log           hash: `state`, the metadata of the log as JSON, `number`, how many entries there are, and `catalog`,
                         the name of the catalogue, so that the changes of two are not mixed
    recall:log:changes   stream: the last change of each item, as entry SEQUENCE-0, which readers follow by plain XREAD
    recall:log:latest    hash: sequence of the last change of each item
    recall:log:heads     sorted set: hash over all changes up to a commit, for the latest commits
    recall:log:key:KEY   digest of the batch with an idempotency key, and what was answered to it

A commit is one script, which writes only if the state is still the one that was read. The entry of an item that changes again
is deleted, so gaps between sequences are normal; a lost entry is noticed by the number of those that are left.

A change is acknowledged when it is on the disk of Redis: with `appendfsync always`, or by WAITAOF where the server has it.
"""

import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TypeVar

from redis import exceptions
from typing_extensions import override

from recall.errors import JournalBusyError, JournalDamagedError, JournalDownError, JournalError, RecallError
from recall.store.group_commit import key_conflict, mentions
from recall.store.high_water_mark import HighWaterMark
from recall.store.items.log_base import ChangeLog, ItemBatch, LogTables
from recall.store.items.log_position import Base, Reading, State
from recall.store.items.log_redis_tables import CHANGES, DOWN, KEY, LOG, NAMES, ConcurrentWriteError, RedisTables, Server

SECONDS = 1.0
"""Default budget of one call."""

_WAIT = 5.0  # seconds for which a process tries again while others write
_BLOCK = 0.5  # seconds of one XREAD, and so until a log that was emptied or cut is noticed
_PAUSE = 0.2  # seconds before a connection that broke is made again

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
        """No connection is made before the first call.

        Args:
            url: `redis://HOST:PORT/DB`, with `USER:PASSWORD@` before the host where Redis wants them; `rediss://` for TLS,
                `unix://PATH` for a socket.
            mark: a file on this machine that remembers how far the log had come.
            seconds: budget of one call.
            catalog: returns the name of the catalogue; empty as long as it is not known.

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
        found = self._again(lambda: ChangeLog.read(self, position, base))
        if found.mark is None and found.state is not None and found.state.last:  # the first look from this root
            self.mark.advance(found.state.identity, found.state.last)
            return found._replace(mark=self.mark.read())
        return found

    @override
    def version(self) -> tuple[int, int]:
        with self._server.translate_errors("read"):
            seen = _look(self._server)
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
            raise JournalDownError(DOWN, where=self.where, why=self._watch.down, hint="Look at Redis")
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
                told = self._server.ask_all(*(("MEMORY", "USAGE", name) for name in NAMES))
        except JournalError:
            return 0
        return sum(int(one or 0) for one in told)

    @override
    def checkpoint(self) -> None:
        """Do nothing: Redis keeps its own files."""

    @override
    def forget(self, ids: Sequence[str]) -> int:
        named, cursor = set[bytes](), b"0"
        with self._server.translate_errors("written"):
            while True:
                cursor, found = self._server.ask("SCAN", cursor, "MATCH", KEY + "*", "COUNT", 1000)
                named |= {key for key in found if mentions(key.decode().removeprefix(KEY), ids)}
                if cursor in (b"0", 0):
                    break
            if named:
                self._server.ask("DEL", *named)
        return len(named)

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
        def take_all(tables: RedisTables) -> None:
            for batch in batches:
                batch.error = None
                try:
                    self._add_batch(tables, batch)
                except RecallError as error:
                    batch.error = error

        self._transaction(take_all, list(dict.fromkeys(batch.key for batch in batches if batch.key is not None)))

    def _transaction(self, change: Callable[[RedisTables], Result], keys: Sequence[str] = ()) -> Result:
        """Run a change, and commit what it writes; the caller holds the lock."""

        def once() -> Result:
            self._staged_mark = None  # what a transaction that failed has left
            with self._server.translate_errors("written"):
                tables = self._tables(keys)
                before = tables.state()
                found = change(tables)
                if tables.state() is not before:
                    self._execute(tables)
            return found

        found = self._again(once)
        self._advance_mark()
        return found

    def _add_batch(self, tables: RedisTables, batch: ItemBatch) -> None:
        """Add one batch unless its key is known."""
        size = len(batch.digest)
        held = None if batch.key is None else tables.answers.get(batch.key)
        if held is not None:
            if held[:size] != batch.digest:
                raise key_conflict()
            batch.last = int(held[size:])
            return
        self._append_batch(tables, batch)
        if batch.key is not None:
            tables.answers[batch.key] = batch.digest + str(batch.last).encode()

    def _execute(self, tables: RedisTables) -> None:
        """Run the script, and wait until it is on the server's disk.

        Raises:
            ChangedError: Another process has written.
            JournalError: It may have been written, and is not on disk.
        """
        wait = [("WAITAOF", 1, 0, int(self._server.seconds * 500))] if self._waits else []
        done, *waited = self._server.ask_all(*tables.commands(), *wait, tolerant=True)
        waited = waited[-1:] if wait else []
        if isinstance(done, Exception):
            raise done
        if done != 1:
            raise ConcurrentWriteError
        if waited and isinstance(waited[0], exceptions.ResponseError):  # an older server, or one without an append-only file
            self._waits = False
        elif waited and not isinstance(waited[0], Exception) and waited[0][0] < 1:
            raise JournalError("Redis has not written the change to its disk in time", where=self.where, hint="Send it again")

    def _tables(self, keys: Sequence[str] = ()) -> RedisTables:
        self._catalog = self._catalog or self._find_catalog()
        return RedisTables(self._server, keys, self._catalog)

    def _again(self, act: Callable[[], Result]) -> Result:
        """Run what begins again when another process writes meanwhile."""
        until = time.monotonic() + _WAIT
        while True:
            try:
                return act()
            except ConcurrentWriteError:
                if time.monotonic() > until:
                    raise JournalBusyError("others write all the time", where=self.where, hint="Try again later") from None


def _look(server: Server) -> tuple[int, int]:
    """Return the token of the log. Raises RedisError."""
    raw, length = server.ask_all(("HGET", LOG, "state"), ("XLEN", CHANGES))
    return hash(raw or b""), int(length)


class _Watch:
    """A thread that waits for changes of other processes.

    Attributes:
        seen: token of the log when it was last polled.
        down: why there was none; empty if there was.
    """

    def __init__(self, server: Server, seen: tuple[int, int]) -> None:
        """Start the thread, which ends some time after `stop`.

        Args:
            server: with connections of its own, whose budget is longer than `_BLOCK`.
            seen: the last token.
        """
        self.seen, self.down = seen, ""
        self._server, self._stopped = server, Event()
        Thread(target=self._run, name="watching the log", daemon=True).start()

    def stop(self) -> None:
        """Let the thread end."""
        self._stopped.set()

    def _run(self) -> None:
        last: bytes = b"$"  # of the stream
        while not self._stopped.is_set():
            try:
                self.seen, self.down = _look(self._server), ""
                asked = ("XREAD", "COUNT", 1000, "BLOCK", int(_BLOCK * 1000), "STREAMS", CHANGES, last)
                found = self._server.ask(*asked)
                last = found[0][1][-1][0] if found else last
            except (exceptions.RedisError, OSError) as error:
                self.down, last = str(error) or type(error).__name__, b"$"
                self._stopped.wait(_PAUSE)
        self._server.close()
