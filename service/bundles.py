"""The served bundle, and its exchange for a new one without failing requests."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from recall.bundle import activation
from recall.bundle.manifest import Manifest
from recall.bundle.memory import check_memory
from recall.bundle.versions import live_name, resolve
from recall.errors import JournalError, RecallError, VersionMovedError
from recall.publish import golden
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.response import Degraded
from recall.store.users.changes import LiveUsers
from service.config import Settings
from service.errors import Kind, ProblemError
from service.logs import without_paths

INLINE_SECONDS = 0.002
"""A search that takes at most this long, measured while warming up, runs on the event loop: handing it to a thread and
back costs about as much CPU again. A longer one would hold up every other connection, health checks among them."""


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
        """Verify, load, check golden requests, and warm up; live changes are included.

        Args:
            folder: of the version.
            root: with the live changes of items.
            users: the live changes of users.

        Raises:
            RecallError: It cannot be served.
        """
        check_memory(folder, Manifest.read(folder))
        recommender = Recommender.load(folder, root=root, pause=None, users=users)
        try:
            golden.check(recommender)
            return cls(recommender, folder, _warmed(recommender))
        except BaseException:
            recommender.close()
            raise

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

    @property
    def retired(self) -> bool:
        """Whether another bundle is served."""
        return self._retired

    def retire(self) -> None:
        """Close the bundle as soon as no request holds it."""
        self._retired = True
        self._close_when_free()

    def _close_when_free(self) -> None:
        if self._retired and self._holders == 0:
            self.recommender.close()


def _warmed(recommender: Recommender) -> float:
    """Median CPU seconds of some requests."""
    seconds = []
    for user_id in (None, *recommender.users.sample(20, seed=0)):
        start = time.thread_time()  # what the loop would be held up for, however busy the machine is now
        recommender.recommend(Request(user_id=user_id, n=100))
        seconds.append(time.thread_time() - start)
    return median(seconds)


_LONGEST_PAUSE = 300.0  # seconds between two tries of a bundle that keeps being refused: each try reads all of it

log = logging.getLogger("service")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that cannot be served; `again` is when to retry, on the loop's clock."""

    folder: Path
    reason: str
    again: float
    pause: float


