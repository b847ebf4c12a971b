"""Several processes that answer on one port, and the one that starts them, watches them and starts them anew.

Workers are programs of their own, started and never forked, so that no lock or thread is inherited. Each has a socket of the
port; the kernel shares connections among them. The index is mapped, so all have one copy of it, and each follows the journal
and CURRENT by itself. It listens when it has something to serve, so that nobody reaches one that has not while others have.

A worker is told what to do on its standard input, which stays open: when it closes, whoever watched is gone, and the worker
ends in good order.
"""

import logging
import logging.config
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from pydantic import BaseModel

from service.listening import listeners, reserve
from service.metrics.meters import Meters
from service.records import logging_of
from service.security.keys import Key, KeyRing
from service.security.limits import shared_file
from service.security.roles import Role
from service.settings import Settings
from service.starting import Place, prepare

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a worker that ended is started anew: the first time, and after it has ended young many times."""
YOUNG = 10.0
"""Seconds that a worker lives at least if it is to count as one that works."""
_MARGIN = 5.0  # seconds beyond what workers grant their requests, after which they are killed
_COMMAND = "from service.workers import work; work()"

log = logging.getLogger("service")


class KnownKey(BaseModel):
    """A key as workers are told of it: by its hash."""

    digest: str
    role: int
    name: str
    rate: float | None


class Task(BaseModel):
    """What a worker is told.

    Attributes:
        settings: as for one process, with the port that was chosen.
        keys: in the order of their numbers.
        number: of the worker.
        rates: descriptor of the file of their buckets.
        meters: descriptor of the file that all count in.
    """

    settings: Settings
    keys: list[KnownKey]
    number: int
    rates: int
    meters: int


class _Worker:
    """A place for a process, and the process that is in it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.due = 0.0
        self._started = 0.0
        self._pause = FIRST_PAUSE

    def start(self, task: Task, environment: dict[str, str]) -> None:
        """Start a process, with a group of its own: what a terminal says is passed on once, by whoever watches."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=[task.rates, task.meters],
            start_new_session=True,
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, which will be seen
            process.stdin.write(task.model_copy(update={"number": self.number}).model_dump_json().encode() + b"\n")
            process.stdin.flush()
        self.process, self._started = process, time.monotonic()

    def ended(self) -> bool:
        """Whether the process has just been found to have ended; then it is due again after a pause."""
        if self.process is None or self.process.poll() is None:
            return False
        now = time.monotonic()
        if now - self._started >= YOUNG:
            self._pause = FIRST_PAUSE
        self.due = now + self._pause
        log.error(
            "worker %d (process %d) %s; it is started anew in %.1f s",
            *(self.number, self.process.pid, _ending(self.process.returncode), self._pause),
        )
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._let_go()
        return True

    def signal(self, number: int) -> None:
        """Hand a signal on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self, until: float) -> None:
        """Wait for the end; kill it when it does not come in time."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("worker %d (process %d) does not end: it is killed", self.number, self.process.pid)
            self.process.kill()
            self.process.wait()
        self._let_go()

    def _let_go(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process = None


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
    workers = [_Worker(number) for number in range(settings.workers)]
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


def work() -> None:
    """What a worker does: read its task from standard input, and serve."""
    task = Task.model_validate_json(sys.stdin.buffer.readline())
    from service.app import server_of

    ring = KeyRing(Key(bytes.fromhex(key.digest), Role(key.role), key.name, key.rate) for key in task.keys)
    server = server_of(task.settings, ring, Place(task.number, task.rates, task.meters, lifeline=sys.stdin.fileno()))
    with suppress(KeyboardInterrupt):
        server.run(sockets=listeners(task.settings.host, task.settings.port))


def _watch(workers: Sequence[_Worker], task: Task, wake: socket.socket, received: Sequence[int]) -> None:
    """Start anew what has ended, until a signal says to stop."""
    while not _told_to_stop(received):
        for worker in workers:
            worker.ended()
            if worker.process is None and worker.due <= time.monotonic():
                worker.start(task, _environment())
        due = min((worker.due for worker in workers if worker.process is None), default=float("inf"))
        _sleep(wake, due)


def _stop(workers: Sequence[_Worker], received: list[int], wake: socket.socket, until: float) -> None:
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
        alive = [worker for worker in workers if worker.process is not None and worker.process.poll() is None]
        if not alive or time.monotonic() >= until:
            break
        _sleep(wake, until)
    for worker in workers:
        worker.wait(until)


def _told_to_stop(received: Sequence[int]) -> bool:
    return signal.SIGTERM in received or signal.SIGINT in received


def _sleep(wake: socket.socket, until: float) -> None:
    """Until a signal comes, at most until a moment."""
    wait = None if until == float("inf") else max(0.0, until - time.monotonic())
    if select.select([wake], [], [], wait)[0]:
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


def _environment() -> dict[str, str]:
    """That of this process, without keys, and with this installation before all others."""
    home = str(Path(__file__).parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH")) if part)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RECALL_READ_KEY", "RECALL_ADMIN_KEY"))}
    return {**kept, "PYTHONPATH": path}


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
