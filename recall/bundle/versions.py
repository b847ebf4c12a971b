"""Publish bundles atomically: a reader sees the old version or the new one.

    root/versions/000007-5be1c2aa/    a bundle; immutable once it has this name
    root/staging/<random>/            a bundle being written, flocked by the process that writes it
    root/CURRENT                      the name of the live version, replaced by rename
    root/HISTORY                      the names of former live versions, the oldest first, and the live one
    root/.lock                        flocked while a publisher reserves a number and renames its folder
    root/scenarios.toml               named presets of requests, written by an operator
    root/evaluations/000007-5be1c2aa.json    result of `recall evaluate --keep` for a version
    root/.token-key                   secret that signs page tokens and recommendation ids

A bundle is staged on the same file system, every file and folder is fsynced, the folder is renamed into `versions`, and
only then does CURRENT change. The kernel frees a dead publisher's locks, and the next publisher removes what it left.
"""

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recall._file_system import descriptor, flock, fsync, locked, make_folder
from recall.bundle.depot import VARIABLE as DEPOT
from recall.bundle.depot import Depot, Pointer, before_last, past_after
from recall.bundle.manifest import MANIFEST, Manifest
from recall.errors import BundleError, ConfigError, IndexFileError, PublishError, VersionMovedError, raising

CURRENT = "CURRENT"
HISTORY = "HISTORY"
VERSIONS = "versions"
STAGING = "staging"
LOCK = ".lock"
EVALUATIONS = "evaluations"
SCENARIOS = "scenarios.toml"
KEY_FILE = ".token-key"
PUBLISHING = "another process is publishing"
VERSION = re.compile(r"[0-9]{6,12}-[0-9a-f]{8}")
"""Pattern of the whole name of a published version."""
_MAX_HISTORY = 100  # names kept in HISTORY


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of `root`; it is removed at the end.

    This also removes staged folders of publishers that died.

    Raises:
        PublishError: The folder cannot be created.
    """
    with raising(PublishError, "no folder to write the bundle into", where=str(root)):
        make_folder(root)
        (root / STAGING).mkdir(exist_ok=True)
        (root / VERSIONS).mkdir(exist_ok=True)
        with locked(root / LOCK, 10.0, PUBLISHING):
            clear_leftovers(root)
            folder = root / STAGING / secrets.token_hex(8)
            folder.mkdir()
            holder = os.open(folder, os.O_RDONLY)
            fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(holder)


def publish(
    staged: Path,
    root: Path,
    expected: int | None = None,
    wait: float = 10.0,
    keep: int | None = None,
    activate: bool = True,
) -> Path:
    """Make a staged bundle a version, and the live one.

    Args:
        staged: a folder from `staging(root)` with a whole bundle; it is moved away.
        root: root of published versions.
        expected: publish only if the version with this sequence is still live, for a bundle that was made from it.
        wait: seconds to wait for another publisher to finish.
        keep: keep this many of the newest versions, as many of those that were live last, and open ones; None removes nothing.
        activate: make it live; if False, `activation.activate` may do so later.

    Returns:
        The folder of the new version.

    Raises:
        PublishBusyError: Another publisher held the lock for the whole wait.
        VersionMovedError: Another version went live meanwhile; what was live stays live.
        PublishError: Writing failed; what was live stays live.
    """
    with raising(PublishError, "the bundle could not be put in place", where=str(root), hint="What was live stays live"):
        readable = staged.stat().st_mode & 0o666
        for path in sorted(staged.iterdir()):
            path.chmod(readable)  # safetensors keeps its files to their owner, but a server may run as another user
            fsync(path)
        with locked(root / LOCK, wait, PUBLISHING):
            depot = open_depot()
            pointer = shared_pointer(root, depot)
            if pointer.live and live_name(root) not in (pointer.live, *pointer.past):
                raise VersionMovedError(
                    f"version {pointer.live} is live in the depot, and this folder has never followed it",
                    where=str(root),
                    hint="Name another depot; or synchronize the folder with `recall versions`, and start again",
                )
            live = number(pointer.live or resolve(root).name) if pointer.live or (root / CURRENT).exists() else 0
            if expected is not None and live != expected:
                raise VersionMovedError(
                    f"version {live} went live while a bundle was made from version {expected}",
                    where=str(root),
                    hint="Start again from the live version",
                )
            manifest = Manifest.read(staged)
            pointer = depot.reserve_number(pointer, max([live, *(number(one.name) for one in versions(root))]))
            manifest = manifest.model_copy(update={"sequence": pointer.last})
            manifest.write(staged)
            fsync(staged / MANIFEST)
            fsync(staged)
            place = root / VERSIONS / manifest.version
            staged.rename(place)
            fsync(root / VERSIONS)
            depot.send(place)
            depot.send_scenarios(root / SCENARIOS)
            if activate:
                depot.set_live(place.name, pointer)
                set_live(root, place.name)
            if keep is not None:
                _prune(root, keep, keep_indexes=depot.shared)
                with suppress(PublishError):  # the next publisher tries again
                    depot.prune(keep)
    return place


def open_depot(setting: str | None = None, without: frozenset[str] = frozenset()) -> Depot:
    """Open the depot that a setting names.

    Args:
        setting: `s3://BUCKET/PREFIX`, or "" for none; by default the value of RECALL_DEPOT. Address and credentials of the
            object store are read from AWS_... variables, such as AWS_ENDPOINT_URL.
        without: names of files that are not downloaded with versions.

    Raises:
        ConfigError: The setting is another address, or the package obstore is not installed.
    """
    setting = os.environ.get(DEPOT, "") if setting is None else setting
    if not setting:
        return Depot()
    try:
        from recall.bundle.depot_s3 import open_s3
    except ModuleNotFoundError:
        raise ConfigError(
            "a depot needs the package obstore", where="depot", hint="Install it with: pip install 'fm-recall[s3]'"
        ) from None
    return open_s3(setting, without)


def shared_pointer(root: Path, depot: Depot) -> Pointer:
    """Return a depot's pointer; an empty depot first gets the root's live version.

    Args:
        root: root of published versions.
        depot: depot that shares the root.

    Raises:
        PublishError: The depot does not answer, or names no version.
    """
    pointer = depot.read()
    if pointer.live and not VERSION.fullmatch(pointer.live):
        raise PublishError(f"the depot names {pointer.live[:80]!r} as live, which is not a name of a version", where=str(root))
    live = live_name(root)
    if pointer.live or not live:
        return pointer
    depot.send(root / VERSIONS / live)
    depot.set_live(live, pointer._replace(past=tuple(past(root))))
    return depot.read()


def resolve(path: Path) -> Path:
    """Return the folder of a bundle: the path itself, or the live version of a root.

    Raises:
        BundleError: The path is neither a bundle nor a root, or CURRENT does not name a version.
    """
    if (path / MANIFEST).exists():
        return path
    current = path / CURRENT
    try:
        name = current.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise BundleError(
            "neither a bundle nor a folder of published versions",
            where=str(path),
            hint=f"Give a bundle (with {MANIFEST}) or the folder that bundles are published to (with {CURRENT})",
        ) from None
    if not VERSION.fullmatch(name):
        raise BundleError(f"{name[:80]!r} is not a name of a version", where=str(current))
    folder = path / VERSIONS / name
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"version {name} does not exist", where=str(current), hint="Publish again, or name another version")
    return folder


def versions(root: Path) -> list[Path]:
    """Return the folders of all published versions, oldest first."""
    folder = root / VERSIONS
    names = [entry.name for entry in folder.iterdir() if VERSION.fullmatch(entry.name)] if folder.is_dir() else []
    return [folder / name for name in sorted(names, key=lambda name: (number(name), name))]


def set_live(root: Path, version: str, *, back: bool = False) -> None:
    """Make a version live; the caller holds the root's lock.

    HISTORY is written first, and ends with the live version's name in a consistent state. Names after it come from a process
    that died before it had changed CURRENT, and do not count.

    Args:
        root: root of published versions.
        version: name of the version.
        back: roll back: the version was live before, and later entries of HISTORY are dropped.

    Raises:
        OSError: Writing failed; what was live stays live.
    """
    names = [*past_after(past(root), live_name(root), version, back=back), version]
    write_lines(root, HISTORY, names[-_MAX_HISTORY:])
    write_lines(root, CURRENT, [version])


def past(root: Path) -> list[str]:
    """Return the names of formerly live versions, latest last.

    Some of them may have been removed. Without a file HISTORY, these are the versions with lower numbers than the live one.
    """
    live = live_name(root)
    try:
        names = [name for name in (root / HISTORY).read_text(encoding="utf-8").split() if VERSION.fullmatch(name)]
    except (OSError, UnicodeDecodeError):
        names = [folder.name for folder in versions(root) if live and number(folder.name) < number(live)]
    return before_last(names, live) if live in names else names


def number(version: str) -> int:
    """Return the sequence in the name of a version."""
    return int(version.partition("-")[0])


def live_name(root: Path) -> str:
    """Return the name of the live version in CURRENT; empty without a live version."""
    try:
        name = (root / CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return name if VERSION.fullmatch(name) else ""


def catalog_of(root: Path) -> str:
    """Return the name of the live version's catalogue; empty without a live version."""
    try:
        return Manifest.read(resolve(root)).name
    except BundleError:
        return ""


