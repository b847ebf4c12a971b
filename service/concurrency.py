"""Bounded queues for searches, with a maximum age and a deadline for each caller.

Short searches run on the event loop, in slices of time between two polls of the sockets, so that new requests are read, and
rejected if too many wait, in the meantime. Long searches run on threads. Each kind has its own queue.

A queue may be long for a moment, since requests come in bursts. A standing queue (as in CoDel: one that has not been empty for
a tenth of a second) may hold a smaller number of callers, as many as there are clients that wait for their answers; a longer
one means that more requests arrive than can be answered. From then on, until none had to be rejected for a tenth of a second, a
caller may wait only if its turn is expected within `TARGET`. A timer ends each wait: at the deadline of the caller, or at the
maximum age.

All of this runs on the event loop's thread; only work given to `in_thread` runs elsewhere.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from service.errors import Kind, ProblemError

SLICE = 0.002
"""Seconds of searching on the event loop between two polls of the sockets; a single search may exceed it.

With 5 ms, a rejection took 54 ms at the median at five times the capacity of one core, with 2 ms 8 ms.
"""
LONGEST_SLICE = 0.003
"""Longest slice, where reading and rejecting requests takes longer than `SLICE`, so that this does not starve searches.

With longer ones, rejections wait: 503 after 68 ms (p99) with 8 ms, 14 ms with 3 ms.
"""
STANDING = 0.1
"""Seconds without an empty queue after which it is a standing queue, and seconds without a rejection after which it is not."""
TARGET = 0.005
"""Longest expected wait of an admitted caller, in seconds, while others are rejected."""

_STALL = 0.05
"""Seconds without a new caller, while some wait, after which the process must have been stopped."""
_SMOOTHING = 0.05
"""Weight of a new measurement in a mean time."""
_FEWEST = 4
"""Callers that may always wait, so that searches do not run out of work."""

_SHED = {
    **dict.fromkeys(("full", "old"), (Kind.BUSY, "Send fewer requests at once, and this one again later.")),
    "late": (Kind.LATE, "Give it more time in X-Request-Timeout-Ms, or send it again under less load."),
    "gone": (Kind.GONE, "The client has disconnected."),
}
"""Problem of a search that is not started, by reason: "full" or "old" queue, "late" for its deadline, "gone" client."""

Result = TypeVar("Result")


class Caller(NamedTuple):
    """The sender of a request, which waits for the answer.

    Attributes:
        deadline: time on the monotonic clock after which the answer is useless; None for no limit.
        token: of a change that the answer must include; empty for none.
        gone: returns whether the client has disconnected; called only after a wait.
    """

    deadline: float | None = None
    token: str = ""
    gone: Callable[[], bool] | None = None


ANYBODY = Caller()
"""A caller without a deadline."""


class _Queue:
    """Callers that wait for a turn, first in, first out."""

    def __init__(self, long: int, standing: int) -> None:
        """Admit `long` callers for a moment, and `standing` ones for longer."""
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._long, self._standing = long, min(standing, long)
        self._empty_at = self._asked_at = time.monotonic()
        self._rejected_at = 0.0
        self._pace = 0.0

    def admits(self) -> bool:
        """Return whether one more caller may wait."""
        waiting, now = len(self.waiting), time.monotonic()
        pause, self._asked_at = now - self._asked_at, now
        if not waiting:
            self._note_empty(now)
        elif pause > _STALL:
            self._empty_at += pause
            self._rejected_at += pause
        if now - self._empty_at < STANDING:
            admitted = waiting < self._long
        else:
            rejecting = now - self._rejected_at < STANDING
            soon = not rejecting or waiting < _FEWEST or waiting * self._pace < TARGET
            admitted = waiting < self._standing and soon
        if not admitted:
            self._rejected_at = now
        return admitted

    def release(self) -> bool:
        """Give the next caller its turn; return False if none waits."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return True
        self._note_empty(time.monotonic())
        return False

    def note_wait(self, seconds: float, place: int) -> None:
        """Update the estimate of the time between two turns.

        Args:
            seconds: that a caller has waited.
            place: its position in the queue.
        """
        self._pace += _SMOOTHING * (seconds / place - self._pace)

    def _note_empty(self, now: float) -> None:
        # a short standing queue is empty at times: it is over only when no caller was rejected for a while
        if now - self._rejected_at > STANDING:
            self._empty_at = now


