"""What has changed since the items were published, on disk before anybody is told that it is.

One SQLite file in a root of published versions, in WAL mode and fsynced at every commit. A change has a sequence: 1, 2, 3
and so on without a gap, whichever process wrote it, so a reader knows what it has read and that nothing is missing. A
batch is one transaction. SQLite lets one process write at a time and any number read meanwhile; threads of one process
that want to write at once share one transaction, and so one fsync.
"""

import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import orjson

from recall.durable.commits import Batch, Commits
from recall.durable.file import DurableFile, FileKind
from recall.durable.keys import CREATE, REMEMBERED, remember, taken_before
from recall.errors import JournalBusyError, JournalError, JournalFullError, JournalReadOnlyError, RequestError

JOURNAL = "journal.sqlite"
"""Name of the file in a root of published versions."""

_MEND = "Take the journal back from a copy; or move it away, and give every change since the live version again"
_KIND = FileKind(
    noun="journal",
    holds="live changes",
    application=0x464D524A,  # "FMRJ"
    version=1,
    create=(
        "CREATE TABLE changes (sequence INTEGER PRIMARY KEY, item_id TEXT NOT NULL, features BLOB, checksum INTEGER NOT NULL)",
        CREATE,
        "CREATE TABLE state (pruned INTEGER NOT NULL)",
        "INSERT INTO state VALUES (0)",
    ),
    mend=_MEND,
    error=JournalError,
    busy=JournalBusyError,
    full=JournalFullError,
    shut=JournalReadOnlyError,
)


class Change(NamedTuple):
    """What becomes of one item: its values by column, or None when it is deleted."""

    item_id: str
    features: Mapping[str, object] | None


class Entry(NamedTuple):
    """A change as the journal holds it."""

    sequence: int
    item_id: str
    features: Mapping[str, object] | None


@dataclass(eq=False)
class _Batch(Batch):
    """Changes that one caller wants written, and the sequence that they got."""

    rows: list[tuple[str, bytes | None]]
    key: str | None
    after: int
    last: int = 0
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.digest = blake2b(orjson.dumps([(one, (raw or b"").decode()) for one, raw in self.rows]), digest_size=16).digest()


