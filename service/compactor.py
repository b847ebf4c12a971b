"""Compact a changed catalogue in a separate process, which may fail without harm."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from recall.bundle.locks import try_lock
from recall.store.items.log import VARIABLE

_REST = 60.0  # seconds between two runs: the new version must be served first
_ASK_AGAIN = 5.0  # seconds between two checks whether another process still does it
_LOCK = ".compactor"
_COMMAND = "import os; os.nice(10); from recall.cli import main; main()"  # requests have priority

log = logging.getLogger("service")


class Compactor:
    """Runs `recall compact` on one root, in one process at a time."""

    def __init__(self, root: Path, items: str) -> None:
        """Prepare.

        Args:
            root: of published versions.
            items: where the changes of items are kept.
        """
        self._root, self._items = root, items
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._again = 0.0
        self._lock: int | None = None

    async def start(self) -> bool:
        """Start a run unless one is active or has just ended; return whether it started."""
        if self._watching is not None or asyncio.get_running_loop().time() < self._again:
            return False
        if not self._locked():
            self._again = asyncio.get_running_loop().time() + _ASK_AGAIN
            return False
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _COMMAND, "compact", str(self._root)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, VARIABLE: self._items},
        )
        log.info("much of the catalogue has changed: compacting it")
        self._watching = asyncio.create_task(self._watch(self._process))
        return True

    def close(self) -> None:
        """Stop a run; the live version stays live."""
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
        self._unlock()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        _, said = await process.communicate()
        if process.returncode:
            log.error("the catalogue was not compacted: %s", said.decode(errors="replace").strip())
        loop = asyncio.get_running_loop()
        self._again = loop.time() + _REST
        loop.call_later(_REST, self._unlock)  # other processes wait as long, and then find nothing to do
        self._watching = None

    def _locked(self) -> bool:
        """Return whether this process has the lock, which the kernel frees when it ends."""
        if self._lock is None:
            try:
                self._lock = try_lock(self._root / _LOCK)
            except OSError as error:
                log.error("the catalogue cannot be compacted: %s", error)
        return self._lock is not None

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
