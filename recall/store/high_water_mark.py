"""High-water mark: sequence of the last acknowledged write, in a separate file.

It detects a store that lost acknowledged writes. SQLite keeps the latest writes in a `-wal` file until a checkpoint, so a copy
without that file is a valid database that ends too early, and its content does not show that. The mark is written after each
commit and before the write is acknowledged, without an fsync: the commit is on disk already, so the mark is never ahead of the
store, and a mark that a power failure sets back only weakens the check.

The mark is created atomically and overwritten in place, one sector at a time. A mark that cannot be parsed was therefore
damaged by something else. It is reported until an operator removes it, because its content cannot be recovered.
"""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from recall._file_system import descriptor, fsync, locked_descriptor

_SIZE = 512  # bytes: one sector, so that a reader never sees half of a write
_MAX_LOSSES = 6  # as many as fit into _SIZE; the earliest are kept, because an operator looks for the first loss


class Loss(NamedTuple):
    """Acknowledged writes that are missing from the store.

    Attributes:
        identity: random identity of the store that acknowledged them.
        through: sequence of the last missing write.
        overtaken: whether the store continued with higher sequences without them. A later sequence then does not imply that
            the missing writes were recovered.
    """

    identity: str
    through: int
    overtaken: bool = False


class MarkState(NamedTuple):
    """Content of a mark.

    Attributes:
        identity: random identity of the store.
        sequence: sequence of the last acknowledged write; a lower bound.
        losses: writes found missing, earliest first, until they are written back or an operator removes the mark.
        damaged: why an earlier mark could not be parsed; its content is lost. Empty if it could; kept until the mark is
            removed.
    """

    identity: str
    sequence: int
    losses: tuple[Loss, ...] = ()
    damaged: str = ""

    @property
    def first_loss(self) -> Loss | None:
        """The earliest loss; None if no writes are known to be missing."""
        return self.losses[0] if self.losses else None


def damage_warning(mark: MarkState | None, name: str, noun: str) -> str:
    """Return a warning about a damaged mark; empty if it is intact or absent.

    Args:
        mark: content of the mark, or None.
        name: file name of the mark, for the warning.
        noun: name of the store, for the warning.
    """
    if mark is None or not mark.damaged:
        return ""
    return (
        f"{name} was damaged ({mark.damaged}), so it is unknown whether {noun} still holds every change acknowledged before. "
        f"The changes in {noun} are served; compare them with a backup or with the source of the changes, then remove {name}"
    )


class HighWaterMark:
    """The mark file of one store. Safe for concurrent processes."""

    def __init__(self, path: Path) -> None:
        """Describe the mark; the file is created with the first write."""
        self.path = path

    def read(self) -> MarkState | None:
        """Return the content, or None if there is no file; `damaged` if unreadable."""
        try:
            with descriptor(self.path) as file:
                return _decode(os.pread(file, _SIZE, 0))
        except FileNotFoundError:
            return None
        except OSError as error:
            return MarkState("", 0, damaged=error.strerror or type(error).__name__)

    def stamp(self) -> tuple[int, int] | None:
        """Return inode and size, or None: they change when the file is replaced.

        Creation, removal and truncation change them too; `advance` does not.
        """
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_ino, status.st_size

    def advance(self, identity: str, sequence: int, recovered: Sequence[Loss] = (), lost: Loss | None = None) -> None:
        """Record a committed write. Errors are ignored: an old mark is a lower bound.

        Args:
            identity: identity of the store.
            sequence: sequence of the write.
            recovered: earlier losses that the store is known to contain again.
            lost: writes newly found missing, because the store ended before them.
        """
        with suppress(OSError):
            if not self.path.exists() and self._create(_next_state(None, identity, sequence, recovered, lost)):
                return
            with locked_descriptor(self.path, os.O_RDWR) as file:
                before = _decode(os.pread(file, _SIZE, 0))
                os.pwrite(file, _encode(_next_state(before, identity, sequence, recovered, lost)), 0)

    def raise_to(self, found: MarkState | None, identity: str, sequence: int) -> MarkState | None:
        """Raise the mark to a write found in the store; return the new content.

        A process that dies between a commit and its mark leaves a write that readers serve, and that is acknowledged without
        being written when it is sent again.

        Args:
            found: content of the mark as read before the store. A mark read afterwards may be ahead of what was read from the
                store, because another process wrote meanwhile, and would look like a loss.
            identity: identity of the store; any other leaves the mark unchanged.
            sequence: sequence of the last write in the store.
        """
        if found is None or found.identity != identity or found.sequence >= sequence:
            return found
        with suppress(OSError), locked_descriptor(self.path, os.O_RDWR) as file:
            before = _decode(os.pread(file, _SIZE, 0))
            if before.identity == identity and before.sequence < sequence:
                os.pwrite(file, _encode(before._replace(sequence=sequence)), 0)
        return found._replace(sequence=sequence)

    def _create(self, mark: MarkState) -> bool:
        """Create the first mark atomically; return False if another process was first.

        Raises:
            OSError: The file system refused.
        """
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            temporary.write_bytes(_encode(mark))
            fsync(temporary)
            os.link(temporary, self.path)
            fsync(self.path.parent)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True


def _next_state(
    before: MarkState | None, identity: str, sequence: int, recovered: Sequence[Loss], lost: Loss | None
) -> MarkState:
    losses = [] if before is None else list(before.losses)
    if before is not None and before.identity == identity:
        sequence = max(sequence, before.sequence)
    elif before is not None and before.identity:
        losses.append(Loss(before.identity, before.sequence))
    if lost is not None:
        losses.append(lost._replace(overtaken=True))
    remaining = [loss for loss in dict.fromkeys(losses) if not _is_recovered(loss, recovered)][:_MAX_LOSSES]
    return MarkState(identity, sequence, tuple(remaining), "" if before is None else before.damaged)


def _is_recovered(loss: Loss, recovered: Sequence[Loss]) -> bool:
    sequences = [other.through for other in recovered if other.identity == loss.identity]
    return loss.through in sequences if loss.overtaken else any(through >= loss.through for through in sequences)


def _encode(mark: MarkState) -> bytes:
    content: dict[str, object] = {"log": mark.identity, "sequence": mark.sequence, "lost": [[*loss] for loss in mark.losses]}
    raw = orjson.dumps(content | ({"damaged": mark.damaged} if mark.damaged else {}))
    return raw.ljust(_SIZE - 1) + b"\n"


def _decode(raw: bytes) -> MarkState:
    if not raw.strip(b"\0"):
        return MarkState("", 0, damaged="it is empty")
    try:
        read = orjson.loads(raw)
        losses = tuple(Loss(str(identity), int(through), bool(overtaken)) for identity, through, overtaken in read["lost"])
        return MarkState(str(read["log"]), int(read["sequence"]), losses, str(read.get("damaged", "")))
    except (ValueError, LookupError, TypeError, AttributeError):
        return MarkState("", 0, damaged="its content is invalid")