class Journal:
    """One root's journal; may be used from several threads at once. There need not be a file before the first change."""

    def __init__(self, path: Path, wait: float = 5.0) -> None:
        """Nothing is opened yet.

        Args:
            path: the file.
            wait: seconds that a writer waits for another process to finish.
        """
        self.path = path
        self._commits = Commits(DurableFile(path, _KIND, wait), _insert)
        self._reading, self._reader = Lock(), DurableFile(path, _KIND, wait)

    def hear(self, heard: Callable[[float], None]) -> None:
        """Have somebody told the seconds of every write, its fsync included, on the thread that wrote; see `Commits`."""
        self._commits.heard = heard

    def append(self, changes: Sequence[Change], key: str | None = None, after: int = 0) -> int:
        """Write a batch; it is on disk when this returns.

        Args:
            changes: in order; of two that name one item the later counts.
            key: the caller's own name for the batch. A batch with a key that the journal remembers is not written again.
            after: sequences that must lie before this batch, whatever the file says: those that a published version holds.

        Returns:
            The sequence of the last change; of a batch that was written before, what was returned then.

        Raises:
            RequestError: the key belongs to other changes.
            JournalBusyError: another process wrote all the while.
            JournalFullError: there is no room on the disk.
            JournalReadOnlyError: nothing can be written there.
            JournalError: the file system refused, or the file is no journal. Then nothing was acknowledged: the batch may
                be there after all, or not, and can be sent again with the same key.
        """
        batch = _Batch([(one, None if values is None else _json(values)) for one, values in changes], key, after)
        self._commits.write(batch)
        return batch.last

    def since(self, sequence: int) -> list[Entry]:
        """All changes after a sequence, in order.

        Raises:
            JournalError: the file cannot be read, is damaged, or no longer holds all of them.
        """
        with self._reading, self._reader.reports("read"):
            connection = self._reader.reader()
            if connection is None:
                return []
            connection.execute("BEGIN")
            try:
                pruned = int(connection.execute("SELECT pruned FROM state").fetchone()[0])
                statement = "SELECT sequence, item_id, features, checksum FROM changes WHERE sequence > ? ORDER BY sequence"
                rows = connection.execute(statement, (sequence,)).fetchall()
            finally:
                connection.execute("ROLLBACK")
        if sequence < pruned:
            raise JournalError(
                f"changes {sequence + 1} to {pruned} are no longer in the journal",
                where=str(self.path),
                why="they are part of later versions",
                mend="Serve a version that was published since",
            )
        return [self._entry(place, *row) for place, row in enumerate(rows, start=sequence + 1)]

    def last(self) -> int:
        """The sequence of the latest change; 0 when there is none. Raises JournalError."""
        with self._reading, self._reader.reports("read"):
            connection = self._reader.reader()
            return 0 if connection is None else _last(connection)

    def version(self) -> tuple[int, int]:
        """Something that is another one whenever somebody has written since: cheap to ask for. Raises JournalError."""
        with self._reading, self._reader.reports("read"):
            connection = self._reader.reader()
            if connection is None:
                return 0, 0
            return self._reader.opened, int(connection.execute("PRAGMA data_version").fetchone()[0])

    def prune(self, upto: int) -> int:
        """Forget all changes up to a sequence, which versions hold by now; gives how many. Raises JournalError."""
        if not self.path.exists():
            return 0
        with self._commits.alone() as connection:
            upto = min(upto, _last(connection))
            count = connection.execute("DELETE FROM changes WHERE sequence <= ?", (upto,)).rowcount
            connection.execute("UPDATE state SET pruned = max(pruned, ?)", (upto,))
        return count

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._commits.close()
        with self._reading:
            self._reader.close()

    def _entry(self, expected: int, sequence: int, item_id: str, features: bytes | None, checksum: int) -> Entry:
        if sequence != expected:
            raise JournalError(f"change {expected} is missing from the journal", where=str(self.path), mend=_MEND)
        if not isinstance(item_id, str) or checksum != _checksum(sequence, item_id, features):
            raise JournalError(f"change {sequence} was damaged after it was written", where=str(self.path), mend=_MEND)
        return Entry(sequence, item_id, None if features is None else orjson.loads(features))


def _insert(connection: sqlite3.Connection, batch: _Batch) -> None:
    if batch.key is not None:
        try:
            known = taken_before(connection, batch.key, batch.digest)
        except RequestError as error:
            batch.error = error
            return
        if known is not None:
            batch.last = known
            return
    last = _last(connection)
    if last < batch.after:  # the file was taken away once: what versions hold must not be numbered again
        connection.execute("DELETE FROM changes")
        connection.execute("UPDATE state SET pruned = ?", (batch.after,))
        last = batch.after
    rows = [(number, *row, _checksum(number, *row)) for number, row in enumerate(batch.rows, start=last + 1)]
    connection.executemany("INSERT INTO changes (sequence, item_id, features, checksum) VALUES (?, ?, ?, ?)", rows)
    batch.last = last + len(rows)
    if batch.key is not None:
        remember(connection, batch.key, batch.digest, batch.last, REMEMBERED)


def _last(connection: sqlite3.Connection) -> int:
    last = connection.execute("SELECT max((SELECT coalesce(max(sequence), 0) FROM changes), (SELECT pruned FROM state))")
    return int(last.fetchone()[0])


def _checksum(sequence: int, item_id: str, features: bytes | None) -> int:
    parts = (str(sequence).encode(), item_id.encode(), b"deleted" if features is None else b"given", features or b"")
    return zlib.crc32(b"\0".join(parts))


def _json(values: Mapping[str, object]) -> bytes:
    return orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS)
