"""High-water mark: how far a file reached at its last acknowledged write.

It is kept outside of the file. SQLite keeps the latest writes in a `-wal` file until a checkpoint, so a copy without that file
is a valid database that ends too early, and nothing inside of it shows that. The mark does. It is written after each commit
and before the write is acknowledged, without an fsync: the commit is on disk already, so the mark is never ahead of the file,
and a mark that a power failure sets back only makes the check weaker.

The mark is created atomically and overwritten in place, one sector at a time. So one that cannot be parsed was damaged from
outside. It is reported until an operator removes it, because its content cannot be recovered.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from recall._fsync import descriptor, fsync

_SIZE = 512  # bytes: a whole sector, so that a reader never sees half of it
_MOST_LOSSES = 6  # that fit into it; the earliest stays, for the first loss is what an operator looks for


class Lost(NamedTuple):
    """Acknowledged writes of a file that are in no file any more.

    Attributes:
        identity: of the file.
        through: sequence of the last one.
        passed: the file continued without them, under higher numbers: knowing those does not mean knowing the lost ones.
    """

    identity: str
    through: int
    passed: bool = False


class Marked(NamedTuple):
    """Lower bound of how far a file reached.

    Attributes:
        identity: of the file.
        sequence: of the last write that was acknowledged.
        losses: writes that were found missing, the earliest first, until they are written back or someone accepts the loss.
        damaged: why an earlier mark could not be read; what it knew is gone. Kept until the mark is removed.
    """

    identity: str
    sequence: int
    losses: tuple[Lost, ...] = ()
    damaged: str = ""

    @property
    def lost(self) -> Lost | None:
        """The earliest loss, or None when nothing is known to be missing."""
        return self.losses[0] if self.losses else None


def damage(mark: Marked | None, name: str, noun: str) -> str:
    """Describe a mark that could not be read, in a sentence; empty if it could.

    Args:
        mark: as it was read.
        name: of its file.
        noun: name for the file that it belongs to.
    """
    if mark is None or not mark.damaged:
        return ""
    return (
        f"{name} was damaged ({mark.damaged}), so whether {noun} still holds every change acknowledged before is not known. "
        f"What {noun} holds is served; compare it with a backup or with the source of the changes, then remove {name}"
    )


class Mark:
    """The mark beside one file; several processes may write it."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; the file is created with the first write."""
        self.path = path

    def read(self) -> Marked | None:
        """Return the mark, or None without a file; an unreadable one is `damaged`."""
        try:
            with descriptor(self.path) as holder:
                return _parsed(os.pread(holder, _SIZE, 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            return Marked("", 0, damaged=error.strerror or type(error).__name__)

    def stamp(self) -> tuple[int, int] | None:
        """Return a token that changes when the mark is replaced, not when it rises.

        Creation, removal and truncation change it, too.
        """
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_ino, found.st_size

    def advance(self, identity: str, sequence: int, covered: Sequence[Lost] = (), lost: Lost | None = None) -> None:
        """Record a write. A mark that cannot be written stays a valid lower bound.

        Args:
            identity: of the file that was written.
            sequence: of the write.
            covered: writes of other files, or of this one, that the file is known to contain.
            lost: writes that are known to be missing, because this file ended before them.
        """
        with suppress(OSError):
            if not self.path.exists() and self._create(_advanced(None, identity, sequence, covered, lost)):
                return
            with self._locked() as holder:
                before = _parsed(os.pread(holder, _SIZE, 0))
                os.pwrite(holder, _text(_advanced(before, identity, sequence, covered, lost)), 0)

    def follow(self, found: Marked | None, identity: str, sequence: int) -> Marked | None:
        """Raise the mark to a write found in the same file; return the mark.

        A process that dies between a commit and its mark leaves a write that is answered from, and may be sent again and then
        acknowledged without being written.

        Args:
            found: the mark as it was before the file was read. One that is read later may be ahead of what was read, because
                another process wrote meanwhile, and would look like a loss.
            identity: of the file.
            sequence: of its last write.
        """
        if found is None or found.identity != identity or found.sequence >= sequence:
            return found
        with suppress(OSError), self._locked() as holder:
            before = _parsed(os.pread(holder, _SIZE, 0))
            if before.identity == identity and before.sequence < sequence:
                os.pwrite(holder, _text(before._replace(sequence=sequence)), 0)
        return found._replace(sequence=sequence)

    def _create(self, mark: Marked) -> bool:
        """Create the first mark atomically; return False if another process was first.

        Raises:
            OSError: The file system refused.
        """
        made = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            made.write_bytes(_text(mark))
            fsync(made)
            os.link(made, self.path)
            fsync(self.path.parent)
        except FileExistsError:
            return False
        finally:
            made.unlink(missing_ok=True)
        return True

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with descriptor(self.path, os.O_RDWR | os.O_CLOEXEC) as holder:
            fcntl.flock(holder, fcntl.LOCK_EX)
            yield holder


def _advanced(before: Marked | None, identity: str, sequence: int, covered: Sequence[Lost], lost: Lost | None) -> Marked:
    losses = [] if before is None else list(before.losses)
    if before is not None and before.identity == identity:
        sequence = max(sequence, before.sequence)
    elif before is not None and before.identity:
        losses.append(Lost(before.identity, before.sequence))
    if lost is not None:
        losses.append(lost._replace(passed=True))
    left = [one for one in dict.fromkeys(losses) if not _made_up(one, covered)][:_MOST_LOSSES]
    return Marked(identity, sequence, tuple(left), "" if before is None else before.damaged)


def _made_up(loss: Lost, covered: Sequence[Lost]) -> bool:
    """Return whether the file is known to hold what was lost."""
    known = [one.through for one in covered if one.identity == loss.identity]
    return loss.through in known if loss.passed else any(through >= loss.through for through in known)


def _text(mark: Marked) -> bytes:
    said: dict[str, object] = {"log": mark.identity, "sequence": mark.sequence, "lost": [[*one] for one in mark.losses]}
    raw = orjson.dumps(said | ({"damaged": mark.damaged} if mark.damaged else {}))
    return raw.ljust(_SIZE - 1) + b"\n"


def _parsed(raw: bytes) -> Marked:
    if not raw.strip(b"\0"):
        return Marked("", 0, damaged="it is empty")
    try:
        read = orjson.loads(raw)
        losses = tuple(Lost(str(identity), int(through), bool(passed)) for identity, through, passed in read["lost"])
        return Marked(str(read["log"]), int(read["sequence"]), losses, str(read.get("damaged", "")))
    except (ValueError, LookupError, TypeError, AttributeError):
        return Marked("", 0, damaged="it is not what was written there")
