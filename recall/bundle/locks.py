"""Shared locks that keep open versions from being pruned.

The kernel frees a lock when the process dies, and locks hold between containers that share the file system.
"""

import fcntl
import os
import shutil
import time
import weakref
from pathlib import Path

from recall.errors import BundleError

_WAIT = 10.0  # seconds: a publisher keeps the folder of its version locked until it is done
_POLL = 0.02  # seconds between two tries


class VersionLock:
    """A shared lock on a folder, released when closed or garbage-collected."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open and locked descriptor."""
        self._closing = weakref.finalize(self, os.close, descriptor)

    def close(self) -> None:
        """Let go; a second call does nothing."""
        self._closing()


def acquire(folder: Path) -> VersionLock | None:
    """Lock a published version against removal.

    Returns:
        None where the file system has no locks; nothing is removed there.

    Raises:
        BundleError: It is being removed, or does not exist.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BundleError("the version cannot be opened", where=str(folder), why=str(error)) from None
    held = VersionLock(descriptor)
    deadline = time.monotonic() + _WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return held
        except BlockingIOError:
            if time.monotonic() >= deadline:
                held.close()
                raise BundleError("the version is being removed", where=str(folder), hint="Name another version") from None
            time.sleep(_POLL)
        except OSError:
            held.close()
            return None


def remove(folder: Path, aside: Path) -> bool:
    """Remove a version unless a process holds it.

    Args:
        folder: the version.
        aside: a folder of the same file system that it is moved to first, so that it disappears atomically.

    Returns:
        Whether it is gone.

    Raises:
        OSError: The file system refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        moved = aside / f"removed-{folder.name}"
        folder.rename(moved)
        shutil.rmtree(moved, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
