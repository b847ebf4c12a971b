"""Logs of changes in a file and in a Redis, and what may happen to each of them."""

import shutil
import sqlite3
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from redis import Redis

from recall.store.high_water_mark import HighWaterMark
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.log_base import ChangeLog
from recall.store.items.log_position import MARK, Change
from recall.store.items.log_redis import RedisChangeLog

PATIENT = 5.0  # seconds: time-outs are not tested here, and the machine may be busy


class Storage(Protocol):
    """Where the log of one root is kept."""

    def open(self) -> ChangeLog:
        """Open the log as another process would."""

    def exists(self) -> bool:
        """Return whether anything is stored."""

    def remove(self) -> None:
        """Lose the log."""

    def copy(self) -> Any:
        """Back the log up."""

    def restore(self, copied: Any) -> None:
        """Put a copy in the place of the log."""

    def replace(self) -> None:
        """Replace the log by that of another root, with the item "strange"."""


@dataclass
class InFile:
    """A file in the root."""

    root: Path
    copies: Any

    def open(self) -> SqliteChangeLog:
        return SqliteChangeLog(self.root / JOURNAL)

    def exists(self) -> bool:
        return any(self.root.glob(f"{JOURNAL}*"))

    def remove(self) -> None:
        for file in self.root.glob(f"{JOURNAL}*"):
            file.unlink()

    def copy(self) -> Path:
        to = self.root.parent / f"copied-{next(self.copies)}"
        source, target = sqlite3.connect(self.root / JOURNAL), sqlite3.connect(to)
        source.backup(target)
        target.close()
        source.close()
        return to

    def restore(self, copied: Path) -> None:
        self.remove()
        shutil.copy(copied, self.root / JOURNAL)

    def replace(self) -> None:
        other = SqliteChangeLog(self.root.parent / f"other-{next(self.copies)}" / JOURNAL)
        other.path.parent.mkdir()
        other.append([Change("strange", {})])
        other.close()
        self.restore(other.path)


@dataclass
class InRedis:
    """A database of a Redis, which has nothing else."""

    root: Path
    url: str
    copies: Any

    def __post_init__(self) -> None:
        self.client = Redis.from_url(self.url)

    def open(self) -> RedisChangeLog:
        return RedisChangeLog(self.url, HighWaterMark(self.root / MARK), seconds=PATIENT)

    def exists(self) -> bool:
        return bool(self.client.dbsize())

    def remove(self) -> None:
        self.client.flushdb()

    def copy(self) -> dict[bytes, bytes]:
        return {key: self.client.dump(key) for key in self.client.scan_iter()}

    def restore(self, copied: dict[bytes, bytes]) -> None:
        self.remove()
        for key, value in copied.items():
            self.client.restore(key, 0, value)

    def replace(self) -> None:
        self.remove()
        other = RedisChangeLog(self.url, HighWaterMark(self.root.parent / f"other-{next(self.copies)}.mark"), seconds=PATIENT)
        other.append([Change("strange", {})])
        other.close()


def in_file(root: Path) -> InFile:
    """Return the log in the file of a root."""
    return InFile(root, count())


def in_redis(root: Path, url: str) -> InRedis:
    """Return the log in a database, which is emptied first."""
    found = InRedis(root, url, count())
    found.remove()
    return found
