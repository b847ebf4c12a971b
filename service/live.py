"""The bundle being served, and its exchange for a newer one without a request noticing.

A request holds the snapshot it began with until it is answered, so every answer comes from one bundle; a snapshot
that was replaced is closed by the last request that held it. All of this runs on the event loop's thread alone, which
is why nothing is locked: only loading, and searches that take long, happen on other threads.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from recall.answer import Recommendations
from recall.bundle.manifest import MANIFEST
from recall.bundle.publish import resolve
from recall.errors import RecallError
from recall.live.following import LiveCatalogue, Receipt
from recall.recommender import Recommender
from recall.request import Request
from recall.stores.live.contract import LiveUsers
from recall.stores.live.opening import open_live_users
from service.admission import ANYBODY, Admission, Caller
from service.compactor import Compactor
from service.problems import Kind, ProblemError
from service.settings import Settings

INLINE_SECONDS = 0.002
"""A search that takes at most this long, measured while warming up, runs on the event loop: handing it to a thread and
back costs about as much CPU again. A longer one would hold up every other connection, health checks among them."""

_LONGEST_PAUSE = 300.0  # seconds between two tries of a bundle that keeps being refused: each try reads all of it
_WAITING_THREADS = 4  # times as many search threads where some of them wait for another machine

Answer = TypeVar("Answer")

log = logging.getLogger("service")


class Snapshot:
    """One loaded bundle, and the requests that hold it.

    Attributes:
        recommender: answers requests from the bundle.
        folder: the bundle's folder.
        search_seconds: median CPU time of a warm-up request.
    """

    def __init__(self, recommender: Recommender, folder: Path, search_seconds: float) -> None:
        self.recommender = recommender
        self.folder = folder
        self.search_seconds = search_seconds
        self._holders = 0
        self._retired = False

    @classmethod
    def load(cls, folder: Path, root: Path | None = None, users: LiveUsers | None = None) -> "Snapshot":
        """Verify, load and warm up; live changes in `root` lie on top. Raises RecallError when it is not fit to be served."""
        recommender = Recommender.load(folder, root=root, pause=None, users=users)
        seconds = []
        for user_id in (None, *recommender.users.sample(20, seed=0)):
            start = time.thread_time()  # what the loop would be held up for, however busy the machine is now
            recommender.recommend(Request(user_id=user_id, n=100))
            seconds.append(time.thread_time() - start)
        return cls(recommender, folder, median(seconds))

    @property
    def inline(self) -> bool:
        """Whether searches are short enough for the event loop."""
        return self.search_seconds <= INLINE_SECONDS

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the bundle open for the length of a request."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._close_when_free()

    def retire(self) -> None:
        """Close the bundle as soon as no request holds it."""
        self._retired = True
        self._close_when_free()

    def _close_when_free(self) -> None:
        if self._retired and self._holders == 0:
            self.recommender.close()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that CURRENT names and that is not served; `again` is when to try once more, on the loop's clock."""

    folder: Path
    reason: str
    again: float
    pause: float


