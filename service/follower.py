"""Keep the served items in step with their log, which other processes write."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from recall.errors import JournalDamagedError, JournalError, TokenError
from recall.store.items.catalog import Catalog
from service.bundles import Snapshot
from service.concurrency import Caller
from service.errors import Kind, ProblemError
from service.metrics import Metrics

_IDLE = 1.0
"""Seconds without a change after which the -wal file is moved into the log's file, so that a copy of that file is complete."""
_LONGEST_WAIT = 1.0  # seconds to wait for a token, where the request has no timeout
_PAUSE = 0.005  # seconds between two checks for a token

log = logging.getLogger("service")
Result = TypeVar("Result")


class Follower:
    """Reads changes of other processes, and writes back those that the log has lost."""

    def __init__(self, meters: Metrics, patience: float) -> None:
        """Start before the first change.

        Args:
            meters: to count with.
            patience: seconds for which the log must lack served changes before they are written back.
        """
        self._meters = meters
        self._patience = patience
        self._pool = ThreadPoolExecutor(1, "following")
        self._errors: dict[str, str] = {}
        self._repair_at: float | None = None
        self._missing = False
        self._changed_at = time.monotonic()
        self._sequence = -1
        self._settled = False

    def behind(self, snapshot: Snapshot, caller: Caller) -> bool:
        """Return whether an answer has to wait for `catch_up`; takes microseconds.

        Args:
            snapshot: that is served.
            caller: with a token.
        """
        return bool(caller.token) or snapshot.recommender.items.behind()

    async def catch_up(self, snapshot: Snapshot, caller: Caller) -> None:
        """Read all acknowledged changes, and wait for the one of the caller's token.

        Args:
            snapshot: that is served.
            caller: with a token.

        Raises:
            ProblemError: The token is of another log, or its change has not arrived in time.
        """
        items = snapshot.recommender.items
        with snapshot:
            if items.behind():
                with suppress(JournalError):  # answers say so
                    await self._run(items.refresh)
            if caller.token:
                await self._wait_for(items, caller.token, caller.deadline)

    async def look(self, snapshot: Snapshot) -> None:
        """Read new changes, write back lost ones, and log any error."""
        items = snapshot.recommender.items
        with snapshot:
            try:
                if items.has_changes():
                    with suppress(JournalDamagedError):  # the catalogue says so, and served changes are written back
                        await self._run(items.refresh)
                reasons = {one.part: one.reason for one in items.current().degraded}
                self._meters.in_step()
                await self._repair(items)
                await self._settle(items)
            except Exception as error:  # answers continue, and say so
                reasons = {"items": str(error)}
            for part, name in (("items", "live changes"), ("index", "answers of the index")):
                reason = reasons.get(part, "")
                if reason and reason != self._errors.get(part):
                    log.error("%s: %s", name, reason)
                elif not reason and self._errors.get(part):
                    log.info("%s are in order again", name)
            self._errors = reasons

    async def finish(self, snapshot: Snapshot) -> None:
        """Write back lost changes before this process, which holds them, ends."""
        items = snapshot.recommender.items
        with snapshot, suppress(JournalError):
            if items.unsaved or items.has_changes():
                with suppress(JournalDamagedError):
                    await self._run(items.refresh)
            if items.unsaved:
                await self._run(items.repair)

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(cancel_futures=True)

    async def _run(self, act: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, act)

    async def _repair(self, items: Catalog) -> None:
        if not items.unsaved:
            self._repair_at = None
            return
        now = time.monotonic()
        if self._repair_at is None or self._missing != (not items.logs):
            # an existing file has most likely been replaced completely; a missing one may still be restored
            self._missing = not items.logs
            self._repair_at = now + (self._patience if self._missing else self._patience / 5)
        elif now >= self._repair_at:
            self._repair_at = now + self._patience
            written = await self._run(items.repair)
            self._meters.written_back.inc(float(written))
            log.warning("%d acknowledged changes that the journal had lost were written back to it", written)

    async def _settle(self, items: Catalog) -> None:
        now, sequence = time.monotonic(), items.current().sequence
        if sequence != self._sequence:
            self._sequence, self._changed_at, self._settled = sequence, now, False
        elif not self._settled and now - self._changed_at >= _IDLE and items.writable:
            self._settled = True
            with suppress(JournalError):  # it may not be written, or others are writing
                await self._run(items.checkpoint)

    async def _wait_for(self, items: Catalog, token: str, deadline: float | None) -> None:
        until = deadline if deadline is not None else time.monotonic() + _LONGEST_WAIT
        refreshed, pause = False, 0.0
        while True:
            try:
                if items.has_seen(token):
                    return
            except TokenError as error:
                if not error.why or refreshed:
                    kind = Kind.OTHER_LOG if error.why else Kind.INVALID
                    text = f"{error.what[:1].upper()}{error.what[1:]}{f' ({error.why})' if error.why else ''}. {error.hint}."
                    raise ProblemError(kind, text) from None
                # the first change gives a log its identity, and may not have been heard of
            if time.monotonic() >= until:
                raise ProblemError(Kind.BEHIND, "The change that the token names is not served here yet.")
            await asyncio.sleep(pause)
            pause = _PAUSE
            with suppress(JournalError):
                await self._run(items.refresh)
                refreshed = True
