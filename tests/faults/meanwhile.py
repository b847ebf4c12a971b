"""What goes on beside a block: somebody who asks, changes, breaks or counts, on a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(*work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do all of it at once, until the block ends and sets the event that each is given; wait for them then."""
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
