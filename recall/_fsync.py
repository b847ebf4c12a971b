"""Files and folders by their descriptors, and fsync by path."""

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
