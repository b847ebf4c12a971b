"""Long work: progress on stderr, and signals that end it in good order."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

from recall.errors import RecallError

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Write no progress in the block."""
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


def note(*lines: str) -> None:
    """Write lines of progress."""
    if not _QUIET.get():
        sys.stderr.writelines(f"{line}\n" for line in lines)
        sys.stderr.flush()


@contextmanager
def stage(name: str) -> Iterator[Callable[[str], None]]:
    """Show that a step is running, then how long it took.

    Yields a function of a text that a terminal shows beside the step, such as what is read.
    """
    began = time.perf_counter()
    if sys.stderr.isatty() and not _QUIET.get():
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(name) as status:
            yield lambda text: status.update(Text(f"{name}: {text}"))
    else:
        yield lambda _: None
    note(f"{name:36} {time.perf_counter() - began:6.1f} s")


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function of (done, total, line) that writes the line and moves a bar.

    Without a terminal only the lines are written.
    """
    if not sys.stderr.isatty() or _QUIET.get():
        yield lambda _done, _total, line: note(line)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, highlight=False), transient=True) as progress:
        task = progress.add_task(name, total=None)

        def move(done: int, total: int, line: str) -> None:
            progress.console.print(line, markup=False, soft_wrap=True)
            progress.update(task, completed=done, total=total)

        yield move


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
