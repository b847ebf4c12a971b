import signal
import threading

import pytest

from recall._progress import TERMINATED, terminable
from recall.errors import RecallError


def test_sigterm_interrupts_and_sets_the_exit_code() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with terminable() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert stop.coded(RecallError("stopped")).exit_code == TERMINATED == 143


def test_sigint_keeps_the_exit_code_of_the_error() -> None:
    error = RecallError("stopped")
    error.exit_code = 130
    with terminable() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert stop.coded(error).exit_code == 130


def test_other_threads_do_not_set_handlers() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with terminable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
