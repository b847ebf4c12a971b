"""The served bundle, and its replacement by a new one without failing requests."""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Self

from recall import BundleError, Degraded, JournalError, RecallError, Recommender, Request, StoreError, VersionMovedError
from recall.bundle import activation
from recall.bundle.files import USERS, check_memory
from recall.bundle.manifest import Manifest
from recall.bundle.versions import live_name, open_depot, resolve
from recall.publish import golden
from recall.store.users.changes import LiveUsers
from service.config import Settings
from service.errors import FaultDocument, Kind, ProblemError
from service.logs import without_paths
from service.metrics import Metrics

if TYPE_CHECKING:
    from recall.evaluation.html.subject import Subject

INLINE_SECONDS = 0.002
"""A search that takes at most this long, measured while warming up, runs on the event loop: handing it to a thread and
back takes about as much CPU time again. A longer one would block all other connections, including health checks."""


class Snapshot:
    """One loaded bundle, kept open while requests use it.

    Attributes:
        recommender: answers requests from the bundle.
        folder: the bundle's folder.
        search_seconds: median CPU time of a warm-up request.
        inline: whether searches are short enough for the event loop.
        subject: data of the charts; None until they are first requested.
        charting: held while charts are made, by one request at a time.
        retired: whether another bundle is served.
    """

    def __init__(self, recommender: Recommender, folder: Path, search_seconds: float) -> None:
        self.recommender = recommender
        self.folder = folder
        self.search_seconds = search_seconds
        self.inline = search_seconds <= INLINE_SECONDS and not recommender.index.remote
        self.subject: Subject | None = None
        self.charting = asyncio.Lock()
        self._holders = 0
        self.retired = False

    @classmethod
    def load(cls, folder: Path, root: Path | None = None, users: LiveUsers | None = None, log: str | None = None) -> "Snapshot":
        """Verify and load a version, check its golden requests, and warm it up.

        Args:
            folder: of the version.
            root: with the live changes of items.
            users: the live changes of users.
            log: where the changes of items are kept.

        Raises:
            RecallError: It cannot be served.
        """
        check_memory(folder, Manifest.read(folder))
        recommender = Recommender.load(folder, root=root, pause=None, users=users, log=log)
        try:
            golden.check(recommender)
            seconds = _warmed(recommender)
            with suppress(JournalError):  # answers say so
                recommender.items.refresh()  # here, on a thread, so that little is left to read on the event loop
            return cls(recommender, folder, seconds)
        except BaseException:
            recommender.close()
            raise

    def __enter__(self) -> Self:
        """Keep the bundle open until the `with` block ends."""
        self._holders += 1
        return self

    def __exit__(self, *_error: object) -> None:
        self._holders -= 1
        if self.retired:
            self._close_when_free()

    def retire(self) -> None:
        """Close the bundle as soon as no request uses it."""
        self.retired = True
        self._close_when_free()

    def _close_when_free(self) -> None:
        if self._holders == 0:
            self.recommender.close()


def _warmed(recommender: Recommender) -> float:
    """Return the median CPU seconds of some requests."""
    seconds = []
    for user_id in (None, *recommender.users.sample(20, seed=0)):
        start = time.thread_time()  # CPU time, which does not depend on the load of the machine
        recommender.recommend(Request(user_id=user_id, n=100))
        seconds.append(time.thread_time() - start)
    return median(seconds)


_LONGEST_PAUSE = 300.0  # seconds between two tries of a refused bundle: each reads all of it
_STORE_PAUSE = 5.0  # the same while its users are not in Redis, which is found before anything is read. Chosen, not tuned.

log = logging.getLogger("service")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that cannot be served; `again` is when to retry, on the loop's clock."""

    folder: Path
    reason: str
    again: float
    pause: float


