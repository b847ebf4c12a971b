"""Whose turn it is: searches wait in line, the line is bounded, and whoever would wait too long is told so at once.

Searches take one of two ways. Short ones run on the event loop itself, a slice of time between two looks at the sockets, so
that new requests are seen, and turned away where there are too many, while others wait. Long ones run on as many threads as
there are cores to run them. Both ways have a line of their own.

A line may be long for a moment, for requests come in bursts. When it has not been empty for a while, more comes in than goes
out, and waiting longer would help nobody: from then on few may wait, and the others are told to come back. So an answer
that comes at all comes soon, however much is asked.

All of this runs on the event loop's thread. Only `work` runs elsewhere, and only by `elsewhere`.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar, cast

from service.problems import Kind, ProblemError

SLICE = 0.002
"""Seconds of searching on the event loop between two looks at the sockets; one search may take it beyond."""
LONGEST_SLICE = 0.01
"""As many when a look at the sockets takes longer than that: turning others away is not to keep searches from their turns."""
STANDING = 0.1
"""Seconds after which a line that was never empty is a standing one."""

_STALL = 0.05
"""Seconds without anybody asking for a place, while some wait, that only a process which stood still explains."""

BUSY = "Send fewer requests at once, and this one again later."
"""What is said to whoever is turned away."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Told = Callable[[Answer | None, Exception | None], None]
"""Hears an answer, or in its place the error that there was."""


class Caller(NamedTuple):
    """Who waits for an answer, and how long.

    Attributes:
        deadline: moment, on the monotonic clock, after which the answer is of no use.
        gone: whether nobody waits any more.
        token: of a change that the answer is to have seen; empty for none.
    """

    deadline: float | None = None
    gone: Callable[[], bool] | None = None
    token: str = ""


ANYBODY = Caller()
"""Somebody who waits for as long as it takes."""


class _Ticket:
    """A search that waits for its turn."""

    __slots__ = ("asked", "caller", "left", "since", "told", "work")

    def __init__(
        self,
        work: Callable[[Asked], Answer],
        asked: Asked,
        caller: Caller,
        since: float,
        told: Told[Answer],
        left: Callable[[], bool],
    ) -> None:
        """`told` hears the answer, or why there is none; `left` says whether whoever waited was stopped."""
        self.work = cast("Callable[[object], object]", work)
        self.asked: object = asked
        self.caller = caller
        self.since = since
        self.told = cast("Told[object]", told)
        self.left = left


class _Line:
    """Tickets in the order in which they came.

    Attributes:
        tickets: those that wait.
        empty_at: when the line was last seen empty; what the process itself stood still since is added.
        looked: when it was last asked for a place.
    """

    __slots__ = ("empty_at", "long", "looked", "short", "tickets")

    def __init__(self, long: int, short: int) -> None:
        """`long` is how many may wait for a moment, `short` how many may stand."""
        self.tickets: deque[_Ticket] = deque()
        self.long = long
        self.short = min(short, long)
        self.empty_at = self.looked = time.monotonic()

    def admits(self) -> bool:
        """Whether one more may wait."""
        waiting, now = len(self.tickets), time.monotonic()
        pause, self.looked = now - self.looked, now
        if not waiting:
            self.empty_at = now
        elif pause > _STALL:
            self.empty_at += pause
        return waiting < self.short or (waiting < self.long and now - self.empty_at < STANDING)


