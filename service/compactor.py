"""Publishing a catalogue anew when much of it has changed: in a process of its own, which may die without harm."""

import asyncio
import logging
import sys
from pathlib import Path

_REST = 60.0  # seconds from the end of one run to the next: the new version takes a moment to be served
_COMMAND = "import os; os.nice(10); from recall.cli import main; main()"  # requests come first

log = logging.getLogger("service")


class Compactor:
    """Runs `recall compact` over one root, one run at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._again = 0.0

    async def start(self) -> None:
        """Begin, unless a run goes on or has just ended."""
        if self._watching is not None or asyncio.get_running_loop().time() < self._again:
            return
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _COMMAND, "compact", str(self._root)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        log.info("much of the catalogue has changed: it is published anew")
        self._watching = asyncio.create_task(self._watch(self._process))

    def close(self) -> None:
        """Stop a run; what was live stays live."""
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        _, said = await process.communicate()
        if process.returncode:
            log.error("the catalogue was not published anew: %s", said.decode(errors="replace").strip())
        self._again = asyncio.get_running_loop().time() + _REST
        self._watching = None
