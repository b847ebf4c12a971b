"""One of several processes that answer on one port: what it is told, and the place that it is started in."""

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from service.listening import listeners
from service.metrics.pulse import BEAT, Pulses
from service.security.keys import Key
from service.security.known import KnownKeys
from service.security.roles import Role
from service.settings import Settings
from service.starting import Place

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a worker that ended is started anew: the first time, and after it has ended young many times."""
YOUNG = 10.0
"""Seconds that a worker lives at least if it is to count as one that works."""
BOOT = 60.0
"""Seconds that a worker may take at least to its first sign of life: a disk may be slow, and much has to be imported."""
_COMMAND = "from service.worker import work; work()"

log = logging.getLogger("service")


class KnownKey(BaseModel):
    """A key as workers are told of it: by its hash."""

    digest: str
    role: int
    name: str
    rate: float | None

    @classmethod
    def of(cls, key: Key) -> "KnownKey":
        """As it is told."""
        return cls(digest=key.digest.hex(), role=key.role, name=key.name, rate=key.rate)

    def key(self) -> Key:
        """As it was."""
        return Key(bytes.fromhex(self.digest), Role(self.role), self.name, self.rate)


class Task(BaseModel):
    """What a worker is told.

    Attributes:
        settings: as for one process, with the port that was chosen.
        fixed: keys that never change.
        listed: keys that the file of keys held when it could be read last.
        number: of the worker.
        rates: descriptor of the file of their buckets.
        meters: descriptor of the file that all count in.
        first: whether no other worker was there when it was started.
    """

    settings: Settings
    fixed: list[KnownKey]
    listed: list[KnownKey]
    number: int
    rates: int
    meters: int
    first: bool = False


class Worker:
    """A place for a process, and the process that is in it now."""

    def __init__(self, number: int, pulses: Pulses) -> None:
        """Nothing is started yet; `pulses` are of all workers."""
        self.number = number
        self._pulses = pulses
        self.process: subprocess.Popen[bytes] | None = None
        self.due = 0.0
        self._started = 0.0
        self._pause = FIRST_PAUSE
        self._beat = self._silent = self._looked = 0.0
        self._hung = False

    @property
    def alive(self) -> bool:
        """Whether a process is here that has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self, task: Task, *, first: bool) -> None:
        """Start a process, with a group of its own: what a terminal says is passed on once, by whoever watches."""
        self._pulses.begin(self.number)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _COMMAND],
            stdin=subprocess.PIPE,
            env=_environment(),
            pass_fds=[task.rates, task.meters],
            start_new_session=True,
        )
        assert process.stdin is not None
        told = task.model_copy(update={"number": self.number, "first": first})
        with suppress(BrokenPipeError):  # it has ended already, which will be seen
            process.stdin.write(told.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        self.process, self._started = process, time.monotonic()
        self._beat, self._silent, self._looked, self._hung = 0.0, 0.0, self._started, False

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
        self._pulses.restarted(self.number, "hung" if self._hung else "ended")
        self._let_go()
        return True

    def look(self, silence: float) -> None:
        """Kill a process that has left no sign of life for so many seconds, or that took too long to its first."""
        now, beat = time.monotonic(), self._pulses.last(self.number)
        # Of a long time without a look little counts: then this process stood still too, and perhaps all that there are.
        self._silent = 0.0 if beat != self._beat else self._silent + min(now - self._looked, 2 * BEAT)
        self._beat, self._looked = beat, now
        most = silence if beat else max(silence, BOOT)
        if self.process is not None and self._silent > most and not self._hung:
            log.error("worker %d (process %d) has done nothing for %.1f s: it is killed", self.number, self.process.pid, most)
            self._hung = True
            self.process.kill()

    def signal(self, number: int) -> None:
        """Hand a signal on; SIGHUP only to one that has begun, for before that it would be its end."""
        if self.process is not None and self.alive and (number != signal.SIGHUP or self._pulses.last(self.number)):
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


def work() -> None:
    """What a worker does: read its task from standard input, and serve."""
    task = Task.model_validate_json(sys.stdin.buffer.readline())
    from service.app import server_of

    keys = KnownKeys(task.settings.keys, map(KnownKey.key, task.fixed), map(KnownKey.key, task.listed))
    place = Place(task.number, task.rates, task.meters, lifeline=sys.stdin.fileno(), first=task.first)
    server = server_of(task.settings, keys, place)
    with suppress(KeyboardInterrupt):
        server.run(sockets=listeners(task.settings.host, task.settings.port))


def _environment() -> dict[str, str]:
    """That of this process, without keys, and with this installation before all others."""
    home = str(Path(__file__).parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH")) if part)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RECALL_READ_KEY", "RECALL_ADMIN_KEY"))}
    return {**kept, "PYTHONPATH": path}


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
