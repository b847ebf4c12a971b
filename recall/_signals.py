"""Let signals end work in good order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from recall.errors import RecallError

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as a shell reports it; after SIGINT it is 130."""


class Stop:
    """Whether SIGTERM was received.

    Attributes:
        terminated: True after SIGTERM.
    """

    def __init__(self) -> None:
        self.terminated = False

    def coded(self, error: RecallError) -> RecallError:
        """Return the error with the exit code of the signal that caused it."""
        if self.terminated:
            error.exit_code = TERMINATED
        return error


@contextmanager
def terminable() -> Iterator[Stop]:
    """Let SIGTERM raise KeyboardInterrupt in the block, as SIGINT does.

    Schedulers and containers stop a job by SIGTERM. Training then keeps its checkpoint.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield stop
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        stop.terminated = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
