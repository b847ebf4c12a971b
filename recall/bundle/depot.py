"""Depot: an object store through which machines share the versions of their roots.

    live.json              names of the live version and of former ones, and the last sequence assigned
    versions/NAME.json     manifest of a version, written after its files
    files/SHA256           content of files, stored once for all versions that have it
    scenarios.toml         presets of requests of the last publisher
    leases/NAME.json       holder and expiry of a task that one machine runs at a time

Each machine has its own root, where versions are written, verified and mapped as without a depot. A publisher uploads a
version before it makes it live; `live.json` is replaced by a conditional put, so one of two concurrent publishers is refused. A
replica downloads only files that its versions lack. Serving does not need the depot: a replica that cannot reach it
serves the versions it has.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

VARIABLE = "RECALL_DEPOT"
"""Environment variable with the address of the depot."""


class Pointer(NamedTuple):
    """Content of `live.json`.

    Attributes:
        live: name of the live version; empty before the first.
        past: names of formerly live versions, latest last.
        last: last sequence assigned.
        state: tag of the object for a conditional put; None if there is no object.
    """

    live: str = ""
    past: tuple[str, ...] = ()
    last: int = 0
    state: str | None = None


def before_last(names: Sequence[str], name: str) -> list[str]:
    """Return the names before the last occurrence of one of them.

    Args:
        names: names of versions.
        name: one of them.
    """
    return list(names[: len(names) - 1 - names[::-1].index(name)])


def past_after(past: Sequence[str], live: str, name: str, *, back: bool) -> list[str]:
    """Return the names of formerly live versions after another version became live.

    Args:
        past: names of formerly live versions before, latest last.
        live: name of the version that was live before; empty if none was.
        name: name of the version that became live.
        back: roll back: later entries than that of the version are dropped.
    """
    if back:
        return before_last(past, name)
    return [*past, live] if live else [*past]


class Depot:
    """Interface of a depot, and the default without one, which shares nothing.

    Attributes:
        shared: whether versions are shared; False for the default.
    """

    shared = False

    def read(self) -> Pointer:
        """Return the current pointer. Raises PublishError."""
        return Pointer()

    def reserve_number(self, pointer: Pointer, least: int) -> Pointer:
        """Reserve a sequence for a new version; return the pointer with it as `last`.

        Args:
            pointer: expected pointer of the depot.
            least: sequences up to this one are used in the root.

        Raises:
            VersionMovedError: Another version went live meanwhile.
            PublishError: The depot cannot be written.
        """
        return pointer._replace(last=1 + max(least, pointer.last))

    def send(self, folder: Path) -> None:
        """Upload a version. Raises PublishError."""

    def send_scenarios(self, file: Path) -> None:
        """Upload the request presets, if there are any. Raises PublishError."""

    def set_live(self, name: str, expected: Pointer, *, back: bool = False) -> None:
        """Make a version live.

        Args:
            name: name of the version.
            expected: expected pointer of the depot.
            back: roll back: the version was live before, and later entries of `past` are dropped.

        Raises:
            VersionMovedError: Another version went live meanwhile.
            PublishError: The depot cannot be written.
        """

    def fetch(self, name: str, to: Path, local: Mapping[tuple[str, str], Path]) -> int:  # noqa: ARG002
        """Download the files of a version; return the bytes transferred.

        Args:
            name: name of the version.
            to: an empty folder.
            local: files on this machine by name and digest, which are linked instead of downloaded.

        Raises:
            BundleError: There is no such version, or its files do not match the manifest.
            PublishError: The depot cannot be read.
        """
        return 0

    def fetch_scenarios(self, file: Path) -> None:
        """Download the request presets if they differ from the file. Raises PublishError."""

    def prune(self, keep: int) -> None:
        """Remove old versions, and files that no version uses. Raises PublishError."""

    def versions(self) -> list[str]:
        """Return the names of all versions. Raises PublishError."""
        return []

    def remove(self, name: str, files: Sequence[str]) -> None:
        """Remove a version and some of its files at once; `prune` removes the others.

        Args:
            name: name of the version, which is not live.
            files: names of files to remove unless another version has the same content.

        Raises:
            PublishError: The depot cannot be written.
        """

    def digests(self, name: str) -> dict[str, str]:  # noqa: ARG002
        """Return the SHA-256 of a version's files; none if it was removed.

        Raises:
            PublishError: The depot cannot be read.
        """
        return {}

    def lease(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Hold a lease on a task that one machine runs at a time.

        Raises:
            PublishBusyError: Another machine holds it.
        """
        return nullcontext()
