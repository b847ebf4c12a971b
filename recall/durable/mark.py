"""High-water mark: how far a file reached when its last write was acknowledged, kept outside of the file.

SQLite keeps the latest writes in a `-wal` file until a checkpoint, so a copy without that file is a valid database that ends
too early, and nothing inside of it says so. The mark does. It is written after each commit and before the write is
acknowledged, without an fsync: the commit it speaks of is on disk already, so the mark is never ahead of the file, and a mark
that a power failure sets back only makes the check weaker.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import orjson

_SIZE = 512  # bytes: a whole sector, so that a reader never meets half of it


class Lost(NamedTuple):
    """Acknowledged writes of a file that are in no file any more: those up to `through` that `identity` counted."""

    identity: str
    through: int


class Marked(NamedTuple):
    """How far a file reached at least.

    Attributes:
        identity: of the file.
        sequence: of the last write that was acknowledged.
        lost: writes that were found missing when the file was written to the last time, until someone accepts the loss.
    """

    identity: str
    sequence: int
    lost: Lost | None = None


class Mark:
    """The mark beside one file; several processes may write it."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; the file is created with the first write."""
        self.path = path

    def read(self) -> Marked | None:
        """Return the mark, or None if there is none that can be read."""
        try:
            holder = os.open(self.path, os.O_RDONLY)
        except OSError:
            return None
        try:
            return _parsed(os.pread(holder, _SIZE, 0))
        except OSError:
            return None
        finally:
            os.close(holder)

    def advance(self, identity: str, sequence: int, covered: Sequence[Lost] = (), lost: Lost | None = None) -> None:
        """Note that a write was made. A mark that cannot be written is left as it is: it is a lower bound all the same.

        Args:
            identity: of the file that was written.
            sequence: of the write.
            covered: writes of other files, or of this one, that the file is known to hold.
            lost: writes that are known to be missing.
        """
        with suppress(OSError), self._locked() as holder:
            before = _parsed(os.pread(holder, _SIZE, 0))
            if before is not None:
                lost = lost or before.lost
                if before.identity == identity:
                    sequence = max(sequence, before.sequence)
                else:
                    lost = lost or Lost(before.identity, before.sequence)
            if any(lost is not None and one.identity == lost.identity and one.through >= lost.through for one in covered):
                lost = None
            text = orjson.dumps({"log": identity, "sequence": sequence, "lost": lost and [lost.identity, lost.through]})
            os.pwrite(holder, text.ljust(_SIZE - 1) + b"\n", 0)

    def remove(self) -> None:
        """Remove the mark, so that nothing counts as missing."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        holder = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX)
            yield holder
        finally:
            os.close(holder)


def _parsed(raw: bytes) -> Marked | None:
    try:
        read = orjson.loads(raw)
        lost = None if read["lost"] is None else Lost(str(read["lost"][0]), int(read["lost"][1]))
        return Marked(str(read["log"]), int(read["sequence"]), lost)
    except (ValueError, LookupError, TypeError):
        return None
