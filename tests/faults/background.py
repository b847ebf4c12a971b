"""Functions that run on threads during a block."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(*work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run functions on threads until the block ends; each is passed an event that is then set, and joined."""
    stop = threading.Event()
    threads = [threading.Thread(target=one, args=(stop,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
