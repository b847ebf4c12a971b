"""List versions, make one live, or find the one to fall back to."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from recall._fsync import fsync, make_folder
from recall.bundle.depot import Depot
from recall.bundle.locks import locked
from recall.bundle.manifest import Manifest
from recall.bundle.versions import (
    CURRENT,
    HISTORY,
    LOCK,
    PUBLISHING,
    SCENARIOS,
    STAGING,
    VERSION,
    VERSIONS,
    live_name,
    number,
    open_depot,
    past,
    point_at,
    remove,
    shared_pointer,
    staging,
    versions,
    write_lines,
)
from recall.errors import BundleError, PublishBusyError, PublishError, VersionMovedError, did_you_mean, raising

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Pattern of names that are accepted for a version."""
_FOLLOWING = ".following"
_KEPT = 3  # versions that were live last stay in a root that follows a depot


@dataclass(frozen=True, slots=True)
class Version:
    """One published version.

    Attributes:
        folder: path of the folder; its name is the version's.
        live: whether CURRENT names it.
        manifest: what is known about it; None when it cannot be read.
        fault: why it cannot.
    """

    folder: Path
    live: bool
    manifest: Manifest | None
    fault: str = ""

    @property
    def size(self) -> int:
        """Bytes of its files, as the manifest has them."""
        return sum(entry.bytes for entry in self.manifest.files.values()) if self.manifest is not None else 0


def listed(root: Path) -> list[Version]:
    """Return all versions of a root, newest first, by reading their manifests.

    Links do not count.
    """
    live = live_name(root)
    return [_version(folder, live) for folder in reversed(versions(root)) if not folder.is_symlink()]


def find(root: Path, name: str) -> Path:
    """Return the folder of a version.

    Args:
        root: the folder of versions.
        name: of the version.

    Raises:
        BundleError: The name is invalid, or there is no such version.
    """
    if not NAME.fullmatch(name):
        raise BundleError(
            "invalid name of a version", where=str(root), hint="A name has letters, digits and . _ -, at most 64 of them"
        )
    folder = root / VERSIONS / name
    known = [one.name for one in versions(root)]
    if name not in known or folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"there is no version {name}", where=str(root), hint=did_you_mean(name, known))
    return folder


def previous(root: Path) -> Path:
    """Return the version that was live before the current one.

    Raises:
        BundleError: No other version is left.
    """
    for name in _lived(root):
        return root / VERSIONS / name
    raise BundleError("there is no version to go back to", where=str(root), hint="`recall versions` lists those that there are")


def activate(root: Path, name: str, expected: str | None = None, wait: float = 10.0, depot: Depot | None = None) -> str:
    """Make a version live; the caller has verified it and holds it open.

    Args:
        root: the folder of versions.
        name: of the version.
        expected: fail unless this version is live.
        wait: seconds to wait for a publisher to finish.
        depot: through which the root is shared; by default the one of the environment.

    Returns:
        The name of the version that was live; empty when none was.

    Raises:
        BundleError: As `find`.
        VersionMovedError: Another version is live than was expected.
        PublishBusyError: A publisher held the lock for the whole wait.
        PublishError: The file system refused; what was live stays live.
    """
    depot = open_depot() if depot is None else depot
    bring(root, name, depot)
    folder = find(root, name)
    failure = raising(PublishError, "the live version could not be changed", where=str(root), hint="What was live stays live")
    with failure, locked(root / LOCK, wait, PUBLISHING):
        pointer = shared_pointer(root, depot)
        live = pointer.live if depot.shared else live_name(root)
        if expected is not None and live != expected:
            raise VersionMovedError(
                f"version {live or 'none'} is live, and not {expected}", where=str(root / CURRENT), hint="Look again"
            )
        back = name in _lived(root)[:1]
        if live != name:
            depot.send(folder)
            depot.point_at(name, pointer, back=back)
        if live_name(root) != name:
            point_at(root, name, back=back)
    return live


def bring(root: Path, name: str, depot: Depot) -> int:
    """Bring a version from a depot into a root; return the bytes transferred.

    Args:
        root: the folder of versions.
        name: of the version.
        depot: that has it.

    Raises:
        BundleError: There is no such version, or its files are not what its manifest says.
        PublishError: The depot does not answer, or the file system refused.
    """
    if not depot.shared or (root / VERSIONS / name).is_dir():
        return 0
    if not VERSION.fullmatch(name):
        raise BundleError(f"{name[:80]!r} is not a name of a version", where=str(root))
    held: dict[tuple[str, str], Path] = {}
    for folder in versions(root):
        with suppress(BundleError):
            held |= {(file, entry.sha256): folder / file for file, entry in Manifest.read(folder).files.items()}
    with staging(root) as made, raising(PublishError, "the version could not be fetched", where=str(root)):
        moved = depot.fetch(name, made, held)
        for path in made.iterdir():
            fsync(path)
        fsync(made)
        with locked(root / LOCK, 10.0, PUBLISHING):
            if not (root / VERSIONS / name).is_dir():  # else another process was faster
                made.rename(root / VERSIONS / name)
                fsync(root / VERSIONS)
    return moved


def follow(root: Path, depot: Depot) -> None:
    """Make live in a root what its depot says, and bring the presets of requests.

    Versions that have not been live lately are removed from the root, unless a process holds them.

    Args:
        root: the folder of versions.
        depot: of the root.

    Raises:
        BundleError: As `bring`; what was live stays live.
        PublishError: As `bring`; what was live stays live.
    """
    pointer = depot.read()
    if not pointer.live:
        return
    with raising(PublishError, "the live version could not be changed", where=str(root)):
        make_folder(root)
        with suppress(PublishBusyError), locked(root / _FOLLOWING, 0.0, "another process of this machine follows the depot"):
            bring(root, pointer.live, depot)
            depot.fetch_scenarios(root / SCENARIOS)
            if live_name(root) != pointer.live:
                with locked(root / LOCK, 10.0, PUBLISHING):
                    write_lines(root, HISTORY, [*pointer.past, pointer.live])
                    write_lines(root, CURRENT, [pointer.live])
                    for name in set(pointer.past) - {*pointer.past[-_KEPT:], pointer.live}:
                        remove(root / VERSIONS / name, root / STAGING, shared=True)


def candidates(root: Path) -> list[Path]:
    """Return versions to fall back to: formerly live ones, latest first, then others.

    Versions newer than the live one are left out: they are about to become live, or were rolled back.
    """
    live, lived = live_name(root), _lived(root)
    rest = [one.name for one in reversed(versions(root)) if one.name not in lived and one.name != live]
    older = [name for name in rest if not live or number(name) < number(live)]
    return [root / VERSIONS / name for name in (*lived, *older) if not (root / VERSIONS / name).is_symlink()]


def _lived(root: Path) -> list[str]:
    """Versions that were live before the one that is, and are there, the latest first."""
    folders = (root / VERSIONS / name for name in reversed(past(root)))
    return [folder.name for folder in folders if folder.is_dir() and not folder.is_symlink()]


def _version(folder: Path, live: str) -> Version:
    try:
        return Version(folder, folder.name == live, Manifest.read(folder))
    except BundleError as error:
        return Version(folder, folder.name == live, None, str(error))