class Exchange:
    """Serves the live bundle, or the last good one.

    Attributes:
        snapshot: what is served; None before the first bundle.
        refusal: of the live bundle, while it is not the one that is served.
        degraded: what every answer says meanwhile.
    """

    def __init__(self, settings: Settings, users: LiveUsers | None = None) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: of the service.
            users: changes on top of the stored ones of every bundle, closed with it.
        """
        self.snapshot: Snapshot | None = None
        self.refusal: Refusal | None = None
        self.degraded: tuple[Degraded, ...] = ()
        self._settings = settings
        self._users = users
        self._taking = asyncio.Lock()  # one bundle is loaded at a time
        self._unfit: dict[Path, Refusal] = {}

    def serving(self) -> Snapshot:
        """Return what is served now.

        Raises:
            ProblemError: Nothing is served yet; says why.
        """
        if self.snapshot is None:
            reason = self.refusal.reason if self.refusal else "The first bundle is being loaded."
            raise ProblemError(Kind.NOT_READY, reason, headers={"Retry-After": "1"})
        return self.snapshot

    async def look(self) -> None:
        """Read CURRENT once, and take its bundle unless it is served or was just refused.

        When nothing is served and that bundle cannot be, the last good one is served instead.
        """
        async with self._taking:
            now = asyncio.get_running_loop().time()
            root = self._settings.bundle
            try:
                folder = await asyncio.to_thread(resolve, root)
            except Exception as error:  # a watch that ends would miss every later bundle
                self.refusal = self._refuse(root, error, now)
                await self._fall_back(now)
            else:
                await self._take(folder, now)
            self.degraded = self._degraded()

    async def activate(self, name: str, expected: str | None = None) -> str:
        """Make a version of the root live: here when this returns, elsewhere soon.

        Args:
            name: of the version.
            expected: fail unless this version is live.

        Returns:
            The name of the version that was live.

        Raises:
            VersionMovedError: An unexpected version is live. Nothing has changed.
            RecallError: It cannot be served, or the root cannot be written. Nothing has changed.
        """
        root = self._settings.bundle
        async with self._taking:
            folder = await asyncio.to_thread(activation.find, root, name)
            live = await asyncio.to_thread(live_name, root)
            if expected is not None and live != expected:
                raise VersionMovedError(f"version {live or 'none'} is live, and not {expected}", where=str(root))
            snapshot = self.snapshot
            if snapshot is None or snapshot.folder != folder:
                snapshot = await asyncio.to_thread(Snapshot.load, folder, root, self._users)
            try:
                before = await asyncio.to_thread(activation.activate, root, name, expected)
            except BaseException:
                if snapshot is not self.snapshot:
                    snapshot.retire()
                raise
            self._unfit.pop(folder, None)
            self._serve(snapshot)
            return before

    def close(self) -> None:
        """Let go of the bundle."""
        if self.snapshot is not None:
            self.snapshot.retire()
            self.snapshot = None
        if self._users is not None:
            self._users.close()

    def _exchanged(self, snapshot: Snapshot) -> None:
        """Handle that another bundle is served."""

    def _swapped(self, result: str) -> None:
        """Handle the result of a swap: "served", "refused", or "fell_back"."""

    async def _take(self, folder: Path, now: float) -> None:
        if self.snapshot is not None and self.snapshot.folder == folder:
            self.refusal = None
            return
        snapshot = await self._load(folder, now) if self._due(folder, now) else None
        if snapshot is not None:
            self._serve(snapshot)
        else:
            self.refusal = self._unfit.get(folder)
            await self._fall_back(now)

    def _serve(self, snapshot: Snapshot, instead_of: Refusal | None = None) -> None:
        """Answer from this bundle; the last request that uses the previous one closes it."""
        previous, self.snapshot, self.refusal = self.snapshot, snapshot, instead_of
        self.degraded = self._degraded()
        if previous is snapshot:
            return
        items = snapshot.recommender.items
        with suppress(JournalError):  # answers tell of it
            items.refresh()  # what was acknowledged while it was being loaded
        for item_id, why in items.refused.items():
            log.warning("the last change of item %r does not fit bundle %s: %s", item_id, snapshot.folder.name, why)
        self._exchanged(snapshot)
        self._swapped("fell_back" if instead_of is not None else "served")
        log.info("serving bundle %s, %.2f ms a search", snapshot.folder.name, snapshot.search_seconds * 1000)
        if previous is not None:
            previous.retire()

    async def _fall_back(self, now: float) -> None:
        """Serve the last good version when nothing is served; answers say so."""
        if self.snapshot is not None:
            return
        for folder in await asyncio.to_thread(activation.candidates, self._settings.bundle):
            if self._due(folder, now) and (snapshot := await self._load(folder, now)) is not None:
                self._serve(snapshot, instead_of=self.refusal)
                log.error("bundle %s is served in place of the live one, which is refused", folder.name)
                return

    async def _load(self, folder: Path, now: float) -> Snapshot | None:
        """Return a bundle ready to be served, or None after noting why not."""
        try:
            root = self._settings.bundle if folder != self._settings.bundle else None
            snapshot = await asyncio.to_thread(Snapshot.load, folder, root, self._users)
        except Exception as error:  # whatever is wrong with a new bundle, the old one serves on
            self._refuse(folder, error, now)
            return None
        self._unfit.pop(folder, None)
        return snapshot

    def _due(self, folder: Path, now: float) -> bool:
        known = self._unfit.get(folder)
        return known is None or known.again <= now

    def _refuse(self, folder: Path, error: Exception, now: float) -> Refusal:
        known = self._unfit.get(folder)
        pause = min(2 * known.pause, _LONGEST_PAUSE) if known else self._settings.poll
        text = str(error) or type(error).__name__
        reason = without_paths(text, self._settings.bundle)  # /health/ready shows it to callers without a key
        if known is None or known.reason != reason:
            expected = isinstance(error, RecallError | OSError)
            log.error("bundle %s is refused: %s", folder.name, text, exc_info=None if expected else error)
        self._swapped("refused")
        self._unfit[folder] = refusal = Refusal(folder, reason, now + pause, pause)
        return refusal

    def _degraded(self) -> tuple[Degraded, ...]:
        """Return what answers say while a bundle other than the live one is served."""
        if self.snapshot is None or self.refusal is None:
            return ()
        refused = "CURRENT" if self.refusal.folder == self._settings.bundle else self.refusal.folder.name
        return (Degraded("bundle", f"{refused} was refused; {self.snapshot.folder.name} is served in its place"),)
