"""Signs of life: each worker leaves one in its row once a second, for whoever watches it and for the other workers."""

import asyncio
import os
import time

from service.metrics.instruments import Rows
from service.metrics.meters import Meters

BEAT = 1.0
"""Seconds between two signs of life."""


async def beat(meters: Meters) -> None:
    """Leave a sign of life for ever, each time that the event loop comes round to it."""
    while True:
        meters.beat.set(time.monotonic())
        await asyncio.sleep(BEAT)


def others_load(meters: Meters) -> bool:
    """Whether another worker listens that has nothing to serve yet."""
    return _others(meters, meters.loading.at)


def others_listen(meters: Meters) -> bool:
    """Return whether another worker listens."""
    return _others(meters, meters.listening.at)


def _others(meters: Meters, at: int) -> bool:
    """Whether a number is set in the row of another worker that is alive."""
    own = os.getpid()
    for row in meters.rows.all:
        pid = int(row[meters.pid.at])
        if row[at] and pid != own and os.path.exists(f"/proc/{pid}"):
            return True
    return False


class Pulses:
    """What whoever watches the workers reads in their rows, and writes there."""

    def __init__(self, workers: int, descriptor: int) -> None:
        """Map the rows.

        Args:
            workers: how many there are.
            descriptor: of their rows, as `Meters.shared` makes it.
        """
        meters = Meters()
        self._beat, self._restarts = meters.beat.at, {reason: one.at for reason, one in meters.restarts.items()}
        self._rows = Rows(meters.layout.width, workers, descriptor).all

    def last(self, number: int) -> float:
        """When a worker left its last sign of life, on the monotonic clock; 0.0 before its first."""
        return self._rows[number][self._beat]

    def begin(self, number: int) -> None:
        """Forget the signs of a worker that is gone."""
        self._rows[number][self._beat] = 0.0

    def restarted(self, number: int, reason: str) -> None:
        """Count that a worker had to be started anew; only the watcher writes this number of its row."""
        self._rows[number][self._restarts[reason]] += 1.0