class Admission:
    """Gives searches their turns.

    Attributes:
        inline: whether most searches are short ones.
        waited: told the seconds that a search has waited, when its turn has come.
        shed: searches that were not begun, by why: "full" and "old" lines, "late" for their deadline, and "gone" clients.
    """

    def __init__(self, threads: int, waiting: int, standing: int, age: float) -> None:
        """Nothing is started.

        Args:
            threads: long searches that may run at once.
            waiting: how many may wait in either line for a moment.
            standing: how many may wait there for longer.
            age: seconds that one may wait at most.
        """
        self.inline = True
        self.shed: Counter[str] = Counter()
        self._threads = threads
        self._age = age
        self._here, self._elsewhere = _Line(waiting, standing), _Line(waiting, standing)
        self.waited: Callable[[float], None] = _nobody
        self._spent = 0.0
        self._turned = 0.0
        self._turning = False
        self._running = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")

    @property
    def waiting(self) -> int:
        """Searches that wait for their turn."""
        return len(self._here.tickets) + len(self._elsewhere.tickets)

    def crowded(self, *, short: bool) -> bool:
        """Whether a request that searches need not be read, because its search would be turned away.

        Args:
            short: whether the search is likely to be a short one.
        """
        return not (self._here if short and self.inline else self._elsewhere).admits()

    async def here(self, work: Callable[[Asked], Answer], asked: Asked, caller: Caller = ANYBODY) -> Answer:
        """Search on the event loop, when it is this one's turn.

        Args:
            work: a search of a few milliseconds at most.
            asked: given to it.
            caller: who waits.

        Returns:
            What `work` gave; what it raises is raised.

        Raises:
            ProblemError: too many wait, the deadline has passed, or nobody waits any more. Then nothing was searched.
        """
        answered = self._future()
        self._take(work, asked, caller, _settling(answered), answered.done)
        return cast(Answer, await answered)

    def take(self, work: Callable[[Asked], Answer], asked: Asked, caller: Caller, told: Told[Answer]) -> None:
        """As `here`, for a caller that is no coroutine.

        Args:
            work: a search of a few milliseconds at most.
            asked: given to it.
            caller: who waits.
            told: called on the event loop, at once or later, with what `work` gave or raised, or with the ProblemError of
                `here`; it raises nothing.
        """
        self._take(work, asked, caller, told, _stays)

    async def elsewhere(self, work: Callable[[Asked], Answer], asked: Asked, caller: Caller = ANYBODY) -> Answer:
        """Search on another thread, as soon as one is free; arguments and errors as in `here`."""
        now = time.monotonic()
        line = self._elsewhere
        answered = self._future()
        ticket = _Ticket(work, asked, caller, now, _settling(answered), answered.done)
        if self._running < self._threads:
            line.empty_at = now
            self._check(caller, now)
            self._start(ticket)
        else:
            self._queue(line, ticket)
        return cast(Answer, await answered)

    def turn_away(self) -> None:
        """Count somebody who is told that the line is full."""
        self.shed["full"] += 1

    def full(self) -> ProblemError:
        """What is said to whoever is turned away; counts it."""
        self.turn_away()
        return _busy()

    def dismiss(self) -> None:
        """Tell all who wait that the process stops."""
        for line in (self._here, self._elsewhere):
            while line.tickets:
                line.tickets.popleft().told(None, draining())

    def close(self) -> None:
        """Wait for the threads to finish what they do, and let them go."""
        self._pool.shutdown()

    def _take(
        self, work: Callable[[Asked], Answer], asked: Asked, caller: Caller, told: Told[Answer], left: Callable[[], bool]
    ) -> None:
        now = time.monotonic()
        line = self._here
        try:
            if line.tickets or self._spent >= SLICE:
                self._queue(line, _Ticket(work, asked, caller, now, told, left))
                self._turn_soon()
                return
            line.empty_at = now
            self._check(caller, now)
            try:
                answer = work(asked)
            finally:
                self._spent += time.monotonic() - now
                self._turn_soon()
        except Exception as error:  # it belongs to whoever asked
            told(None, error)
        else:
            told(answer, None)

    def _queue(self, line: _Line, ticket: _Ticket) -> None:
        if not line.admits():
            raise self.full()
        line.tickets.append(ticket)

    @staticmethod
    def _future() -> "asyncio.Future[object]":
        return asyncio.get_running_loop().create_future()

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """Begin a slice. The loop has looked at its sockets since the last one, so who is gone is known to be gone."""
        self._turning = False
        self._spent = 0.0
        line = self._here
        now = start = time.monotonic()
        before, self._turned = self._turned, now
        if not line.tickets:
            return
        until = now + min(max(SLICE, now - before), LONGEST_SLICE)
        self._turn_soon()
        while now < until and (ticket := self._next(line, now)):
            try:
                answer = ticket.work(ticket.asked)
            except Exception as error:  # it belongs to whoever asked
                ticket.told(None, error)
            else:
                ticket.told(answer, None)
            now = time.monotonic()
        self._turned = now
        self._spent = now - start
        if not line.tickets:
            line.empty_at = now

    def _start(self, ticket: _Ticket) -> None:
        self._running += 1
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool, ticket.work, ticket.asked)
        running.add_done_callback(lambda done: self._finished(ticket, done))

    def _finished(self, ticket: _Ticket, done: "asyncio.Future[object]") -> None:
        self._running -= 1
        error = done.exception()
        if error is None:
            ticket.told(done.result(), None)
        else:
            ticket.told(None, cast(Exception, error))
        following = self._next(self._elsewhere, time.monotonic())
        if following is not None:
            self._start(following)
        else:
            self._elsewhere.empty_at = time.monotonic()

    def _next(self, line: _Line, now: float) -> _Ticket | None:
        """The first in a line for whom it is worth searching; those before are told why they are not."""
        while line.tickets:
            ticket = line.tickets.popleft()
            if ticket.left():
                continue
            try:
                self._check(ticket.caller, now)
                if now - ticket.since > self._age:
                    self.shed["old"] += 1
                    raise _busy()
            except ProblemError as problem:
                ticket.told(None, problem)
            else:
                self.waited(now - ticket.since)
                return ticket
        return None

    def _check(self, caller: Caller, now: float) -> None:
        """Raise ProblemError when nobody has use for an answer."""
        if caller.deadline is not None and now >= caller.deadline:
            self.shed["late"] += 1
            raise ProblemError(Kind.LATE, "Give it more time in X-Request-Timeout-Ms, or ask when less is asked.")
        if caller.gone is not None and caller.gone():
            self.shed["gone"] += 1
            raise ProblemError(Kind.GONE, "Nobody waits for the answer.")


def draining() -> ProblemError:
    """What is said to whoever is not answered because the process stops."""
    return ProblemError(Kind.DRAINING, "Send this request again: another process answers it.", headers={"Retry-After": "1"})


def _busy() -> ProblemError:
    return ProblemError(Kind.BUSY, BUSY, headers={"Retry-After": "1"})


def _settling(answered: "asyncio.Future[object]") -> Told[object]:
    """Settles what a coroutine waits for, unless it was stopped."""

    def told(answer: object, error: Exception | None) -> None:
        if answered.done():
            return
        if error is None:
            answered.set_result(answer)
        else:
            answered.set_exception(error)

    return told


def _stays() -> bool:
    """Nobody can stop whoever waits; who is gone is told of by `Caller.gone`."""
    return False


def _nobody(_seconds: float) -> None:
    """Hears nothing."""
