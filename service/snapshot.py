"""One loaded bundle, from the moment that it is fit to be served until nobody needs it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from recall.bundle.manifest import Manifest
from recall.bundle.memory import check_room
from recall.publish import golden
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.users.base import LiveUsers

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
        """Verify, load, ask golden requests and warm up; live changes in `root`, and of `users`, lie on top.

        Raises RecallError when it is not fit to be served.
        """
        check_room(folder, Manifest.read(folder))
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
