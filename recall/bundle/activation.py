"""List versions, activate one, follow a depot, or choose one to fall back to."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from recall._file_system import fsync, locked, make_folder
from recall.bundle.depot import Depot
from recall.bundle.manifest import Manifest
from recall.bundle.versions import (
    CURRENT,
    HISTORY,
    LOCK,
    PUBLISHING,
    SCENARIOS,
    VERSION,
    VERSIONS,
    live_name,
    number,
    open_depot,
    past,
    remove,
    set_live,
    shared_pointer,
    staging,
    versions,
    write_lines,
)
from recall.errors import BundleError, PublishBusyError, PublishError, VersionMovedError, did_you_mean, raising

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Pattern of names that are accepted for a version."""
_FOLLOWING = ".following"
_KEPT = 3  # formerly live versions that a root keeps when it follows a depot


@dataclass(frozen=True, slots=True)
class Version:
    """A published version.

    Attributes:
        folder: its folder, whose name is that of the version.
        live: whether it is the live version.
        manifest: its manifest; None if it cannot be read.
        fault: why the manifest cannot be read; empty if it can.
    """

    folder: Path
    live: bool
    manifest: Manifest | None
    fault: str = ""

    @property
    def size(self) -> int:
        """Size of its files in bytes, according to the manifest."""
        return sum(entry.bytes for entry in self.manifest.files.values()) if self.manifest is not None else 0


def list_versions(root: Path) -> list[Version]:
    """Return all versions of a root with their manifests, newest first, without links."""
    live = live_name(root)
    return [_version(folder, live) for folder in reversed(versions(root)) if not folder.is_symlink()]


def find(root: Path, name: str) -> Path:
    """Return the folder of a version.

    Args:
        root: root of published versions.
        name: name of the version.

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
        hint = did_you_mean(name, known) if known else "Give the folder that bundles are published to"
        raise BundleError(f"there is no version {name}", where=str(root), hint=hint)
    return folder


def previous(root: Path) -> Path:
    """Return the version that was live before the current one.

    Raises:
        BundleError: No other version is left.
    """
    for name in _formerly_live(root):
        return root / VERSIONS / name
    raise BundleError("there is no version to go back to", where=str(root), hint="`recall versions` lists those that there are")


def activate(root: Path, name: str, expected: str | None = None, wait: float = 10.0, depot: Depot | None = None) -> str:
    """Make a version live; the caller has verified it and holds it open.

    Args:
        root: root of published versions.
        name: name of the version.
        expected: fail unless the version with this name is live.
        wait: seconds to wait for the lock of a publisher.
        depot: depot that shares the root; by default, the depot of the environment.

    Returns:
        Name of the version that was live before; empty if none was.

    Raises:
        BundleError: As `find`.
        VersionMovedError: A different version is live than expected.
        PublishBusyError: A publisher held the lock for the whole wait.
        PublishError: Writing failed; the live version does not change.
    """
    depot = open_depot() if depot is None else depot
    fetch_version(root, name, depot)
    folder = find(root, name)
    failure = raising(PublishError, "the live version could not be changed", where=str(root), hint="What was live stays live")
    with failure, locked(root / LOCK, wait, PUBLISHING):
        pointer = shared_pointer(root, depot)
        live = pointer.live if depot.shared else live_name(root)
        if expected is not None and live != expected:
            raise VersionMovedError(
                f"version {live or 'none'} is live, and not {expected}", where=str(root / CURRENT), hint="Look again"
            )
        back = name in _formerly_live(root)[:1]
        if live != name:
            depot.send(folder)
            depot.set_live(name, pointer, back=back)
        if live_name(root) != name:
            set_live(root, name, back=back)
    return live


def fetch_version(root: Path, name: str, depot: Depot) -> int:
    """Download a version that a root lacks from a depot; return the bytes transferred.

    Args:
        root: root of published versions.
        name: name of the version.
        depot: depot with the version.

    Raises:
        BundleError: There is no such version, or its files do not match its manifest.
        PublishError: The depot does not answer, or writing failed.
    """
    if not depot.shared or (root / VERSIONS / name).is_dir():
        return 0
    if not VERSION.fullmatch(name):
        raise BundleError(f"{name[:80]!r} is not a name of a version", where=str(root))
    local: dict[tuple[str, str], Path] = {}
    for folder in versions(root):
        with suppress(BundleError):
            own = Manifest.read(folder).files.items()
            local |= {(file, entry.sha256): folder / file for file, entry in own if (folder / file).exists()}
    with staging(root) as staged, raising(PublishError, "the version could not be fetched", where=str(root)):
        transferred = depot.fetch(name, staged, local)
        for path in staged.iterdir():
            fsync(path)
        fsync(staged)
        with locked(root / LOCK, 10.0, PUBLISHING):
            if not (root / VERSIONS / name).is_dir():  # else another process was faster
                staged.rename(root / VERSIONS / name)
                fsync(root / VERSIONS)
    return transferred


def follow(root: Path, depot: Depot) -> None:
    """Download and activate a depot's live version, and download request presets.

    Versions that were live some time ago are removed from the root, unless a process has them open.

    Args:
        root: root of published versions.
        depot: depot that shares the root.

    Raises:
        BundleError: As `fetch_version`; the live version does not change.
        PublishError: As `fetch_version`; the live version does not change.
    """
    pointer = depot.read()
    if not pointer.live:
        return
    with raising(PublishError, "the live version could not be changed", where=str(root)):
        make_folder(root)
        with suppress(PublishBusyError), locked(root / _FOLLOWING, 0.0, "another process of this machine follows the depot"):
            fetch_version(root, pointer.live, depot)
            depot.fetch_scenarios(root / SCENARIOS)
            if live_name(root) != pointer.live:
                with locked(root / LOCK, 10.0, PUBLISHING):
                    write_lines(root, HISTORY, [*pointer.past, pointer.live])
                    write_lines(root, CURRENT, [pointer.live])
                    for name in set(pointer.past) - {*pointer.past[-_KEPT:], pointer.live}:
                        remove(root / VERSIONS / name, keep_index=True)


def candidates(root: Path) -> list[Path]:
    """Return versions to fall back to: formerly live ones, latest first, then others.

    Versions newer than the live one are left out: they are about to become live, or were rolled back.
    """
    live, former = live_name(root), _formerly_live(root)
    others = [folder.name for folder in reversed(versions(root)) if folder.name not in (*former, live)]
    older = [name for name in others if not live or number(name) < number(live)]
    return [root / VERSIONS / name for name in (*former, *older) if not (root / VERSIONS / name).is_symlink()]


def _formerly_live(root: Path) -> list[str]:
    """Return the existing formerly live versions, latest first."""
    folders = (root / VERSIONS / name for name in reversed(past(root)))
    return [folder.name for folder in folders if folder.is_dir() and not folder.is_symlink()]


def _version(folder: Path, live: str) -> Version:
    try:
        return Version(folder, folder.name == live, Manifest.read(folder))
    except BundleError as error:
        return Version(folder, folder.name == live, None, str(error))
