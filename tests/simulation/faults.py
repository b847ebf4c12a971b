"""Durability bugs injected into the code under test; a simulation must find each of them."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any


def synchronous_off() -> None:
    """SQLite does not fsync."""
    _synchronous("OFF")


def synchronous_normal() -> None:
    """SQLite fsyncs its WAL only before checkpoints, not at every commit."""
    _synchronous("NORMAL")


def folders_not_synced() -> None:
    """Fsyncs of folders are ignored."""
    real = os.fsync

    def only_files(descriptor: int) -> None:
        if not Path(f"/proc/self/fd/{descriptor}").is_dir():
            real(descriptor)

    os.fsync = only_files  # type: ignore[assignment]


def files_not_synced() -> None:
    """Fsyncs of files by Python are ignored."""
    real = os.fsync

    def only_folders(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            real(descriptor)

    os.fsync = only_folders  # type: ignore[assignment]


def current_written_in_place() -> None:
    """CURRENT is overwritten in place instead of replaced by a rename."""
    from recall._file_system import fsync
    from recall.bundle import versions

    def write(root: Path, name: str, lines: list[str]) -> None:
        (root / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        fsync(root / name)
        fsync(root)

    assert versions.write_lines  # otherwise nothing is replaced
    versions.write_lines = write


def current_before_version() -> None:
    """CURRENT names a version before its folder is renamed."""
    from recall._file_system import fsync
    from recall.bundle import versions

    set_live, rename = versions.set_live, Path.rename
    pending: list[tuple[Path, Path]] = []

    def later(self: Path, target: Path) -> Path:
        if Path(target).parent.name != versions.VERSIONS:
            return rename(self, target)
        pending.append((self, Path(target)))
        return Path(target)

    def first(root: Path, version: str, **given: Any) -> None:
        set_live(root, version, **given)
        for source, target in pending:
            rename(source, target)
            fsync(target.parent)
        pending.clear()

    Path.rename = later  # type: ignore[method-assign, assignment]
    versions.set_live = first


def _synchronous(level: str) -> None:
    from recall.store.sqlite import DurableFile

    connect = DurableFile._connect

    def connected(self: DurableFile, address: str) -> sqlite3.Connection:
        connection = connect(self, address)
        connection.execute(f"PRAGMA synchronous = {level}")
        return connection

    DurableFile._connect = connected  # type: ignore[method-assign]


NAMES: dict[str, Callable[[], None]] = {
    "synchronous-off": synchronous_off,
    "synchronous-normal": synchronous_normal,
    "folders-not-synced": folders_not_synced,
    "files-not-synced": files_not_synced,
    "current-in-place": current_written_in_place,
    "current-first": current_before_version,
}
