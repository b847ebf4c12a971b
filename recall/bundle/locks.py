"""Locks that the kernel frees when the process dies."""

import fcntl
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recall.errors import BundleError, PublishBusyError, raising

_WAIT = 10.0  # seconds: a publisher keeps the folder of its version locked until it is done
_POLL = 0.02  # seconds between two tries


class VersionLock:
    """A shared lock on a folder, released when closed or garbage-collected."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open and locked descriptor."""
        self._closing = weakref.finalize(self, os.close, descriptor)

    def close(self) -> None:
        """Release the lock; a second call does nothing."""
        self._closing()


def acquire(folder: Path) -> VersionLock | None:
    """Lock a published version against removal.

    Returns:
        None where the file system has no locks; nothing is removed there.

    Raises:
        BundleError: It is being removed, or does not exist.
    """
    with raising(BundleError, "the version cannot be opened", where=str(folder)):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    held = VersionLock(descriptor)
    try:
        if flock(descriptor, fcntl.LOCK_SH, _WAIT):
            return held
    except OSError:
        held.close()
        return None
    held.close()
    raise BundleError("the version is being removed", where=str(folder), hint="Name another version")


@contextmanager
def locked(path: Path, wait: float, busy: str) -> Iterator[None]:
    """Hold a lock that the kernel frees when the process dies.

    Args:
        path: the lock's file, created if missing.
        wait: seconds to wait for it.
        busy: message of the error.

    Raises:
        PublishBusyError: Another process held it for the whole wait.
    """
    with path.open("w") as lock:
        if not flock(lock.fileno(), fcntl.LOCK_EX, wait):
            raise PublishBusyError(busy, where=str(path.parent), hint="Try again in a moment")
        yield


def flock(descriptor: int, operation: int, wait: float = 0.0) -> bool:
    """Return whether a lock was taken within so many seconds.

    Args:
        descriptor: of a file or folder.
        operation: LOCK_EX or LOCK_SH.
        wait: seconds; 0 for one try.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)


def try_lock(path: Path) -> int | None:
    """Open and lock a file; return its descriptor, or None where it is locked.

    The lock lasts until the descriptor is closed, or the process ends.

    Args:
        path: the file, created if missing.

    Raises:
        OSError: It cannot be opened, or the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    taken = False
    try:
        taken = flock(descriptor, fcntl.LOCK_EX)
    finally:
        if not taken:
            os.close(descriptor)
    return descriptor if taken else None
