"""When one of several workers begins to listen: one at once, the others when they can serve and that one can too.

The kernel shares connections among all that listen, so nobody is to reach a worker that has nothing to serve while others
have. But where nobody listens, nobody can be told to come back: the first one does that. A worker that is started anew and
cannot serve what is live, while others still serve it, listens only when they are gone.
"""

import asyncio

from service.live import Live
from service.metrics.pulse import others_listen, others_load
from service.starting import Place

_PAUSE = 0.02  # seconds


async def join(live: Live, place: Place) -> "list[asyncio.Task[None]]":
    """Wait until this worker is to listen; gives what is to be done while it does."""
    if place.first:
        live.meters.loading.set(1.0)
        if not others_listen(live.meters):
            live.meters.listening.set(1.0)
            return [asyncio.create_task(_settle(live))]
        await _settle(live)  # another one was so much faster that it serves already
    await live.settled()
    while not live.draining and (others_load(live.meters) or (live.snapshot is None and others_listen(live.meters))):
        await asyncio.sleep(_PAUSE)
    live.meters.listening.set(1.0)
    return []


async def _settle(live: Live) -> None:
    await live.settled()
    live.meters.loading.set(0.0)
