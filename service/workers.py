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
from service.security.keys import Key
from service.security.known import KnownKeys
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
    rates, meters = shared_file(), Meters.shared(settings.workers)
    settings = settings.model_copy(update={"port": held[0].getsockname()[1]})
    pulses = Pulses(settings.workers, meters)
    workers = [Worker(number, pulses) for number in range(settings.workers)]
    with _signals(settings.keys is not None) as (wake, received):
        log.info("process %d serves on %s:%d with %d workers", os.getpid(), settings.host, settings.port, len(workers))
        try:
            task = Task(settings=settings, fixed=_told(keys.fixed), listed=[], number=0, rates=rates, meters=meters)
            _watch(workers, task, keys, wake, received)
        finally:
            _stop(workers, received, wake, time.monotonic() + settings.drain + settings.grace + _MARGIN)
            for one in held:
                one.close()
            os.close(rates)
            os.close(meters)


def _watch(workers: Sequence[Worker], task: Task, keys: KnownKeys, wake: socket.socket, received: list[int]) -> None:
    """Start anew what has ended, and end what does nothing any more, until a signal says to stop."""
    while not _told_to_stop(received):
        keys.look()  # always: the keys that a worker starts with are the last good ones, also when the file is broken then
        while signal.SIGHUP in received:
            received.remove(signal.SIGHUP)
            for worker in workers:
                worker.signal(signal.SIGHUP)
        for worker in workers:
            worker.ended()
            if worker.process is None and worker.due <= time.monotonic():
                told = task.model_copy(update={"listed": _told(keys.listed)})
                worker.start(told, first=not any(other.alive for other in workers))
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


def _told(keys: Sequence[Key]) -> list[KnownKey]:
    return [KnownKey.of(key) for key in keys]


def _told_to_stop(received: Sequence[int]) -> bool:
    return signal.SIGTERM in received or signal.SIGINT in received


def _sleep(wake: socket.socket, until: float) -> None:
    """Until a signal comes, at most until a moment."""
    if select.select([wake], [], [], max(0.0, until - time.monotonic()))[0]:
        with suppress(BlockingIOError):
            wake.recv(4096)


@contextmanager
def _signals(hup: bool) -> Iterator[tuple[socket.socket, list[int]]]:
    """A socket that can be read from when a signal has come, and the signals so far; SIGHUP is one of them if told."""
    received: list[int] = []
    heard = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, *([signal.SIGHUP] if hup else []))

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    wake, waker = socket.socketpair()
    with wake, waker:
        wake.setblocking(False)
        waker.setblocking(False)
        handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {
            number: signal.signal(number, note) for number in heard
        }
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            yield wake, received
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
