"""Descriptors, fsync, digests and locks of files and folders.

The kernel frees the locks of a process that dies.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recall.errors import BundleError, PublishBusyError, raising

_WAIT = 10.0  # seconds: a publisher keeps the folder of its version locked until it is done
_POLL = 0.02  # seconds between two tries


@contextmanager
def descriptor(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or a folder; yield its descriptor.

    Args:
        path: of a file or a folder.
        flags: of `os.open`.

    Raises:
        OSError: It cannot be opened.
    """
    opened = os.open(path, flags)
    try:
        yield opened
    finally:
        os.close(opened)


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk.

    Raises:
        OSError: It cannot be opened or flushed.
    """
    with descriptor(path) as opened:
        os.fsync(opened)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, fsyncing each new name.

    Without fsync a power failure may remove all below it.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        fsync(path.parent)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path to write a file at, which replaces another after the block.

    Args:
        path: the file that is replaced; its folder exists.

    Raises:
        OSError: The file system refused; then the file at the path is unchanged.
    """
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield staged
        fsync(staged)
        staged.replace(path)
        fsync(path.parent)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder, which gets its name when the block has filled it.

    Args:
        path: the folder's path; if it exists, it must be an empty folder.

    Raises:
        OSError: The file system refused; then there is no folder at the path.
    """
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    make_folder(path.parent)
    staged.mkdir()
    try:
        yield staged
        for entry in (*sorted(staged.rglob("*")), staged):
            fsync(entry)
        staged.rename(path)
        fsync(path.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def locked_descriptor(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or a folder, wait for an exclusive lock, and yield the descriptor.

    Args:
        path: of a file or a folder.
        flags: of `os.open`.

    Raises:
        OSError: It cannot be opened, or the file system has no locks.
    """
    with descriptor(path, flags) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield opened


class VersionLock:
    """A shared lock on a folder, released when closed or garbage-collected."""

    def __init__(self, opened: int) -> None:
        """Take over an open and locked descriptor."""
        self._closing = weakref.finalize(self, os.close, opened)

    def close(self) -> None:
        """Release the lock; a second call does nothing."""
        self._closing()


def acquire(folder: Path) -> VersionLock | None:
    """Lock a published version against removal.

    Returns:
        The lock; None where the file system has no locks, as no version is removed there.

    Raises:
        BundleError: The version is being removed, or does not exist.
    """
    with raising(BundleError, "the version cannot be opened", where=str(folder)):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    lock = VersionLock(opened)
    try:
        if flock(opened, fcntl.LOCK_SH, _WAIT):
            return lock
    except OSError:
        lock.close()
        return None
    lock.close()
    raise BundleError("the version is being removed", where=str(folder), hint="Name another version")


@contextmanager
def locked(path: Path, wait: float, busy: str) -> Iterator[None]:
    """Hold an exclusive lock on a file.

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


def flock(opened: int, operation: int, wait: float = 0.0) -> bool:
    """Lock a file or a folder; return whether it was locked in time.

    Args:
        opened: its descriptor.
        operation: LOCK_EX or LOCK_SH.
        wait: seconds; 0 for one try.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(opened, operation | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)


def try_lock(path: Path) -> int | None:
    """Open and lock a file; return its descriptor, or None if it is locked already.

    The lock lasts until the descriptor is closed, or the process ends.

    Args:
        path: the file, created if missing.

    Raises:
        OSError: It cannot be opened, or the file system has no locks.
    """
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    taken = False
    try:
        taken = flock(opened, fcntl.LOCK_EX)
    finally:
        if not taken:
            os.close(opened)
    return opened if taken else None