class Live:
    """Answers requests from the newest bundle that is fit to be served."""

    def __init__(self, settings: Settings) -> None:
        self.snapshot: Snapshot | None = None
        self.refusal: Refusal | None = None
        self.draining = False
        self._settings = settings
        root = None if (settings.bundle / MANIFEST).exists() else settings.bundle
        self._users = open_live_users(settings.users, root, settings.users_seconds)
        self._asks_far = self._users is not None and self._users.remote
        threads = _threads(settings) * (_WAITING_THREADS if self._asks_far else 1)
        self.admission = Admission(threads, settings.waiting, settings.standing, settings.age)
        self._changing = 0
        self._trouble = ""
        self._compactor = Compactor(settings.bundle)

    async def recommend(self, request: Request, caller: Caller = ANYBODY) -> Recommendations:
        """Answer one request, when it is its turn.

        Args:
            request: what is asked.
            caller: who waits for the answer, and how long.

        Raises:
            RequestError: the request names something that the bundle does not know of.
            ProblemError: no bundle is served yet, too many requests wait, or the caller waits no longer.
        """
        snapshot = self.serving()
        far = self._asks_far and request.user_id is not None
        if snapshot.inline and not far and not request.shaped and snapshot.recommender.eligibility.ready_for(request):
            return await self.admission.here(self._recommend, request, caller)
        return await self.ask(lambda recommender: recommender.recommend(request), caller)

    async def ask(self, act: Callable[[Recommender], Answer], caller: Caller = ANYBODY) -> Answer:
        """Have the bundle that is served now answer on a search thread, in its turn; all of the answer comes from it.

        Args:
            act: asks the recommender; what it raises is raised here.
            caller: who waits for the answer, and how long.

        Raises:
            ProblemError: no bundle is served yet, too many requests wait, or the caller waits no longer.
        """
        snapshot = self.serving()
        with snapshot.held():
            return await self.admission.elsewhere(act, snapshot.recommender, caller)

    def serving(self) -> Snapshot:
        """What is served now. Raises ProblemError that says why when that is nothing yet."""
        if self.snapshot is None:
            reason = self.refusal.reason if self.refusal else "The first bundle is being loaded."
            raise ProblemError(Kind.NOT_READY, reason, headers={"Retry-After": "1"})
        return self.snapshot

    async def change(self, act: Callable[[LiveCatalogue], Receipt]) -> Receipt:
        """Change items; when this returns, the change is on disk and in every answer that follows.

        Args:
            act: asks the live catalogue for the change; called on another thread, for it waits for the disk.

        Raises:
            RequestError, JournalError: as `LiveCatalogue.upsert`.
            ProblemError: no bundle is served yet, it has no journal, or too many changes wait for the disk.
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
        """Change users; when this returns, the change is stored and in every answer that follows.

        Args:
            act: asks for the change; called on another thread, for it waits for the store.

        Raises:
            RequestError, StoreError: as `KnownUsers.put`.
            ProblemError: no bundle is served yet, it has no store of users, or too many changes wait for the disk.
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
                await self._catch_up(self.snapshot)  # a function's names are gone when it ends: none holds an old bundle

    async def watch(self) -> None:
        """Follow CURRENT for ever: take each bundle that it names, or remember why it was refused."""
        while True:
            await self.look()
            if self.snapshot is not None and self.snapshot.recommender.items.overgrown:
                await self._compactor.start()
            await asyncio.sleep(self._settings.poll)

    async def settled(self) -> None:
        """Wait until a bundle is served, or was refused, or the process is to stop."""
        while self.snapshot is None and self.refusal is None and not self.draining:
            await asyncio.sleep(0.02)

    async def look(self) -> None:
        """Look at CURRENT once, and take the bundle it names unless that one is served or was just refused."""
        now = asyncio.get_running_loop().time()
        try:
            folder = await asyncio.to_thread(resolve, self._settings.bundle)
        except Exception as error:  # a watch that ends would miss every later bundle
            self._refuse(self._settings.bundle, error, now)
            return
        if self.snapshot is not None and self.snapshot.folder == folder:
            self.refusal = None
        elif self.refusal is None or self.refusal.folder != folder or self.refusal.again <= now:
            await self._take(folder, now)

    def close(self) -> None:
        """Stop the search threads and close the bundle."""
        self.admission.close()
        self._compactor.close()
        if self.snapshot is not None:
            self.snapshot.retire()
            self.snapshot = None
        if self._users is not None:
            self._users.close()

    @contextmanager
    def _change(self, snapshot: Snapshot) -> Iterator[None]:
        """Keep a bundle open for the length of a change, of which not too many go on at once."""
        if self._changing >= self._settings.waiting:
            raise self.admission.full()
        self._changing += 1
        try:
            with snapshot.held():
                yield
        finally:
            self._changing -= 1

    async def _catch_up(self, snapshot: Snapshot) -> None:
        with snapshot.held():
            items = snapshot.recommender.items
            try:
                if items.moved():
                    await asyncio.to_thread(items.refresh)
                self._trouble = ""
            except Exception as error:  # answers go on, and say so
                if str(error) != self._trouble:
                    log.error("live changes cannot be read: %s", error)
                self._trouble = str(error)

    def _recommend(self, request: Request) -> Recommendations:
        return self.serving().recommender.recommend(request)

    async def _take(self, folder: Path, now: float) -> None:
        try:
            root = self._settings.bundle if folder != self._settings.bundle else None
            snapshot = await asyncio.to_thread(Snapshot.load, folder, root, self._users)
            snapshot.recommender.items.refresh()  # what was acknowledged while it was being loaded
        except Exception as error:  # whatever is wrong with a new bundle, the old one serves on
            self._refuse(folder, error, now)
            return
        previous, self.snapshot, self.refusal = self.snapshot, snapshot, None
        self.admission.inline = snapshot.inline and not self._asks_far
        for item_id, why in snapshot.recommender.items.refused.items():
            log.warning("the last change of item %r does not fit bundle %s: %s", item_id, folder.name, why)
        log.info("serving bundle %s, %.2f ms a search", folder.name, snapshot.search_seconds * 1000)
        if previous is not None:
            previous.retire()

    def _refuse(self, folder: Path, error: Exception, now: float) -> None:
        known = self.refusal if self.refusal is not None and self.refusal.folder == folder else None
        pause = min(2 * known.pause, _LONGEST_PAUSE) if known else self._settings.poll
        reason = str(error) or type(error).__name__
        if known is None or known.reason != reason:
            expected = isinstance(error, RecallError | OSError)
            log.error("bundle %s is refused: %s", folder.name, reason, exc_info=None if expected else error)
        self.refusal = Refusal(folder, reason, now + pause, pause)


def _threads(settings: Settings) -> int:
    """Threads that search in one process; a container may have fewer cores than its machine."""
    return max(1, len(os.sched_getaffinity(0)) // settings.workers)
