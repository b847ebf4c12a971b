"""Start and stop of one worker; the server supervises them.

Workers that share a folder for metrics (see `service.metrics`) coordinate through two files in it. The first worker listens at
once, so that health checks are answered while the first bundle loads. The others, and restarted ones, listen when they have
loaded it, so that no request reaches a worker without a bundle while others have one.
"""

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from threadpoolctl import threadpool_limits

from recall._file_system import try_lock
from service.live import Live
from service.metrics import FOLDER

_PAUSE = 0.02  # seconds
_LONGEST = 60.0
"""Seconds after which a worker that cannot load the live bundle listens anyway: the others may be gone."""
_SWITCH = 0.0005
"""Seconds that a thread may keep the interpreter from the event loop, 0.005 by default: changes are encoded beside searches."""
_YOUNG = 20_000
"""Objects between two collections of the youngest generation; those of a request are freed by reference counts."""


async def wait_for_bundle(live: Live) -> None:
    """Return when this worker may listen."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        if multiprocessing.parent_process() is not None:  # one of several, without a shared folder
            await live.wait_for_first_look()
        return
    loaded = Path(folder, "loaded")
    first = try_lock(Path(folder, "first")) is not None
    if first and not loaded.exists():
        live.tasks.append(asyncio.create_task(_announce(live, loaded)))
        return
    await live.wait_for_first_look()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST):
            while not live.draining and (live.snapshot is None or not loaded.exists()):
                if not loaded.exists() and try_lock(Path(folder, "first")) is not None:  # the first worker died while it loaded
                    await _announce(live, loaded)
                await asyncio.sleep(_PAUSE)


async def tune_interpreter(live: Live) -> None:
    """Tune the process for short latencies, once the first bundle is loaded.

    Long-lived objects are exempt from garbage collection, as a full collection takes 0.1 s. The event loop gets the interpreter
    sooner. Linear algebra uses one thread: threads of OpenBLAS spin while they wait, and take the processor from searches.
    """
    await live.wait_for_first_look()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    sys.setswitchinterval(_SWITCH)
    threadpool_limits(1, user_api="blas")


@contextmanager
def lame_duck(live: Live, seconds: float) -> Iterator[None]:
    """Keep answering for some seconds after SIGTERM, not ready; then stop the server.

    A load balancer needs that time to notice. A second SIGTERM, and SIGINT, skip it. A worker whose supervisor is gone stops in
    the same way.

    Args:
        live: is set to draining.
        seconds: how long.

    Raises:
        SystemExit: The second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, handler = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def on_signal(number: int, frame: FrameType | None) -> None:
        first, live.draining = not live.draining, True
        if not callable(handler):
            raise SystemExit(0)
        if first:
            loop.call_soon_threadsafe(loop.call_later, seconds, handler, number, None)
        else:
            handler(number, frame)

    def on_orphaned(sentinel: int) -> None:
        loop.remove_reader(sentinel)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_signal)
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, on_orphaned, parent.sentinel)
    yield


async def _announce(live: Live, loaded: Path) -> None:
    await live.wait_for_first_look()
    loaded.touch()
