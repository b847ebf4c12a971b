"""Answers from the served bundle, and changes to it."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from typing_extensions import override

from recall import Degraded, JournalError, Recommendations, Recommender, Request, StoreError
from recall.bundle.depot import VARIABLE as DEPOT
from recall.bundle.files import USERS
from recall.bundle.manifest import MANIFEST
from recall.serving.query import needs_reranking
from recall.store.group_commit import Receipt
from recall.store.items.catalog import Catalog
from recall.store.items.log import VARIABLE as ITEMS
from recall.store.items.snapshot import CatalogSnapshot
from recall.store.users.sqlite import SqliteLiveUsers, open_live_users
from service.background import Follower, Shadow, compact
from service.bundles import BundleSwitch, Snapshot
from service.concurrency import ANYBODY, Caller, SearchQueue
from service.config import Settings
from service.errors import Kind, ProblemError
from service.scenarios import Scenarios
from service.tokens import Tokens

_REMOTE_FACTOR = 4  # times as many search threads where some of them wait for another machine

log = logging.getLogger("service")
Answer = TypeVar("Answer")


class Live(BundleSwitch):
    """Answers requests from the served bundle, and changes its items and users.

    Attributes:
        draining: whether the process is about to stop.
        in_flight: number of requests that are being answered.
        queue: runs searches in turn.
        tasks: background tasks of the application.
        tokens: writes and reads the tokens of lists.
        scenarios: named presets of requests.
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare; nothing is opened yet."""
        root = None if (settings.bundle / MANIFEST).exists() else settings.bundle
        exported = settings.exported_users == "redis"
        users = open_live_users(settings.users, root, settings.users_seconds, exported=exported)
        super().__init__(settings, users)
        self.draining = False
        self.in_flight = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.shadow = Shadow(self.meters, settings.shadow, lambda: self.queue.waiting > 0)
        if isinstance(users, SqliteLiveUsers):
            users.on_commit(self.meters.commits["users"].observe)
        self._remote_users = users is not None and users.remote
        self._threads = max(1, len(os.sched_getaffinity(0)) // settings.workers)
        self.queue = SearchQueue(
            self._threads * _REMOTE_FACTOR,
            settings.waiting,
            settings.standing,
            settings.age,
            on_wait=self.meters.stages["queue"].observe,
            on_shed=lambda reason: self.meters.shed[reason].inc(),
        )
        self.queue.threads = self._threads
        self._changes = asyncio.Semaphore(settings.waiting)
        self._follower = Follower(self.meters, settings.write_back)
        self._has_looked = False
        self._asked, self._silent = set[str](), set[str]()  # stores that have said what they guarantee, and that did not answer
        self._users_unread = ""
        self._sequences: dict[str, int] = {}  # of the stores, at the last look
        self._checkpointed: dict[str, int] = {}
        self.tokens, self.scenarios = Tokens(settings.bundle, settings.token_key), Scenarios(root)

    async def recommend(self, request: Request, caller: Caller = ANYBODY, *, large: bool = False) -> Recommendations:
        """Answer one request, when it is its turn.

        Args:
            request: any request.
            caller: sender of the request, and its deadline.
            large: whether the request is too large for the event loop.

        Raises:
            RequestError: The request names something that the bundle does not know.
            ProblemError: No bundle is served yet, too many requests wait, or the caller no longer waits.
        """
        snapshot = self.serving()
        quick = not large and self._quick(snapshot, request)
        if self._follower.behind(snapshot, caller):
            if not self.queue.has_room(short=quick):
                raise self.queue.shed("full")  # before the changes are read
            snapshot = await self._in_step(caller)
        work = partial(_timed, snapshot.recommender, request)
        with snapshot:
            answer, seconds = await (self.queue.on_loop(work, caller) if quick else self.queue.in_thread(work, caller))
        self.meters.stages["search"].observe(seconds)
        answer = self.with_degraded(answer)
        self.meters.answered(answer)
        self.shadow.offer(request, answer, snapshot)
        return answer

    async def ask(self, act: Callable[[Recommender], Answer], caller: Caller = ANYBODY) -> Answer:
        """Run a query of the served bundle on a search thread, on one snapshot.

        Args:
            act: queries the recommender; its exceptions are raised here.
            caller: sender of the request, and its deadline.

        Raises:
            ProblemError: No bundle is served yet, too many requests wait, or the deadline has passed.
        """
        return (await self.ask_in_turns([lambda recommender, _: act(recommender)], caller))[0]

    async def ask_in_turns(
        self, acts: Iterable[Callable[[Recommender, CatalogSnapshot], Answer]], caller: Caller = ANYBODY
    ) -> list[Answer]:
        """Answer a long request in parts from one snapshot, with others in between.

        Args:
            acts: the parts; each is given the recommender and the catalogue as it was at the start.
            caller: as for `ask`.

        Raises:
            ProblemError: As `ask`.
        """
        snapshot = await self._in_step(caller)
        catalogue = snapshot.recommender.items.current()
        with snapshot:
            return [await self.queue.in_thread(partial(act, snapshot.recommender, catalogue), caller) for act in acts]

    async def change_items(self, act: Callable[[Catalog], Receipt]) -> Receipt:
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
        receipt = await self._change(snapshot, lambda recommender: act(recommender.items))
        if self.snapshot is not None and self.snapshot is not snapshot:  # another bundle is served by now
            with self.snapshot as current:
                await asyncio.to_thread(current.recommender.items.refresh)
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
        return await self._change(snapshot, act)

    async def follow(self) -> None:
        """Read the changes of other processes."""
        if self.snapshot is not None:
            await self._follower.look(self.snapshot)

    async def watch(self) -> None:
        """Serve the bundle that CURRENT names, and look after the stores.

        A bundle that cannot be served is refused, and the reason noted.
        """
        if self._users is not None:
            await self._warn("users", self._users.durability_warning)
        await self.follow_depot()
        await self.look()
        if self.snapshot is not None:
            with self.snapshot as snapshot:
                items = snapshot.recommender.items
                await asyncio.to_thread(self.scenarios.look, snapshot.recommender)
                await self._warn("items", items.durability_warning)
                await self._checkpoint("items", items.current().sequence, items.checkpoint)
        self._has_looked = True
        await self._look_at_users()
        self.measure()

    async def compact(self) -> None:
        """Have the catalogue published again if much of it has changed."""
        if self.snapshot is None or not self.snapshot.recommender.items.needs_compaction:
            return
        if (self.snapshot.folder / USERS).exists():
            environment = {ITEMS: self.settings.items, DEPOT: self.settings.depot}
            await compact(self.settings.bundle, environment, self.meters.compactions.inc)
        else:
            await self._warn("compaction", lambda: "run `recall compact` where versions are published, with the file of users")

    async def wait_for_first_look(self) -> None:
        """Wait until loading the live bundle was tried, or the process shuts down."""
        while not (self._has_looked or self.draining):
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
        self._follower.close()
        super().close()

    async def _change(self, snapshot: Snapshot, act: Callable[[Recommender], Answer]) -> Answer:
        """Run a change on another thread; the number of concurrent changes is bounded."""
        if self._changes.locked():
            raise self.queue.shed("full")
        async with self._changes:
            with snapshot:
                return await asyncio.to_thread(act, snapshot.recommender)

    async def _in_step(self, caller: Caller) -> Snapshot:
        """Return the served snapshot with all acknowledged changes, or raise an error."""
        snapshot = self.serving()
        while self._follower.behind(snapshot, caller):
            await self._follower.catch_up(snapshot, caller)
            before, snapshot = snapshot, self.serving()
            if snapshot is before:
                break
        return snapshot

    async def _look_at_users(self) -> None:
        """Detect lost changes of users."""
        users = self._users
        if users is None:
            return
        try:
            error = await asyncio.to_thread(users.error)
            await self._checkpoint("users", await asyncio.to_thread(users.sequence), users.checkpoint)
        except StoreError as unread:  # reported in answers to requests that name a user
            self._users_unread = f"changes of users since the bundle are not known: {unread.what}"
            return
        self._users_unread = ""
        if error and error != self._users_error:
            log.error("users: %s", error)
        self._users_error = error

    async def _checkpoint(self, name: str, sequence: int, checkpoint: Callable[[], None]) -> None:
        """Checkpoint a store that has not changed since the last look.

        A copy of its file is complete then.
        """
        if self._sequences.get(name) == sequence != self._checkpointed.get(name):
            self._checkpointed[name] = sequence
            with suppress(StoreError, JournalError):  # it may not be written, or others are writing
                await asyncio.to_thread(checkpoint)
        self._sequences[name] = sequence

    async def _warn(self, name: str, ask: Callable[[], str]) -> None:
        """Log once which guarantees a store lacks, when it can be reached."""
        if name in self._asked:
            return
        try:
            warning = await asyncio.to_thread(ask)
            self._asked.add(name)
        except (StoreError, JournalError) as error:
            warning = "" if name in self._silent else str(error)
            self._silent.add(name)
        if warning:
            log.warning("%s: %s", name, warning)

    def with_degraded(self, answer: Recommendations) -> Recommendations:
        """Add the degradations of the service to an answer."""
        degraded = self.degraded
        return replace(answer, degraded=answer.degraded + degraded) if degraded else answer

    def lacking(self) -> tuple[Degraded, ...]:
        """Return the degradations of all answers, and of those that name a user."""
        items = () if self.snapshot is None else self.snapshot.recommender.items.current().degraded
        users = (Degraded("users", self._users_unread),) if self._users_unread else ()
        return (*items, *self.degraded, *users, *self.scenarios.degraded)

    def measure(self) -> None:
        """Set the gauges."""
        meters = self.meters
        degraded = any(one.part == "bundle" for one in self.degraded)
        ready = self.snapshot is not None and not self.draining
        meters.set(in_flight=self.in_flight, waiting=self.queue.waiting, ready=ready, bundle_degraded=degraded)
        meters.measure(None if self.snapshot is None else self.snapshot.recommender.items)

    def _quick(self, snapshot: Snapshot, request: Request) -> bool:
        """Return whether the event loop may answer a request itself."""
        remote = self._remote_users and request.user_id is not None
        quick = snapshot.inline and not (
            remote or needs_reranking(request) or request.explain or request.fields or request.because
        )
        return quick and snapshot.recommender.eligibility.ready_for(request)

    @override
    def _on_switch(self, snapshot: Snapshot) -> None:
        self.queue.inline = snapshot.inline and not self._remote_users
        waits = self._remote_users or snapshot.recommender.index.remote
        self.queue.threads = self._threads * (_REMOTE_FACTOR if waits else 1)
        snapshot.recommender.items.on_commit(self.meters.commits["items"].observe)
        self.meters.serve_bundle(snapshot.recommender, snapshot.search_seconds)


def _timed(recommender: Recommender, request: Request) -> tuple[Recommendations, float]:
    start = time.perf_counter()
    return recommender.recommend(request), time.perf_counter() - start
