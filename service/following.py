"""Keeping what is served in step with the log: no answer is older than a change that was acknowledged before it was asked for.

Asking whether anyone has written costs some microseconds, so each answer does. What is new is read on a thread of its own, in
which nothing else waits for a disk.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from recall.errors import JournalError, TokenError
from recall.live.following import LiveCatalogue
from service.concurrency import Caller
from service.metrics import Metrics
from service.problems import Kind, ProblemError
from service.snapshot import Snapshot

IDLE = 1.0
"""Seconds without a change after which the -wal file is moved into the log's file: a copy of that file alone is whole then."""
_LONGEST_WAIT = 1.0  # seconds for a token, where the request says nothing of how long an answer is of use
_PAUSE = 0.005  # seconds between two looks for a token

log = logging.getLogger("service")


class Follower:
    """Reads what other processes change, and writes back what a log has lost."""

    def __init__(self, meters: Metrics, patience: float) -> None:
        """Begin with nothing.

        Args:
            meters: to count with.
            patience: seconds that a log must be without changes that are served before they are written back.
        """
        self._meters = meters
        self._patience = patience
        self._pool = ThreadPoolExecutor(1, "following")
        self._trouble = ""
        self._mend_at: float | None = None
        self._gone = False
        self._changed_at = time.monotonic()
        self._sequence = -1
        self._settled = False

    def behind(self, snapshot: Snapshot, caller: Caller) -> bool:
        """Return whether an answer has to wait for `catch_up`, in microseconds."""
        return bool(caller.token) or snapshot.recommender.items.behind()

    async def catch_up(self, snapshot: Snapshot, caller: Caller) -> None:
        """Take in what was acknowledged before now, and wait for the change that the caller's token names.

        Raises:
            ProblemError: the token is of another log, or its change has not come in time.
        """
        items = snapshot.recommender.items
        with snapshot.held():
            if items.behind():
                with suppress(JournalError):  # answers tell of it
                    await self._run(items)
            if caller.token:
                await self._wait_for(items, caller.token, caller.deadline)

    async def look(self, snapshot: Snapshot) -> None:
        """Read what is new; write back what is lost, and tell the log about it."""
        items = snapshot.recommender.items
        with snapshot.held():
            try:
                if items.moved():
                    await self._run(items)
                trouble = " ".join(one.reason for one in items.current().degraded)
                self._meters.in_step()
                await self._mend(items)
                await self._settle(items)
            except Exception as error:  # answers go on, and say so
                trouble = str(error)
            if trouble != self._trouble:
                if trouble:
                    log.error("live changes: %s", trouble)
                else:
                    log.info("live changes are as they should be again")
                self._trouble = trouble

    async def finish(self, snapshot: Snapshot) -> None:
        """Write back what is lost before the process that knows it ends."""
        items = snapshot.recommender.items
        with snapshot.held(), suppress(JournalError):
            if items.unsaved or items.moved():
                await self._run(items)
            if items.unsaved:
                await asyncio.get_running_loop().run_in_executor(self._pool, items.mend)

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(cancel_futures=True)

    async def _run(self, items: LiveCatalogue) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, items.refresh)

    async def _mend(self, items: LiveCatalogue) -> None:
        if not items.unsaved:
            self._mend_at = None
            return
        now = time.monotonic()
        if self._mend_at is None or self._gone != (not items.logs):
            # where there is a file, whoever replaced it has most likely done so; where there is none, one may be put there yet
            self._gone = not items.logs
            self._mend_at = now + (self._patience if self._gone else self._patience / 5)
        elif now >= self._mend_at:
            self._mend_at = now + self._patience
            written = await asyncio.get_running_loop().run_in_executor(self._pool, items.mend)
            self._meters.written_back.inc(float(written))
            log.warning("%d acknowledged changes that the journal had lost were written back to it", written)

    async def _settle(self, items: LiveCatalogue) -> None:
        now, sequence = time.monotonic(), items.current().sequence
        if sequence != self._sequence:
            self._sequence, self._changed_at, self._settled = sequence, now, False
        elif not self._settled and now - self._changed_at >= IDLE and items.writable:
            self._settled = True
            with suppress(JournalError):  # where it may not be written, or others write
                await asyncio.get_running_loop().run_in_executor(self._pool, items.settle)

    async def _wait_for(self, items: LiveCatalogue, token: str, deadline: float | None) -> None:
        until = deadline if deadline is not None else time.monotonic() + _LONGEST_WAIT
        try:
            while not items.has_seen(token):
                if time.monotonic() >= until:
                    detail = "The change that the token names is not served here yet."
                    raise ProblemError(Kind.BEHIND, detail, headers={"Retry-After": "1"})
                await asyncio.sleep(_PAUSE)
                with suppress(JournalError):
                    await self._run(items)
        except TokenError as error:
            kind = Kind.OTHER_LOG if error.why else Kind.INVALID
            text = f"{error.what[:1].upper()}{error.what[1:]}{f' ({error.why})' if error.why else ''}. {error.mend}."
            raise ProblemError(kind, text) from None
