"""Answers from the served bundle, and changes to it."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from typing_extensions import override

from recall.bundle.manifest import MANIFEST
from recall.errors import JournalDamagedError, JournalError, StoreError, TokenError
from recall.serving.query import needs_reranking
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.response import Degraded, Recommendations
from recall.store.group_commit import Receipt
from recall.store.items.catalog import Catalog
from recall.store.users.registry import open_live_users
from recall.store.users.sqlite import SqliteLiveUsers
from service.bundles import Exchange, Snapshot
from service.compactor import Compactor
from service.concurrency import ANYBODY, Caller, SearchQueue
from service.config import Settings
from service.errors import Kind, ProblemError
from service.metrics import Metrics, Shadow

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
                if items.has_changes():
                    with suppress(JournalDamagedError):  # the catalogue tells of it, and what is served is written back
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
            if items.unsaved or items.has_changes():
                with suppress(JournalDamagedError):
                    await self._run(items)
            if items.unsaved:
                await asyncio.get_running_loop().run_in_executor(self._pool, items.repair)

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(cancel_futures=True)

    async def _run(self, items: Catalog) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, items.refresh)

    async def _mend(self, items: Catalog) -> None:
        if not items.unsaved:
            self._mend_at = None
            return
        now = time.monotonic()
        if self._mend_at is None or self._gone != (not items.logs):
            # an existing file has most likely been replaced completely; a missing one may still be restored
            self._gone = not items.logs
            self._mend_at = now + (self._patience if self._gone else self._patience / 5)
        elif now >= self._mend_at:
            self._mend_at = now + self._patience
            written = await asyncio.get_running_loop().run_in_executor(self._pool, items.repair)
            self._meters.written_back.inc(float(written))
            log.warning("%d acknowledged changes that the journal had lost were written back to it", written)

    async def _settle(self, items: Catalog) -> None:
        now, sequence = time.monotonic(), items.current().sequence
        if sequence != self._sequence:
            self._sequence, self._changed_at, self._settled = sequence, now, False
        elif not self._settled and now - self._changed_at >= IDLE and items.writable:
            self._settled = True
            with suppress(JournalError):  # where it may not be written, or others write
                await asyncio.get_running_loop().run_in_executor(self._pool, items.settle)

    async def _wait_for(self, items: Catalog, token: str, deadline: float | None) -> None:
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
            text = f"{error.what[:1].upper()}{error.what[1:]}{f' ({error.why})' if error.why else ''}. {error.hint}."
            raise ProblemError(kind, text) from None


_WAITING_THREADS = 4  # times as many search threads where some of them wait for another machine

Answer = TypeVar("Answer")


class Live(Exchange):
    """Answers requests, and takes changes, with the bundle that is served.

    Attributes:
        draining: whether the process is about to stop.
        queue: runs searches in turn.
        tasks: run for as long as the application.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        root = None if (settings.bundle / MANIFEST).exists() else settings.bundle
        users = open_live_users(settings.users, root, settings.users_seconds)
        super().__init__(settings, users)
        self.draining = False
        self.tasks: list[asyncio.Task[None]] = []
        self.meters = Metrics()
        self.shadow = Shadow(self.meters, settings.shadow, lambda: self.queue.waiting > 0)
        self.refused: Counter[str] = Counter()
        if isinstance(users, SqliteLiveUsers):
            users.on_commit(self.meters.commits["users"].observe)
        self._asks_far = users is not None and users.remote
        threads = _threads(settings) * (_WAITING_THREADS if self._asks_far else 1)
        self.queue = SearchQueue(threads, settings.waiting, settings.standing, settings.age)
        self.queue.on_wait = self.meters.stages["queue"].observe
        self._search = self.meters.stages["search"]
        self._changing = 0
        self._follower = Follower(self.meters, settings.write_back)
        self._looked = False
        self._users_trouble = ""
        self._users_unread = ""
        self._users_sequence = (-1, True)
        self._compactor = Compactor(settings.bundle)

    async def recommend(self, request: Request, caller: Caller = ANYBODY, *, large: bool = False) -> Recommendations:
        """Answer one request, when it is its turn.

        Args:
            request: what is asked.
            caller: who waits for the answer, and how long.
            large: whether the request is too large for the event loop.

        Raises:
            RequestError: The request names something that the bundle does not know.
            ProblemError: No bundle is served yet, too many requests wait, or the caller waits no longer.
        """
        snapshot = self.serving()
        quick = not large and self._quick(snapshot, request)
        if not self.queue.has_room(short=quick):
            raise self.queue.full()  # before the disk is asked for changes
        if self._follower.behind(snapshot, caller):
            snapshot = await self._in_step(caller)
        if quick:
            return await self.queue.on_loop(partial(self._recommend, request), caller)
        with snapshot.held():
            answer, seconds = await self.queue.in_thread(partial(_timed, snapshot.recommender, request), caller)
        self._search.observe(seconds)
        return self.noted(request, answer, snapshot)

    async def ask(self, act: Callable[[Recommender], Answer], caller: Caller = ANYBODY) -> Answer:
        """Let the served bundle answer on a search thread, from one snapshot.

        Args:
            act: queries the recommender; what it raises is raised here.
            caller: who waits for the answer, and how long.

        Raises:
            ProblemError: No bundle is served yet, too many requests wait, or the deadline has passed.
        """
        return (await self.ask_in_turns([act], caller))[0]

    async def ask_in_turns(self, acts: Iterable[Callable[[Recommender], Answer]], caller: Caller = ANYBODY) -> list[Answer]:
        """Answer a long request in parts from one bundle, with other requests in between.

        Args:
            acts: the parts.
            caller: as for `ask`.

        Raises:
            ProblemError: As `ask`.
        """
        snapshot = await self._in_step(caller)
        with snapshot.held():
            return [await self.queue.in_thread(partial(act, snapshot.recommender), caller) for act in acts]

    async def change(self, act: Callable[[Catalog], Receipt]) -> Receipt:
        """Change items; on return the change is on disk and in every later answer.

        Args:
            act: changes the catalogue; called on another thread, because it waits for the disk.

        Raises:
            RequestError: As `Catalog.upsert`.
            JournalError: As `Catalog.upsert`.
            ProblemError: No bundle is served yet, it has no log, or too many changes wait for the disk.
        """
        snapshot = self.serving()
        if not snapshot.recommender.items.writable:
            raise ProblemError(Kind.READ_ONLY, "Serve the folder that bundles are published to, not one of them.")
        with self._change(snapshot):
            receipt = await asyncio.to_thread(act, snapshot.recommender.items)
        if self.snapshot is not None and self.snapshot is not snapshot:  # it was exchanged meanwhile
            with self.snapshot.held():
                await asyncio.to_thread(self.snapshot.recommender.items.refresh)
        return receipt

    async def change_users(self, act: Callable[[Recommender], Answer]) -> Answer:
        """Change users; on return the change is stored and in every later answer.

        Args:
            act: changes the users; called on another thread, because it waits for the store.

        Raises:
            RequestError: As `UserProfiles.put`.
            StoreError: As `UserProfiles.put`.
            ProblemError: No bundle is served yet, it has no store of users, or too many changes wait for the disk.
        """
        snapshot = self.serving()
        if not snapshot.recommender.users.writable:
            raise ProblemError(Kind.READ_ONLY, "Serve the folder that bundles are published to, or name a Redis for users.")
        with self._change(snapshot):
            return await asyncio.to_thread(act, snapshot.recommender)

    async def follow(self) -> None:
        """Take in for ever what other processes change."""
        while True:
            await asyncio.sleep(self._settings.follow)
            if self.snapshot is not None:
                await self._follower.look(self.snapshot)  # a function's names are gone when it ends: none holds an old bundle

    async def watch(self) -> None:
        """Follow CURRENT forever: take each new bundle, or remember why it was refused."""
        await self._warn()
        while True:
            await self.look()
            self._looked = True
            if self.snapshot is not None and self.snapshot.recommender.items.overgrown and await self._compactor.start():
                self.meters.compactions.inc()
            await self._look_at_users()
            self.measure()
            await asyncio.sleep(self._settings.poll)

    async def settled(self) -> None:
        """Wait until the present bundles have been tried, or the process shuts down."""
        while not (self._looked or self.draining):
            await asyncio.sleep(0.02)

    async def dismiss(self) -> None:
        """Reject all waiting requests, and save what is unsaved."""
        if self.snapshot is not None:
            await self._follower.finish(self.snapshot)
        self.queue.dismiss()
        await asyncio.sleep(0.05)  # until the rejections are sent

    @override
    def close(self) -> None:
        """Stop the search threads and close the bundle."""
        self.queue.close()
        self.shadow.close()
        self._compactor.close()
        self._follower.close()
        super().close()

    @contextmanager
    def _change(self, snapshot: Snapshot) -> Iterator[None]:
        """Keep a bundle open during a change; the number of concurrent changes is bounded."""
        if self._changing >= self._settings.waiting:
            raise self.queue.full()
        self._changing += 1
        try:
            with snapshot.held():
                yield
        finally:
            self._changing -= 1

    async def _in_step(self, caller: Caller) -> Snapshot:
        """Return what is served, with every acknowledged change; may raise ProblemError."""
        snapshot = self.serving()
        while self._follower.behind(snapshot, caller):
            await self._follower.catch_up(snapshot, caller)
            before, snapshot = snapshot, self.serving()
            if snapshot is before:
                break
        return snapshot

    def noted(self, request: Request, answer: Recommendations, snapshot: Snapshot) -> Recommendations:
        """Count an answer, and sometimes sample it for comparison.

        Args:
            request: of the answer.
            answer: of the recommender.
            snapshot: that answered.
        """
        answer = self.with_degraded(answer)
        self.meters.answered(answer)
        self.shadow.offer(request, answer, snapshot)
        return answer

    async def _look_at_users(self) -> None:
        """Detect lost changes of users; checkpoint the store when it is idle."""
        if self._users is None:
            return
        users = self._users
        try:
            trouble = await asyncio.to_thread(users.error)
            sequence = await asyncio.to_thread(users.sequence)
            if sequence != self._users_sequence[0]:
                self._users_sequence = (sequence, False)
            elif not self._users_sequence[1]:
                self._users_sequence = (sequence, True)
                await asyncio.to_thread(users.checkpoint)
        except StoreError as error:  # answers to requests that name a user tell of it
            self._users_unread = f"changes of users since the bundle are not known: {error.what}"
            return
        self._users_unread = ""
        if trouble != self._users_trouble:
            if trouble:
                log.error("users: %s", trouble)
            self._users_trouble = trouble
            self.degraded = self._degraded()

    @override
    def _degraded(self) -> tuple[Degraded, ...]:
        users = (Degraded("users", self._users_trouble),) if self._users_trouble else ()
        return (*super()._degraded(), *users)

    async def _warn(self) -> None:
        """Tell the log what the store of users does not promise."""
        if self._users is None:
            return
        try:
            caution = await asyncio.to_thread(self._users.durability_warning)
        except StoreError as error:
            caution = str(error)
        if caution:
            log.warning("users: %s", caution)

    def with_degraded(self, answer: Recommendations) -> Recommendations:
        """Add the degradations of the service to an answer."""
        return answer if not self.degraded else replace(answer, degraded=answer.degraded + self.degraded)

    def lacking(self) -> tuple[Degraded, ...]:
        """Return the degradations of all answers, and of those that name a user."""
        items = () if self.snapshot is None else self.snapshot.recommender.items.current().degraded
        users = (Degraded("users", self._users_unread),) if self._users_unread else ()
        return (*items, *self.degraded, *users)

    def measure(self) -> None:
        """Set the gauges."""
        meters = self.meters
        meters.count_since(self.queue.shed, self.refused)
        degraded = any(one.part == "bundle" for one in self.degraded)
        ready = self.snapshot is not None and not self.draining
        meters.set(waiting=self.queue.waiting, ready=ready, bundle_degraded=degraded)
        if self.snapshot is not None:
            meters.measure(self.snapshot)

    def _quick(self, snapshot: Snapshot, request: Request) -> bool:
        """Whether the event loop may answer a request itself."""
        far = self._asks_far and request.user_id is not None
        quick = snapshot.inline and not (far or needs_reranking(request) or request.explain)
        return quick and snapshot.recommender.eligibility.ready_for(request)

    def _recommend(self, request: Request) -> Recommendations:
        snapshot = self.serving()
        answer, seconds = _timed(snapshot.recommender, request)
        self._search.observe(seconds)
        return self.noted(request, answer, snapshot)

    @override
    def _exchanged(self, snapshot: Snapshot) -> None:
        self.queue.inline = snapshot.inline and not self._asks_far
        snapshot.recommender.items.on_commit(self.meters.commits["items"].observe)
        self.meters.serve_bundle(snapshot)

    @override
    def _swapped(self, result: str) -> None:
        self.meters.swaps[result].inc()


def _timed(recommender: Recommender, request: Request) -> tuple[Recommendations, float]:
    start = time.perf_counter()
    return recommender.recommend(request), time.perf_counter() - start


def _threads(settings: Settings) -> int:
    """Return the number of search threads; a container may have fewer cores."""
    return max(1, len(os.sched_getaffinity(0)) // settings.workers)
