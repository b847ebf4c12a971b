"""Whether there is memory for a bundle, asked before any of it is read.

Its files are mapped, so that what is served lies in memory that processes share and that the system can take back; but one
that does not fit would be read from the disk for every request, and what is not mapped would end the process.
"""

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from recall.bundle.manifest import Manifest
from recall.errors import BundleError

_MEMORY = Path("/proc/meminfo")
_OWN = Path("/proc/self/statm")
_GROUPS = Path("/sys/fs/cgroup")  # as a container sees its own


def check_memory(folder: Path, manifest: Manifest) -> None:
    """Check that the files of a bundle fit into the available memory.

    Args:
        folder: of the bundle.
        manifest: with their sizes.

    Raises:
        BundleError: They do not; gives both figures.
    """
    needed, there = sum(entry.bytes for entry in manifest.files.values()), available()
    if there is not None and needed > there:
        raise BundleError(
            f"the bundle needs {needed:,} bytes of memory, and {there:,} are available",
            where=str(folder),
            hint="Serve it on a machine with more memory, or give the process a higher limit",
        )


def available() -> int | None:
    """Return the bytes that this process may still allocate; None where unknown.

    It is the least of the limits of machine, control groups and process.
    """
    return min((max(limit, 0) for limit in _limits()), default=None)


def _limits() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, KeyError):
        most = (_GROUPS / "memory.max").read_text(encoding="ascii").strip()
        if most != "max":
            yield int(most) - int((_GROUPS / "memory.current").read_text(encoding="ascii")) + _cached()
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError, ValueError):
        if soft != resource.RLIM_INFINITY:
            yield soft - int(_OWN.read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _cached() -> int:
    """Return the bytes of the page cache that count as used and can be reclaimed.

    They include the files of the bundle that is served now.
    """
    lines = (_GROUPS / "memory.stat").read_text(encoding="ascii").splitlines()
    parts = dict(line.split(" ", 1) for line in lines)
    return int(parts["inactive_file"]) + int(parts["active_file"])
