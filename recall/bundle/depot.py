"""Depot: an object store through which machines share the versions of their roots.

    live.json              name of the live version, those before it, and the last number that was given out
    versions/NAME.json     manifest of a version, written after its files
    files/SHA256           content of files, stored once for all versions that have it
    scenarios.toml         presets of requests, as the last publisher had them
    leases/NAME.json       holder and end of each task that one machine does at a time

Each machine keeps a root of its own, where versions are written, verified and mapped as without a depot. A publisher sends a
version before it makes it live; `live.json` is replaced only in the state in which it was read (a conditional put), so of two
publishers one is refused. A replica fetches only files that none of its versions has. Serving needs no depot: a replica that
cannot reach it serves what it has.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

VARIABLE = "RECALL_DEPOT"
"""Environment variable with the address of the depot."""


class Pointer(NamedTuple):
    """The live version, as the depot has it.

    Attributes:
        live: name of the live version; empty before the first.
        past: names of those before it, the latest last.
        last: last number that was given out.
        state: identifies this content for a conditional put; None when there is none.
    """

    live: str = ""
    past: tuple[str, ...] = ()
    last: int = 0
    state: str | None = None


class Depot:
    """Store through which machines share the versions of a root.

    This one, the default, shares nothing.

    Attributes:
        shared: whether there is such a place; without it, versions stay in the root.
    """

    shared = False

    def read(self) -> Pointer:
        """Return what is live. Raises PublishError."""
        return Pointer()

    def take_number(self, pointer: Pointer, least: int) -> Pointer:
        """Take a number for a new version; return the pointer with it as `last`.

        Args:
            pointer: what is live; the depot must still say so.
            least: numbers up to this one are taken in the root.

        Raises:
            VersionMovedError: Another version went live meanwhile.
            PublishError: The depot cannot be written.
        """
        return pointer._replace(last=1 + max(least, pointer.last))

    def send(self, folder: Path) -> None:
        """Store a version. Raises PublishError."""

    def send_scenarios(self, file: Path) -> None:
        """Store the presets of requests, if there are any. Raises PublishError."""

    def point_at(self, name: str, expected: Pointer, *, back: bool = False) -> None:
        """Make a version live.

        Args:
            name: of the version.
            expected: what was live; the depot must still say so.
            back: the version was live before, and later ones are forgotten.

        Raises:
            VersionMovedError: Another version went live meanwhile.
            PublishError: The depot cannot be written.
        """

    def fetch(self, name: str, to: Path, held: Mapping[tuple[str, str], Path]) -> int:  # noqa: ARG002
        """Fetch the files of a version; return the bytes that were transferred.

        Args:
            name: of the version.
            to: an empty folder.
            held: files on this machine by name and digest, which are linked in place of being fetched.

        Raises:
            BundleError: There is no such version, or its files are not what the manifest says.
            PublishError: The depot cannot be read.
        """
        return 0

    def fetch_scenarios(self, file: Path) -> None:
        """Bring the presets of requests, if the file has other ones. Raises PublishError."""

    def prune(self, keep: int) -> None:
        """Remove old versions, and files that none has. Raises PublishError."""

    def versions(self) -> list[str]:
        """Return the names of all versions. Raises PublishError."""
        return []

    def remove(self, name: str, files: Sequence[str]) -> None:
        """Remove a version at once, and some of its files; `prune` removes the others.

        Args:
            name: of the version, which is not live.
            files: names of files, whose content is removed unless another version has it.

        Raises:
            PublishError: The depot cannot be written.
        """

    def lease(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """Hold what one machine does at a time.

        Raises:
            PublishBusyError: Another machine holds it.
        """
        return nullcontext()