def write_lines(root: Path, name: str, lines: list[str]) -> None:
    """Replace a small text file atomically; the caller holds the root's lock.

    Args:
        root: root of published versions.
        name: path of the file within the root; its folder exists.
        lines: lines of text, such as names of versions.
    """
    place = root / name
    temporary = root / STAGING / place.name
    temporary.parent.mkdir(exist_ok=True)
    temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    fsync(temporary)
    temporary.replace(place)
    fsync(place.parent)


def clear_leftovers(root: Path) -> list[Path]:
    """Remove folders of killed processes from the staging folder.

    The caller holds the root's lock. A killed process leaves a version that it was writing or removing.

    Args:
        root: root of published versions.

    Returns:
        The remaining folders: a process is writing them, or they could not be removed.

    Raises:
        OSError: A folder could not be opened.
    """
    remaining = []
    for entry in sorted((root / STAGING).iterdir()) if (root / STAGING).is_dir() else ():
        if not entry.is_dir():
            continue
        with descriptor(entry) as holder:
            if flock(holder, fcntl.LOCK_EX):
                shutil.rmtree(entry, ignore_errors=True)
        if entry.exists():
            remaining.append(entry)
    return remaining


def remove(folder: Path, *, keep_index: bool = False) -> bool:
    """Remove a version with its evaluation and its index, unless a process holds it.

    Args:
        folder: folder of the version.
        keep_index: leave the index on its server, because other machines may search it.

    Returns:
        Whether the version no longer exists; another process may have removed it before.

    Raises:
        OSError: The folder could not be moved.
        IndexFileError: Its index could not be removed; the version stays.
        ConfigError: The address of the server of its index is missing; the version stays.
    """
    aside = folder.parent.parent / STAGING  # moved there first, so that the version disappears atomically
    try:
        holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        if not flock(holder, fcntl.LOCK_EX):
            return False
        if not keep_index:
            with suppress(BundleError):  # the index of an unreadable manifest is unknown
                Manifest.read(folder).drop_index()
        evaluation_file(folder).unlink(missing_ok=True)
        aside.mkdir(exist_ok=True)  # a copy of a root may lack it
        moved = aside / f"removed-{folder.name}"
        folder.rename(moved)
        shutil.rmtree(moved, ignore_errors=True)
    finally:
        os.close(holder)
    return True


def _prune(root: Path, keep: int, *, keep_indexes: bool) -> None:
    """Remove old versions; the caller holds the root's lock.

    A version that cannot be removed is left to the next publisher.
    """
    folders = versions(root)
    kept = {folder.name for folder in folders[-keep:]} | {*[*past(root), live_name(root)][-keep:]}
    for folder in folders:
        if folder.name not in kept:
            with suppress(OSError, IndexFileError, ConfigError):
                remove(folder, keep_index=keep_indexes)


def evaluation_file(folder: Path) -> Path:
    """Return the path of the stored evaluation of a published version."""
    return folder.parent.parent / EVALUATIONS / f"{folder.name}.json"


def require_writable(root: Path) -> None:
    """Raise PublishError if a root cannot be written or created."""
    parent = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".writable-", dir=parent))  # os.access does not know all file systems
    except OSError as error:
        why = f"{parent}: {error.strerror}" if parent.is_dir() else f"{parent} is a file"
        raise PublishError("the folder cannot be written", where=str(root), why=why, hint="Name another folder") from None
