"""Several processes that answer on one port, and the one that starts them, watches them and starts them anew.

Workers are programs of their own, started and never forked, so that no lock or thread is inherited. Each has a socket of the
port; the kernel shares connections among them. The index is mapped, so all have one copy of it, and each follows the journal
and CURRENT by itself.

A worker that has ended is started anew, and so is one that hangs: each leaves a sign of life once a second, and one that has
left none for long is killed.

A worker is told what to do on its standard input, which stays open: when it closes, whoever watched is gone, and the worker
ends in good order.
"""

import logging
import logging.config
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from service.listening import reserve
from service.metrics.meters import Meters
from service.metrics.pulse import BEAT, Pulses
from service.records import logging_of
from service.security.limits import shared_file
from service.settings import Settings
from service.starting import prepare
from service.worker import KnownKey, Task, Worker

_MARGIN = 5.0  # seconds beyond what workers grant their requests, after which they are killed

log = logging.getLogger("service")


def supervise(settings: Settings) -> None:
    """Serve with several processes until SIGTERM or SIGINT, and end when the last of them has.

    Raises:
        BundleError, ConfigError: as `service.starting.prepare`, and when the port cannot be had.
    """
    keys = prepare(settings)
    logging.config.dictConfig(logging_of(settings.logs))
    held = reserve(settings.host, settings.port)
    rates, meters = shared_file(keys.keys), Meters.shared(settings.workers)
    settings = settings.model_copy(update={"port": held[0].getsockname()[1]})
    known = [KnownKey(digest=key.digest.hex(), role=key.role, name=key.name, rate=key.rate) for key in keys.keys]
    pulses = Pulses(settings.workers, meters)
    workers = [Worker(number, pulses) for number in range(settings.workers)]
    with _signals() as (wake, received):
        log.info("process %d serves on %s:%d with %d workers", os.getpid(), settings.host, settings.port, len(workers))
        try:
            _watch(workers, Task(settings=settings, keys=known, number=0, rates=rates, meters=meters), wake, received)
        finally:
            _stop(workers, received, wake, time.monotonic() + settings.drain + settings.grace + _MARGIN)
            for one in held:
                one.close()
            os.close(rates)
            os.close(meters)


def _watch(workers: Sequence[Worker], task: Task, wake: socket.socket, received: Sequence[int]) -> None:
    """Start anew what has ended, and end what does nothing any more, until a signal says to stop."""
    while not _told_to_stop(received):
        for worker in workers:
            worker.ended()
            if worker.process is None and worker.due <= time.monotonic():
                worker.start(task, first=not any(other.alive for other in workers))
            worker.look(task.settings.silence)
        due = min((worker.due for worker in workers if worker.process is None), default=float("inf"))
        _sleep(wake, min(due, time.monotonic() + BEAT))


def _stop(workers: Sequence[Worker], received: list[int], wake: socket.socket, until: float) -> None:
    """Hand on what was told, now and whenever more is; wait for all workers."""
    told = 0
    if not _told_to_stop(received):
        received.append(signal.SIGTERM)  # something went wrong here
    while True:
        for number in received[told:]:
            if number != signal.SIGCHLD:
                for worker in workers:
                    worker.signal(number)
        told = len(received)
        alive = [worker for worker in workers if worker.alive]
        if not alive or time.monotonic() >= until:
            break
        _sleep(wake, until)
    for worker in workers:
        worker.wait(until)


def _told_to_stop(received: Sequence[int]) -> bool:
    return signal.SIGTERM in received or signal.SIGINT in received


def _sleep(wake: socket.socket, until: float) -> None:
    """Until a signal comes, at most until a moment."""
    if select.select([wake], [], [], max(0.0, until - time.monotonic()))[0]:
        with suppress(BlockingIOError):
            wake.recv(4096)


@contextmanager
def _signals() -> Iterator[tuple[socket.socket, list[int]]]:
    """A socket that can be read from when a signal has come, and the signals so far."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    wake, waker = socket.socketpair()
    with wake, waker:
        wake.setblocking(False)
        waker.setblocking(False)
        handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        }
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            yield wake, received
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
