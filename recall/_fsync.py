"""Files and folders by their descriptors; fsync by path, and of new folders."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, fsyncing each new name.

    Without fsync a power failure may remove all below it.
    """
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        fsync(path.parent)
