"""Recall as it is now: a few requests are answered once more, by the index as it is and exactly, and the lists are compared.

It is done off the path, on a thread that gives way to others, and one request at a time: one that is drawn while another is
compared, or while others wait for their turn, is dropped, and counted. Drawn are only requests whose list the index alone
decides.
"""

import asyncio
import math
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.response import Recommendations
from service.bundles import Snapshot
from service.metrics import Metrics

_PATIENT = 5  # niceness; with a greater one, it might be kept from the processor while it holds the interpreter's lock


class Shadow:
    """Draws requests, and compares."""

    def __init__(self, meters: Metrics, share: float, busy: Callable[[], bool]) -> None:
        """Nothing is started.

        Args:
            meters: to count with.
            share: of the requests that are compared, 0 to 1.
            busy: whether there is more to do than can be done.
        """
        self._busy = busy
        self._meters = meters
        self._share = share
        self._random = random.Random()  # noqa: S311 - nothing is to be kept from anybody
        self._left = self._gap()
        self._task: asyncio.Task[None] | None = None
        self._pool = ThreadPoolExecutor(1, "shadow", initializer=_yield_to_others)

    def offer(self, request: Request, answer: Recommendations, snapshot: Snapshot) -> None:
        """A request was answered; it may be drawn. Called on the event loop, and done at once."""
        self._left -= 1
        if self._left >= 0:
            return
        self._left = self._gap()
        if answer.exact or request.shaped:
            return
        if self._task is not None or self._busy():
            self._meters.compared["dropped"].inc()
            return
        held = ExitStack()
        held.enter_context(snapshot.held())  # from now on: the task begins later
        self._task = asyncio.get_running_loop().create_task(self._compare(request, snapshot, held))

    def close(self) -> None:
        """Wait for the request that is being compared."""
        self._pool.shutdown(cancel_futures=True)

    async def _compare(self, request: Request, snapshot: Snapshot, held: ExitStack) -> None:
        try:
            with held:
                loop = asyncio.get_running_loop()
                share = await loop.run_in_executor(self._pool, _share, snapshot.recommender, request)
            if not snapshot.retired:
                self._meters.sampled(share)
            self._meters.compared["compared"].inc()
        except Exception:  # what it was answered with stands; nobody waits for this
            self._meters.compared["failed"].inc()
        finally:
            self._task = None

    def _gap(self) -> int:
        """Requests to let pass before the next one is drawn: of each, the chance is the same."""
        if self._share <= 0:
            return 1 << 62
        if self._share >= 1:
            return 0
        return int(math.log(1.0 - self._random.random()) / math.log1p(-self._share))


def _share(recommender: Recommender, request: Request) -> float:
    found = set(recommender.recommend(request).ids)
    exact = recommender.recommend(request, surely=True).ids
    return len(found.intersection(exact)) / len(exact) if exact else 1.0


def _yield_to_others() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _PATIENT)
