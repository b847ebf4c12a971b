"""Change log in one SQLite file, in a root of published versions.

The file is in WAL mode and fsynced at every commit. A batch is one transaction. SQLite lets one process write at a time and any
number read meanwhile; concurrent writers of one process share one transaction, and so one fsync.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from typing_extensions import override

from recall.bundle.versions import catalog_of
from recall.errors import (
    ConfigError,
    JournalBusyError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalReadOnlyError,
)
from recall.store.group_commit import DurableLog
from recall.store.high_water_mark import Mark
from recall.store.items.log_base import REMOTE, ChangeLog, ItemBatch, LogTables
from recall.store.items.log_position import MARK
from recall.store.items.log_tables import ALL, MEND, SqliteTables, upgrade
from recall.store.sqlite import FileKind, folder_lock, snapshot

JOURNAL = "journal.sqlite"
"""Name of the file in a root of published versions."""
VERSION = 2
SQLITE = "sqlite"
VARIABLE = "RECALL_ITEMS"
"""Environment variable that says where the changes of items are kept."""

_WAL_BYTES = 4 << 20  # of the -wal file that are kept after a checkpoint; a large batch makes it longer for a while


class SqliteChangeLog(DurableLog[ItemBatch], ChangeLog):
    """The log in a file; no file is needed before the first change."""

    def __init__(self, path: Path, wait: float = 5.0) -> None:
        """Open nothing yet.

        Args:
            path: the file.
            wait: seconds that a writer waits for another process to finish.
        """
        super().__init__(path, KIND, MARK, wait, wait)

    @override
    def version(self) -> tuple[int, int]:
        asked = "PRAGMA data_version"
        return self._read(lambda one: (self._reader.opened, int(one.execute(asked).fetchone()[0])), (0, 0))

    @override
    def prune(self, upto: int) -> int:
        count = super().prune(upto)
        if count:
            with self._outside() as connection:
                connection.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after one page
        return count

    @override
    def set_aside_damaged(self) -> str | None:
        with self._reading, self._reader.reports("moved away"), folder_lock(self.path.parent):
            if not self._damaged():
                return None
            self._reader.close()
            name = f"{self.path.name}.damaged-{secrets.token_hex(4)}"
            for rest in ("-shm", "-wal", ""):  # the file itself last: without it, what is beside it counts for nothing
                with suppress(FileNotFoundError):
                    self.path.with_name(self.path.name + rest).rename(self.path.with_name(name + rest))
            return str(self.path.with_name(name))

    def _damaged(self) -> bool:
        try:
            with self._reader.reports("read"):
                connection = self._reader.reader()
                if connection is None:
                    return False
                self._tables(connection).rows_after(0, whole=True)
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok")
        except JournalDamagedError:
            return True

    @override
    def size(self) -> int:
        found = 0
        for name in (self.path.name, f"{self.path.name}-wal"):
            with suppress(OSError):
                found += self.path.with_name(name).stat().st_size
        return found

    @override
    @contextmanager
    def _reading_tables(self) -> Iterator[LogTables | None]:
        with self._reading, self._reader.reports("read"):
            connection = self._reader.reader()
            if connection is None:
                yield None
                return
            with snapshot(connection):
                yield self._tables(connection)

    @override
    def _change(self, change: Callable[[LogTables], int]) -> int:
        with self._alone() as connection:
            return change(SqliteTables(connection, False, self.where))

    @override
    def _store(self, batches: Sequence[ItemBatch]) -> None:
        mark = self.mark.read()
        if mark is not None and mark.identity.startswith(REMOTE):  # it would be a second log, which no service reads
            raise JournalReadOnlyError(
                "the changes of these items are kept in a Redis",
                where=self.where,
                why=f"{MARK} says so, and {VARIABLE} or --items names none",
                hint=f"Give its address; or, to begin a log in a file, remove {MARK}",
            )
        super()._store(batches)

    @override
    def _insert(self, connection: sqlite3.Connection, batch: ItemBatch) -> None:
        self._insert_into(SqliteTables(connection, False, self.where), batch)

    def _tables(self, connection: sqlite3.Connection) -> SqliteTables:
        return SqliteTables(connection, self._reader.version == 1, self.where)


KIND = FileKind(
    noun="journal",
    holds="live changes",
    application=0x464D524A,  # "FMRJ"
    version=VERSION,
    create=ALL,
    hint=MEND,
    error=JournalError,
    damaged=JournalDamagedError,
    busy=JournalBusyError,
    full=JournalFullError,
    shut=JournalReadOnlyError,
    upgrade=partial(upgrade, where=JOURNAL),
    wal_bytes=_WAL_BYTES,
)
"""Tables, identification and errors of the file."""


def open_log(root: Path, setting: str | None = None) -> ChangeLog:
    """Open the log of the changes that are served on top of a root's versions.

    Args:
        root: of published versions.
        setting: "sqlite" for a file in the root, or the address of a Redis; by default what RECALL_ITEMS says, or "sqlite".

    Raises:
        ConfigError: The setting is neither, or what it needs is not installed.
    """
    setting = os.environ.get(VARIABLE, SQLITE) if setting is None else setting
    if setting == SQLITE:
        return SqliteChangeLog(root / JOURNAL)
    try:
        from recall.store.items.log_redis import RedisChangeLog
    except ModuleNotFoundError:
        raise ConfigError(
            "changes of items in Redis need the package redis",
            where="items",
            hint="Install it with: pip install 'fm-recall[redis]'",
        ) from None
    return RedisChangeLog(setting, Mark(root / MARK), catalog=lambda: catalog_of(root))
