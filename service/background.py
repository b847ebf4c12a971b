"""Work beside requests: follow the log, compact the root, measure the recall."""

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from recall import Recommendations, Recommender, Request
from recall._file_system import try_lock
from recall._priority import yield_to_others
from recall.errors import JournalDamagedError, JournalError, TokenError
from recall.serving.query import needs_reranking
from recall.store.items.catalog import Catalog
from service.bundles import Snapshot
from service.concurrency import Caller
from service.errors import Kind, ProblemError
from service.metrics import Metrics

log = logging.getLogger("service")
Result = TypeVar("Result")

_LONGEST_WAIT = 1.0  # seconds to wait for a token, where the request has no timeout
_PAUSE = 0.005  # seconds between two checks for a token


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
                with suppress(JournalError):  # reported in answers
                    await self._run(items.refresh)
            if caller.token:
                await self._wait_for(items, caller.token, caller.deadline)

    async def look(self, snapshot: Snapshot) -> None:
        """Read new changes, write back lost ones, and log any error."""
        items = snapshot.recommender.items
        with snapshot:
            try:
                if items.has_changes():
                    with suppress(JournalDamagedError):  # reported by the catalogue; served changes are written back
                        await self._run(items.refresh)
                reasons = {one.part: one.reason for one in items.current().degraded}
                self._meters.in_step()
                await self._repair(items)
            except Exception as error:  # answers continue, and report it
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
        if self._repair_at is None or self._missing != (not items.identity):
            # an existing file has most likely been replaced completely; a missing one may still be restored
            self._missing = not items.identity
            self._repair_at = now + (self._patience if self._missing else self._patience / 5)
        elif now >= self._repair_at:
            self._repair_at = now + self._patience
            written = await self._run(items.repair)
            self._meters.written_back.inc(float(written))
            log.warning("%d acknowledged changes that the journal had lost were written back to it", written)

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


_REST = 60.0  # seconds between two runs: the new version must be served first
ASK_AGAIN = 5.0  # seconds between two checks whether another process still does it
_LOCK = ".compactor"
_COMMAND = "import os; os.nice(10); from recall.cli import main; main()"  # requests have priority


async def compact(root: Path, environment: Mapping[str, str], on_start: Callable[[], None]) -> None:
    """Run `recall compact`, in one process of a root at a time, and rest a while.

    Cancelled, it stops the command; the live version stays live.

    Args:
        root: of published versions.
        environment: variables of the command, such as where the changes of items are kept.
        on_start: called when the command has been started.
    """
    try:
        lock = try_lock(root / _LOCK)  # which the kernel frees when the process ends
    except OSError as error:
        lock = None
        log.error("the catalogue cannot be compacted: %s", error)
    if lock is None:
        await asyncio.sleep(ASK_AGAIN)
        return
    try:
        await _compact(root, environment, on_start)
        await asyncio.sleep(_REST)  # other processes wait as long, and then find nothing to do
    finally:
        os.close(lock)


async def _compact(root: Path, environment: Mapping[str, str], on_start: Callable[[], None]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _COMMAND, "compact", str(root)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    log.info("much of the catalogue has changed: compacting it")
    on_start()
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        log.error("the catalogue was not compacted: %s", said.decode(errors="replace").strip())


class Shadow:
    """Samples requests, and compares their answers with exact ones."""

    def __init__(self, meters: Metrics, share: float, busy: Callable[[], bool]) -> None:
        """Start nothing.

        Args:
            meters: to count with.
            share: of the requests that are compared, 0 to 1.
            busy: returns whether searches wait; then no request is compared.
        """
        self._busy = busy
        self._meters = meters
        self._share = share
        self._task: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, "shadow", initializer=yield_to_others)

    def offer(self, request: Request, answer: Recommendations, snapshot: Snapshot) -> None:
        """Sample an answer, without blocking the event loop.

        Args:
            request: of the answer.
            answer: of the recommender.
            snapshot: that answered.
        """
        if random.random() >= self._share or answer.exact or needs_reranking(request):  # noqa: S311 - a sample
            return
        if self._task is not None or self._busy():
            self._meters.compared["dropped"].inc()
            return
        held = ExitStack()
        held.enter_context(snapshot)  # from now on, since the task starts later
        self._task = asyncio.get_running_loop().create_task(self._compare(request, snapshot, held))

    def close(self) -> None:
        """Wait for the comparison in progress."""
        self._pool.shutdown(cancel_futures=True)

    async def _compare(self, request: Request, snapshot: Snapshot, held: ExitStack) -> None:
        try:
            with held:
                loop = asyncio.get_running_loop()
                share = await loop.run_in_executor(self._pool, _share, snapshot.recommender, request)
            if not snapshot.retired:
                self._meters.sampled(share)
            self._meters.compared["compared"].inc()
        except Exception:  # the answer is sent already
            self._meters.compared["failed"].inc()
        finally:
            self._task = None


def _share(recommender: Recommender, request: Request) -> float:
    found = set(recommender.recommend(request).ids)
    exact = recommender.recommend(request, exact=True).ids
    return len(found.intersection(exact)) / len(exact) if exact else 1.0
