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
_MOST_LOSSES = 6  # that fit into it; the earliest stays, for the first loss is what an operator looks for


class Lost(NamedTuple):
    """Acknowledged writes of a file that are in no file any more: those up to `through` that `identity` counted.

    Attributes:
        identity: of the file.
        through: sequence of the last one.
        passed: the file went on without them, under higher numbers: knowing those does not mean knowing the lost ones.
    """

    identity: str
    through: int
    passed: bool = False


class Marked(NamedTuple):
    """How far a file reached at least.

    Attributes:
        identity: of the file.
        sequence: of the last write that was acknowledged.
        losses: writes that were found missing, the earliest first, until they are written back or someone accepts the loss.
    """

    identity: str
    sequence: int
    losses: tuple[Lost, ...] = ()

    @property
    def lost(self) -> Lost | None:
        """The earliest loss, or None when nothing is known to be missing."""
        return self.losses[0] if self.losses else None


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
            lost: writes that are known to be missing, because this file ended before them.
        """
        with suppress(OSError), self._locked() as holder:
            before = _parsed(os.pread(holder, _SIZE, 0))
            losses = [] if before is None else list(before.losses)
            if before is not None and before.identity == identity:
                sequence = max(sequence, before.sequence)
            elif before is not None:
                losses.append(Lost(before.identity, before.sequence))
            if lost is not None:
                losses.append(lost._replace(passed=True))
            left = [one for one in dict.fromkeys(losses) if not _made_up(one, covered)][:_MOST_LOSSES]
            os.pwrite(holder, _text(Marked(identity, sequence, tuple(left))), 0)

    def follow(self, identity: str, sequence: int) -> Marked | None:
        """Return the mark, after raising it to a write of the same file that was found there.

        A process that dies between a commit and its mark leaves a write that is answered from, and may be sent again and then
        acknowledged without being written.
        """
        found = self.read()
        if found is None or found.identity != identity or found.sequence >= sequence:
            return found
        with suppress(OSError), self._locked() as holder:
            before = _parsed(os.pread(holder, _SIZE, 0))
            if before is not None and before.identity == identity and before.sequence < sequence:
                os.pwrite(holder, _text(before._replace(sequence=sequence)), 0)
        return self.read()

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


def _made_up(loss: Lost, covered: Sequence[Lost]) -> bool:
    """Return whether the file is known to hold what was lost."""
    known = [one.through for one in covered if one.identity == loss.identity]
    return loss.through in known if loss.passed else any(through >= loss.through for through in known)


def _text(mark: Marked) -> bytes:
    raw = orjson.dumps({"log": mark.identity, "sequence": mark.sequence, "lost": [[*one] for one in mark.losses]})
    return raw.ljust(_SIZE - 1) + b"\n"


def _parsed(raw: bytes) -> Marked | None:
    try:
        read = orjson.loads(raw)
        losses = tuple(Lost(str(identity), int(through), bool(passed)) for identity, through, passed in read["lost"])
        return Marked(str(read["log"]), int(read["sequence"]), losses)
    except (ValueError, LookupError, TypeError):
        return None
