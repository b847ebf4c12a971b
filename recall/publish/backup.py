"""Copy a root of published versions at one point in time, while it is served."""

import os
import secrets
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from recall._fsync import fsync, make_folder
from recall.bundle.locks import locked
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
        folder: the copy.
        live: the version that is live in it.
        versions: how many versions it holds.
        linked: how many files share their bytes on disk with the root, as they never change.
        changes: sequence of the last change of items in it.
        users: sequence of the last change of users in it.
    """

    folder: Path
    live: str
    versions: int
    linked: int
    changes: int
    users: int


def backup(root: Path, to: Path) -> BackupReport:
    """Copy a root while other processes serve and change it.

    Versions are linked where the file system allows that, else copied. Logs are copied by SQLite, after the versions, so that
    they hold every change that the versions need. The copy appears at its place as a whole, verified.

    Args:
        root: the folder of published versions.
        to: where the copy goes; it must not exist.

    Raises:
        BundleError: The root has no live version, or the copy is not valid.
        JournalError: The copied log cannot be read.
        StoreError: The copied user store cannot be read.
        PublishBusyError: A publisher held the root's lock for the whole wait.
        PublishError: The target exists or is within the root, or the file system refused.
    """
    if not live_name(root):
        raise BundleError("the folder has no published versions", where=str(root), hint=f"Give one that holds {CURRENT}")
    if to.exists():
        raise PublishError("there is something there already", where=str(to), hint="Name a folder that does not exist yet")
    if to.resolve().is_relative_to(root.resolve()):
        raise PublishError(
            "the copy would be in the folder that it is a copy of", where=str(to), hint="Name a folder elsewhere"
        )
    made = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    with raising(PublishError, "the copy could not be made", where=str(to), of=(OSError, sqlite3.Error)):
        make_folder(to.parent)
        made.mkdir()
        try:
            with locked(root / LOCK, 10.0, PUBLISHING):
                linked = _copy_versions(root, made)
                for name in (CURRENT, HISTORY, SCENARIOS):
                    with suppress(FileNotFoundError):
                        shutil.copyfile(root / name, made / name)
                if (root / EVALUATIONS).is_dir():
                    shutil.copytree(root / EVALUATIONS, made / EVALUATIONS)
                with suppress(
                    FileNotFoundError, PermissionError
                ):  # only its owner may read it; a service without one makes one
                    shutil.copy(root / KEY_FILE, made / KEY_FILE)
                for name in (MARK, USERS_MARK):  # before the logs, so that they are never ahead of them
                    with suppress(FileNotFoundError):
                        shutil.copyfile(root / name, made / name)
                for name in (JOURNAL, USERS_LIVE):
                    _copy_database(root / name, made / name)
            changes, users = _mark(made)
            Recommender.load(made, verify=True).close()
            _sync_all(made)
            made.rename(to)
            fsync(to.parent)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return BackupReport(to, live_name(to), len(versions(to)), linked, changes, users)


def _copy_versions(root: Path, made: Path) -> int:
    linked = 0
    for version in versions(root):
        if version.is_symlink():
            continue
        folder = made / VERSIONS / version.name
        folder.mkdir(parents=True)
        for file in sorted(version.iterdir()):
            try:
                os.link(file, folder / file.name, follow_symlinks=False)
                linked += 1
            except OSError:
                shutil.copyfile(file, folder / file.name, follow_symlinks=False)
    return linked


def _copy_database(source: Path, to: Path) -> None:
    """Copy all committed data of a database, including that of its `-wal` file."""
    if not source.exists():
        return
    address = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as read, closing(sqlite3.connect(to)) as written:
        read.backup(written)


def _mark(made: Path) -> tuple[int, int]:
    """Note how far the copied logs reach, and what the root knows to be lost.

    Returns:
        The sequences of their last changes.
    """
    with closing(SqliteChangeLog(made / JOURNAL)) as journal, closing(SqliteLiveUsers(made / USERS_LIVE)) as users:
        state, identity, last = journal.state(), users.identity(), users.sequence()
    if state is not None and state.last:
        HighWaterMark(made / MARK).advance(
            state.identity, state.last, () if state.base is None else [Loss(state.base, state.base_through)]
        )
    if identity and last:
        HighWaterMark(made / USERS_MARK).advance(identity, last)
    return (0 if state is None else state.last), last


def _sync_all(folder: Path) -> None:
    for path in (*sorted(folder.rglob("*")), folder):
        fsync(path)
