"""Back up a root of published versions while it is served."""

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from recall._file_system import locked, new_folder
from recall.bundle.files import link_or_copy
from recall.bundle.versions import (
    CURRENT,
    EVALUATIONS,
    HISTORY,
    KEY_FILE,
    LOCK,
    PUBLISHING,
    SCENARIOS,
    VERSIONS,
    live_name,
    versions,
)
from recall.errors import BundleError, PublishError, raising
from recall.serving.recommender import Recommender
from recall.store.high_water_mark import HighWaterMark, Loss
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.log_position import MARK
from recall.store.users.sqlite import USERS_LIVE, USERS_MARK, SqliteLiveUsers


@dataclass(frozen=True, slots=True)
class BackupReport:
    """Contents of a backup.

    Attributes:
        folder: folder of the copy.
        live: name of its live version.
        versions: number of versions.
        linked: number of files that are hard links to those of the root, which are immutable.
        changes: sequence of the last change of items.
        users: sequence of the last change of users.
    """

    folder: Path
    live: str
    versions: int
    linked: int
    changes: int
    users: int


def backup(root: Path, to: Path) -> BackupReport:
    """Copy a root while other processes serve and change it.

    Versions are hard-linked if the file system supports it, else copied. Logs are copied by SQLite, after the versions, so that
    they have all changes that the versions need. The copy is verified before it gets its name.

    Args:
        root: folder of published versions.
        to: path of the copy, which must not exist.

    Raises:
        BundleError: The root has no live version, or the copy is not valid.
        JournalError: The copied log cannot be read.
        StoreError: The copied user store cannot be read.
        PublishBusyError: A publisher held the root's lock for the whole wait.
        PublishError: The target exists or is within the root, or writing failed.
    """
    if not live_name(root):
        raise BundleError("the folder has no published versions", where=str(root), hint=f"Give one that holds {CURRENT}")
    if to.exists():
        raise PublishError("the target already exists", where=str(to), hint="Name a folder that does not exist yet")
    if to.resolve().is_relative_to(root.resolve()):
        raise PublishError(
            "the copy would be in the folder that it is a copy of", where=str(to), hint="Name a folder elsewhere"
        )
    failure = raising(PublishError, "the copy could not be made", where=str(to), of=(OSError, sqlite3.Error))
    with failure, new_folder(to) as staged:
        with locked(root / LOCK, 10.0, PUBLISHING):
            linked = _copy_versions(root, staged)
            # marks before the logs, so that a mark is never ahead of its log
            for name in (CURRENT, HISTORY, SCENARIOS, MARK, USERS_MARK):
                with suppress(FileNotFoundError):
                    shutil.copyfile(root / name, staged / name)
            if (root / EVALUATIONS).is_dir():
                shutil.copytree(root / EVALUATIONS, staged / EVALUATIONS)
            with suppress(FileNotFoundError, PermissionError):  # only its owner may read it; a service without a key makes one
                shutil.copy(root / KEY_FILE, staged / KEY_FILE)
            for name in (JOURNAL, USERS_LIVE):
                _copy_database(root / name, staged / name)
        changes, users = _write_marks(staged)
        Recommender.load(staged, verify=True).close()
    return BackupReport(to, live_name(to), len(versions(to)), linked, changes, users)


def _copy_versions(root: Path, staged: Path) -> int:
    linked = 0
    for version in versions(root):
        if version.is_symlink():
            continue
        folder = staged / VERSIONS / version.name
        folder.mkdir(parents=True)
        for file in sorted(version.iterdir()):
            linked += link_or_copy(file, folder / file.name)
    return linked


def _copy_database(source: Path, to: Path) -> None:
    """Copy all committed data of a database, including that of its `-wal` file."""
    if not source.exists():
        return
    address = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as read, closing(sqlite3.connect(to)) as written:
        read.backup(written)


def _write_marks(staged: Path) -> tuple[int, int]:
    """Advance the copied marks to the last changes of the copied logs.

    Returns:
        Sequences of the last changes of items and of users.
    """
    with closing(SqliteChangeLog(staged / JOURNAL)) as journal, closing(SqliteLiveUsers(staged / USERS_LIVE)) as users:
        state, identity, last = journal.state(), users.identity(), users.sequence()
    if state is not None and state.last:
        HighWaterMark(staged / MARK).advance(
            state.identity, state.last, () if state.base is None else [Loss(state.base, state.base_through)]
        )
    if identity and last:
        HighWaterMark(staged / USERS_MARK).advance(identity, last)
    return (0 if state is None else state.last), last
