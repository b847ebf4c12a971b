"""Measure the recall of the index: answer a sample of the requests again, exactly."""

import asyncio
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from recall import Recommendations, Recommender, Request
from recall.serving.query import needs_reranking
from service.bundles import Snapshot
from service.metrics import Metrics

_NICENESS = 5  # with a greater one, it might get no processor while it holds the interpreter's lock


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
        self._pool = ThreadPoolExecutor(1, "shadow", initializer=_yield_to_others)

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


def _yield_to_others() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