class BundleSwitch:
    """Serves the live bundle, or the last good one.

    Attributes:
        settings: of the service.
        snapshot: the served bundle and its changes; None before the first bundle.
        refusal: of the live bundle, while a different one is served or none.
        meters: all metrics of the application.
    """

    def __init__(self, settings: Settings, users: LiveUsers | None = None) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: of the service.
            users: changes on top of the stored ones of every bundle, closed with it.
        """
        self.snapshot: Snapshot | None = None
        self.refusal: Refusal | None = None
        self.meters = Metrics()
        self.settings = settings
        self._users = users
        self._loading = asyncio.Lock()  # one bundle is loaded at a time
        self._unfit: dict[Path, Refusal] = {}
        without = frozenset({USERS}) if settings.exported_users == "redis" else frozenset()
        self._depot, self._depot_error = open_depot(settings.depot, without), ""
        self._users_error = ""

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """Parts that every answer lacks, or has only in part."""
        if self.refusal is None and not self._users_error and not self._depot_error:  # as for nearly all answers
            return ()
        refused = ""
        if self.snapshot is not None and self.refusal is not None:
            name = "CURRENT" if self.refusal.folder == self.settings.bundle else self.refusal.folder.name
            refused = f"{name} was refused; {self.snapshot.folder.name} is served in its place"
        reasons = (("bundle", refused), ("bundle", self._depot_error), ("users", self._users_error))
        return tuple(Degraded(part, reason) for part, reason in reasons if reason)

    def serving(self) -> Snapshot:
        """Return the served snapshot.

        Raises:
            ProblemError: Nothing is served yet; says why.
        """
        if self.snapshot is None:
            reason = self.refusal.reason if self.refusal else "The first bundle is being loaded."
            raise ProblemError(Kind.NOT_READY, reason)
        return self.snapshot

    async def follow_depot(self) -> None:
        """Synchronize the root with its depot; a failure is reported in answers."""
        if not self._depot.shared:
            return
        error = ""
        try:
            await asyncio.to_thread(activation.follow, self.settings.bundle, self._depot)
        except Exception as failed:  # what is in the root is served
            error = f"a newer version may be live: {without_paths(str(failed), self.settings.bundle)}"
        if error and error != self._depot_error:
            log.error("%s", error)
        self._depot_error = error

    async def look(self) -> None:
        """Read CURRENT once, and serve its bundle unless it was just refused.

        Where nothing is served and that bundle is refused, the last good one is served instead.
        """
        async with self._loading:
            now = asyncio.get_running_loop().time()
            root = self.settings.bundle
            try:
                folder = await asyncio.to_thread(resolve, root)
            except Exception as error:  # the watch must continue, for later bundles
                self.refusal = self._refuse(root, error, now)
            else:
                if self.snapshot is not None and self.snapshot.folder == folder:
                    self.refusal = None
                    return
                if await self._try(folder, now):
                    return
                self.refusal = self._unfit.get(folder)
            await self._fall_back(now)

    async def activate(self, name: str, expected: str | None = None) -> str:
        """Make a version of the root live: here when this returns, elsewhere soon.

        Args:
            name: of the version.
            expected: fail unless this version is live.

        Returns:
            The name of the version that was live.

        Raises:
            ProblemError: There is no such version, neither in the root nor in the depot.
            VersionMovedError: An unexpected version is live. Nothing has changed.
            RecallError: It cannot be served, or the root cannot be written. Nothing has changed.
        """
        root = self.settings.bundle
        async with self._loading:
            try:
                await asyncio.to_thread(activation.fetch_version, root, name, self._depot)
                folder = await asyncio.to_thread(activation.find, root, name)
            except BundleError as error:
                if name in await asyncio.to_thread(self._depot.versions):
                    raise  # the depot has the version, but it is damaged
                fault = FaultDocument("", without_paths(str(error), root))
                raise ProblemError(Kind.NO_VERSION, "GET /v1/models lists the versions.", [fault]) from None
            live = await asyncio.to_thread(live_name, root)
            if expected is not None and live != expected:
                raise VersionMovedError(f"version {live or 'none'} is live, and not {expected}", where=str(root))
            snapshot = self.snapshot
            if snapshot is None or snapshot.folder != folder:
                snapshot = await asyncio.to_thread(Snapshot.load, folder, root, self._users, self.settings.items)
            try:
                before = await asyncio.to_thread(activation.activate, root, name, expected, depot=self._depot)
            except BaseException:
                if snapshot is not self.snapshot:
                    snapshot.retire()
                raise
            self._unfit.pop(folder, None)
            self._serve(snapshot)
            return before

    def close(self) -> None:
        """Close the bundle and the store of users."""
        if self.snapshot is not None:
            self.snapshot.retire()
            self.snapshot = None
        if self._users is not None:
            self._users.close()

    def _on_switch(self, snapshot: Snapshot) -> None:
        """React to another bundle being served."""

    async def _try(self, folder: Path, now: float, instead_of: Refusal | None = None) -> bool:
        """Serve a version unless it is refused now, or was just before.

        Returns:
            Whether it is served.
        """
        known = self._unfit.get(folder)
        if known is not None and known.again > now:
            return False
        root = self.settings.bundle if folder != self.settings.bundle else None
        try:
            snapshot = await asyncio.to_thread(Snapshot.load, folder, root, self._users, self.settings.items)
        except Exception as error:  # a new bundle that cannot be loaded must not stop the old one
            self._refuse(folder, error, now)
            return False
        self._unfit.pop(folder, None)
        self._serve(snapshot, instead_of)
        return True

    def _serve(self, snapshot: Snapshot, instead_of: Refusal | None = None) -> None:
        """Answer from this bundle; the previous one closes after its last request."""
        previous, self.snapshot, self.refusal = self.snapshot, snapshot, instead_of
        if previous is snapshot:
            return
        items = snapshot.recommender.items
        with suppress(JournalError):  # answers say so
            items.refresh()  # changes that were acknowledged while it was being loaded
        for item_id, why in items.refused.items():
            log.warning("the last change of item %r does not fit bundle %s: %s", item_id, snapshot.folder.name, why)
        self._on_switch(snapshot)
        self.meters.swaps["fell_back" if instead_of is not None else "served"].inc()
        log.info("serving bundle %s, %.2f ms a search", snapshot.folder.name, snapshot.search_seconds * 1000)
        if previous is not None:
            previous.retire()

    async def _fall_back(self, now: float) -> None:
        """Serve the last good version if none is served; answers report it."""
        if self.snapshot is not None:
            return
        for folder in await asyncio.to_thread(activation.candidates, self.settings.bundle):
            if await self._try(folder, now, instead_of=self.refusal):
                log.error("bundle %s is served in place of the live one, which is refused", folder.name)
                return

    def _refuse(self, folder: Path, error: Exception, now: float) -> Refusal:
        known = self._unfit.get(folder)
        longest = _STORE_PAUSE if isinstance(error, StoreError) else _LONGEST_PAUSE
        pause = min(2 * known.pause, longest) if known else self.settings.poll
        text = str(error) or type(error).__name__
        reason = without_paths(text, self.settings.bundle)  # /health/ready shows it to callers without a key
        if known is None or known.reason != reason:
            expected = isinstance(error, RecallError | OSError)
            log.error("bundle %s is refused: %s", folder.name, text, exc_info=None if expected else error)
        self.meters.swaps["refused"].inc()
        self._unfit[folder] = refusal = Refusal(folder, reason, now + pause, pause)
        return refusal
