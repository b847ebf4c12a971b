"""Cached random access to the rows of the item table."""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from recall._arrays import Int64
from recall.errors import BundleError

MOST_HELD = 128 << 20
"""Bytes of a table that is held in memory once something of it was asked for; of a larger one that is read each time."""
_FAR = 1 << 16
"""Row gap above which two slices are read separately. Chosen, not tuned."""

Found = TypeVar("Found")


class ItemTable:
    """Reads rows of a table of items. Threads share it."""

    def __init__(self, path: Path, most: int = MOST_HELD) -> None:
        """Nothing is read before rows are asked for.

        Args:
            path: a Parquet file, which never changes.
            most: bytes that are held at most.
        """
        self._path = path
        self._most = most
        self._held: pl.DataFrame | None = None
        self._large = False
        self._reading = Lock()

    def rows(self, rows: Int64) -> pl.DataFrame:
        """Return some rows, int64 [m], in that order.

        Raises:
            BundleError: The file cannot be read.
        """
        held = self._whole()
        return held[rows] if held is not None else self._reported(lambda: self._parts(rows))

    def _whole(self) -> pl.DataFrame | None:
        """Return the whole table if it is small enough to be cached."""
        if self._held is None and not self._large:
            with self._reading:
                if self._held is None and not self._large:
                    self._held = self._reported(self._read)
                    self._large = self._held is None
        return self._held

    def _read(self) -> pl.DataFrame | None:
        if self._path.stat().st_size > self._most:  # it takes no less in memory
            return None
        found = pl.read_parquet(self._path)
        return found if found.estimated_size() <= self._most else None

    def _parts(self, rows: Int64) -> pl.DataFrame:
        """Read without what lies far from the rows."""
        wanted = np.unique(rows)
        table = pl.scan_parquet(self._path)
        parts = [
            table.slice(int(near[0]), int(near[-1] - near[0]) + 1).collect()[near - near[0]]
            for near in np.split(wanted, np.flatnonzero(np.diff(wanted) > _FAR) + 1)
            if len(near)
        ]
        return (pl.concat(parts) if parts else table.head(0).collect())[np.searchsorted(wanted, rows)]

    def _reported(self, read: Callable[[], Found]) -> Found:
        try:
            return read()
        except (PolarsError, OSError) as error:
            raise BundleError("the table cannot be read", where=str(self._path), why=str(error)) from None