class SearchQueue:
    """Runs searches in turn.

    Attributes:
        inline: whether most searches are short enough for the event loop.
        threads: long searches that may run at the same time.
        on_wait: called with the seconds that a search has waited, when its turn comes.
        on_shed: called with the reason why a search is not started.
    """

    def __init__(
        self,
        threads: int,
        waiting: int,
        standing: int,
        age: float,
        *,
        on_wait: Callable[[float], object] = lambda _: None,
        on_shed: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Create empty queues.

        Args:
            threads: long searches that may ever run at the same time.
            waiting: callers that may wait in each queue for a moment.
            standing: callers that may wait there for longer.
            age: seconds that a caller may wait.
            on_wait: see above; by default, without effect.
            on_shed: see above; by default, without effect.
        """
        self.inline = True
        self.on_wait, self.on_shed = on_wait, on_shed
        self._age = age
        self.threads, self._running = threads, 0
        self._short, self._long = _Queue(waiting, standing), _Queue(waiting, standing)
        self._spent = 0.0
        self._mean = SLICE / 10
        self._pumping = False
        self._pumped_at = time.monotonic()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")

    @property
    def waiting(self) -> int:
        """Number of searches that wait for their turn."""
        return len(self._short.waiting) + len(self._long.waiting)

    def has_room(self, *, short: bool) -> bool:
        """Return whether a search would be admitted, before its body is read.

        Args:
            short: whether the search is likely to be short.
        """
        return (self._short if short and self.inline else self._long).admits()

    async def on_loop(self, work: Callable[[], Result], caller: Caller = ANYBODY) -> Result:
        """Run a search of a few milliseconds at most on the event loop.

        Args:
            work: the search; its exceptions are raised here.
            caller: sender of the request.

        Raises:
            ProblemError: Too many wait, the deadline has passed or the client has gone. Then nothing was searched.
        """
        if self._short.waiting or self._spent >= SLICE:
            self._pump_soon()
            await self._turn(self._short, caller)
        else:
            self._check(caller)
        started = time.monotonic()
        try:
            return work()
        finally:
            seconds = time.monotonic() - started
            self._spent += seconds
            self._mean += _SMOOTHING * (seconds - self._mean)
            if self._spent >= SLICE / 2 or self._short.waiting:
                self._pump_soon()

    async def in_thread(self, work: Callable[[], Result], caller: Caller = ANYBODY) -> Result:
        """Run a search on a thread, as soon as one is free.

        A caller whose deadline passes while the search runs is answered at once; the search ends by itself.

        Args:
            work: the search.
            caller: as for `on_loop`.

        Raises:
            ProblemError: As `on_loop`.
        """
        if self._running < self.threads:
            self._check(caller)
            self._running += 1
        else:
            await self._turn(self._long, caller)  # the turn comes with the slot of a search that has ended
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        running.add_done_callback(self._finished)
        try:
            async with asyncio.timeout_at(caller.deadline):
                return await asyncio.shield(running)
        except TimeoutError:
            if running.done():
                return running.result()
            raise self.shed("late") from None

    def shed(self, reason: str) -> ProblemError:
        """Count a search that is not started, and return its problem.

        Args:
            reason: "full" or "old" queue, "late" for its deadline, "gone" client.
        """
        self.on_shed(reason)
        return ProblemError(*_SHED[reason])

    def dismiss(self) -> None:
        """Reject all waiting searches, because the process stops."""
        for queue in (self._short, self._long):
            for turn in queue.waiting:
                if not turn.done():
                    detail = "Send this request again; another process will answer it."
                    turn.set_exception(ProblemError(Kind.DRAINING, detail))
            queue.waiting.clear()

    def close(self) -> None:
        """Wait for the running searches."""
        self._pool.shutdown()

    async def _turn(self, queue: _Queue, caller: Caller) -> None:
        """Wait in a queue; raise ProblemError if the turn does not come in time."""
        if not queue.admits():
            raise self.shed("full")
        loop, now = asyncio.get_running_loop(), time.monotonic()
        turn = loop.create_future()
        queue.waiting.append(turn)
        place = len(queue.waiting)
        limit = now + self._age if caller.deadline is None else min(now + self._age, caller.deadline)
        timer = loop.call_later(limit - now, self._expire, turn, caller)
        try:
            await turn
            self._check(caller)  # the loop may have been busy beyond the deadline
            if caller.gone is not None and caller.gone():
                raise self.shed("gone")
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._pass_on(queue)
            raise
        finally:
            timer.cancel()
        waited = time.monotonic() - now
        queue.note_wait(waited, place)
        self.on_wait(waited)

    def _expire(self, turn: "asyncio.Future[None]", caller: Caller) -> None:
        if not turn.done():
            late = caller.deadline is not None and time.monotonic() >= caller.deadline
            turn.set_exception(self.shed("late" if late else "old"))

    def _pass_on(self, queue: _Queue) -> None:
        """Give an unused turn to the next caller."""
        if not queue.release() and queue is self._long:
            self._running -= 1

    def _finished(self, _done: "asyncio.Future[Result]") -> None:
        if not _done.cancelled():
            _done.exception()  # marks the error as retrieved, in case the caller has left
        self._pass_on(self._long)

    def _pump_soon(self) -> None:
        """Start a slice after the next iteration, so that new requests are rejected first."""
        if not self._pumping:
            self._pumping = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._pump)

    def _pump(self) -> None:
        """Start a slice: the loop has polled its sockets since the last one."""
        now = time.monotonic()
        others = now - self._pumped_at - self._spent
        self._pumping, self._pumped_at, self._spent = False, now, 0.0
        for _ in range(max(1, int(min(max(SLICE, others), LONGEST_SLICE) / self._mean))):
            if not self._short.release():
                return
        self._pump_soon()

    def _check(self, caller: Caller) -> None:
        if caller.deadline is not None and time.monotonic() >= caller.deadline:
            raise self.shed("late")
