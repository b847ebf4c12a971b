"""Erase users: from live changes, idempotency keys, and every published version."""

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recall._arrays import Float32
from recall._file_system import acquire, locked
from recall._ids import check_ids
from recall.bundle import files
from recall.bundle.depot import Depot
from recall.bundle.reader import Bundle, load_bundle, read_deletions, write_deletions
from recall.bundle.versions import (
    CURRENT,
    EVALUATIONS,
    HISTORY,
    KEY_FILE,
    LOCK,
    PUBLISHING,
    SCENARIOS,
    STAGING,
    VERSIONS,
    clear_leftovers,
    open_depot,
    remove,
    resolve,
    staging,
    versions,
)
from recall.bundle.writer import BundleWriter
from recall.config import IndexConfig
from recall.errors import BundleError, ConfigError, IndexFileError, PublishError, VersionMovedError, raising
from recall.features.categorical import CrossEncoder
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import FIRST
from recall.models.serving.layout import Layout
from recall.publish import golden
from recall.publish.index import QuerySample, write_index
from recall.publish.rebuild import STORED, carried_counts, encode_stored_users
from recall.serving.filters.columns import coded_columns
from recall.store.items.log import JOURNAL, open_log
from recall.store.items.log_position import MARK
from recall.store.users.bundle_users import SqliteUsers, copy_user_store
from recall.store.users.changes import LiveUsers, UserDelete
from recall.store.users.redis import USERS_REDIS_MARK
from recall.store.users.sqlite import USERS_LIVE, USERS_MARK

_POLL = 0.2  # seconds between two tries to remove versions that are served


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """Result of an erasure.

    Attributes:
        version: name of the new version without the users; None if the live version did not contain them.
        removed: names of removed versions that contained the users.
        held: names of versions with the users, and of staged folders, that could not be removed because a process has them
            open. Live changes keep the users deleted, and therefore unknown, until another run removes these.
        depot: names of versions that contained the users and were removed from the depot.
        keys: number of removed idempotency keys that contained an id.
        remains: sentences about other places that may have data of the users.
    """

    version: str | None
    removed: tuple[str, ...]
    held: tuple[str, ...]
    depot: tuple[str, ...]
    keys: int
    remains: tuple[str, ...]


def erase_users(root: Path, user_ids: Sequence[str], live: LiveUsers, wait: float = 10.0) -> ErasureReport:
    """Erase users from all files of a root, which may be served meanwhile.

    The users are deleted by a live change first, so no later answer knows them. Then a version without them is published, and
    all versions that contain them or cannot be read are removed, from the root and from the depot. At the end no file that this
    program wrote in the root contains ids of the users, except those that the report names.

    Args:
        root: folder of published versions.
        user_ids: ids of the users; unknown ones are ignored.
        live: store of user changes.
        wait: seconds to wait until services have closed the older versions.

    Raises:
        BundleError: The live version is missing or damaged.
        VersionMovedError: Another version is live in the depot.
        RequestError: An id is malformed.
        StoreError: The live changes cannot be written.
        JournalError: The log of items cannot be written.
        PublishError: Writing failed, the depot does not answer, or another version is live; run it again.
    """
    check_ids(user_ids, "/user_ids")
    folder, depot = resolve(root), open_depot()
    if depot.shared and (live_now := depot.read().live) not in ("", folder.name):
        raise VersionMovedError(
            f"version {live_now} is live in the depot, and {folder.name} here",
            where=str(root),
            hint="Run it where the live version of the depot is served",
        )
    lock = acquire(folder)  # so that no other publisher removes it
    try:
        bundle = load_bundle(folder, index=False)
        ids = list(dict.fromkeys([*user_ids, *map(bundle.encoder.user_id, user_ids)]))
        live.write([UserDelete(user_id) for user_id in ids])
        version = _publish_without(bundle, root, ids) if _contains_users(folder, ids) else None
    finally:
        if lock is not None:
            lock.close()
    sent = _remove_from_depot(root, depot, ids)
    shared = [one.name for one in _shared_outside(root) if _contains_users(one, ids)]
    with raising(PublishError, "a version could not be removed", where=str(root), hint="Run it again"):
        removed, held = _remove_versions(root, ids, wait)
    keys = 0
    if not held:
        keys = live.forget(ids)
        with closing(open_log(root)) as log:
            keys += log.forget(ids)
    remains = _remaining_data(shared, _other_files(root), live)
    if depot.shared:
        remains += (
            "Roots of other machines have versions with the users until the same command is run there",
            "A bucket with versioning keeps noncurrent objects until its own rules remove them, and files that an interrupted "
            "erasure left in the depot stay until a publisher removes old ones",
        )
    return ErasureReport(version, removed, held, sent, keys, remains)


def _publish_without(bundle: Bundle, root: Path, ids: Sequence[str]) -> str:
    """Publish the live version without some users; return its name."""
    manifest = bundle.manifest
    encoder, rows = _erase_values(bundle.encoder, ids)
    arrays = {
        name: _with_zero_rows(array, rows) if name.startswith("user_") else array
        for name, array in bundle.tables.arrays().items()
    }
    tables = Layout.of(bundle.tables).tables(arrays, encoder.user_fields, encoder.item_fields)
    items = bundle.items()
    with BundleWriter.open(root) as writer:
        writer.write_contents(encoder, tables, bundle.item_vectors, items, carried_counts(bundle, items))
        count = copy_user_store(bundle.users_file, writer.folder / files.USERS, ids)
        write_deletions(writer.folder, read_deletions(bundle.folder))
        with closing(SqliteUsers(writer.folder / files.USERS)) as users:  # the index is checked with vectors of users
            sample = QuerySample(tables.user_vectors(encode_stored_users(encoder, users, manifest.seed)), STORED, manifest.seed)
        index = write_index(
            writer.folder,
            bundle.item_vectors,
            sample,
            IndexConfig.recorded(manifest.section("index")),
            manifest.index,
            columns=lambda: coded_columns(items, encoder),
        )
        writer.write_manifest(manifest.provenance(), count, manifest.parity, index, manifest.model.fold)
        return writer.publish(golden.record, manifest.sequence)[1].version


def _erase_values(encoder: FeatureEncoder, ids: Sequence[str]) -> tuple[FeatureEncoder, list[int]]:
    """Return an encoder without some ids, and their feature rows.

    The ids are replaced by random values in the vocabularies, so that the rows of all other values do not change.
    """
    values, vocabularies = encoder.state()
    rows: list[int] = []
    parts = []
    for (name,), frame in vocabularies.group_by("field", maintain_order=True):
        vocabulary = frame["value"].to_list()
        positions = _positions(encoder, str(name), vocabulary, set(ids))
        start = next((block.offset for block in encoder.user_blocks if block.name == name), 0)
        for position in positions:
            vocabulary[position] = f"0:erased-{secrets.token_hex(8)}"  # in the syntax of values of crosses
        rows += [start + FIRST + position for position in positions]
        parts.append(frame.with_columns(pl.Series("value", vocabulary, dtype=pl.String())))
    return FeatureEncoder.from_state(values, pl.concat([vocabularies.clear(), *parts])), rows


def _positions(encoder: FeatureEncoder, field: str, values: Sequence[str], ids: set[str]) -> list[int]:
    """Return positions of values in a vocabulary that contain one of the ids."""
    column, read = encoder.columns.get(field), encoder.schema.user_id
    if column is None or read not in column.columns or encoder.schema.fields[field].side != "user":
        return []
    if isinstance(column, CrossEncoder):
        return [position for position, value in enumerate(values) if ids.intersection(column.reads(value, read))]
    return [position for position, value in enumerate(values) if value in ids]


def _with_zero_rows(array: Float32, rows: Sequence[int]) -> Float32:
    """Return a copy of a parameter array with zeros in some rows."""
    if not rows:
        return array
    copy = np.array(array)
    copy[rows] = 0
    return copy


def _contains_users(folder: Path, ids: Sequence[str]) -> bool:
    """Return whether a version contains one of the users, or cannot be read."""
    try:
        bundle = load_bundle(folder, verify=False, index=False)
        if any(one.user_id in ids for one in bundle.manifest.golden or ()):
            return True
        if _erase_values(bundle.encoder, ids)[1]:
            return True
        with closing(SqliteUsers(bundle.users_file)) as users:
            return any(users.get(one) is not None for one in ids)
    except BundleError:
        return True


def _remove_versions(root: Path, ids: Sequence[str], wait: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove versions that contain one of the users, and leftovers of processes.

    Returns:
        Names of the removed versions, and names of versions and staged folders that are open.
    """
    deadline = time.monotonic() + wait
    remaining = [folder for folder in versions(root) if _contains_users(folder, ids)]
    removed: list[str] = []
    while True:
        with locked(root / LOCK, 10.0, PUBLISHING):
            removed_now = [folder for folder in remaining if _remove_version(folder)]
            staged = clear_leftovers(root)
        removed += [folder.name for folder in removed_now]
        remaining = [folder for folder in remaining if folder not in removed_now]
        if not (remaining or staged) or time.monotonic() > deadline:
            break
        time.sleep(_POLL)
    return tuple(removed), (*(folder.name for folder in remaining), *(f"{STAGING}/{folder.name}" for folder in staged))


def _remove_version(folder: Path) -> bool:
    """Remove a version; leave an index that its server cannot remove."""
    try:
        return remove(folder)
    except (IndexFileError, ConfigError):
        return remove(folder, keep_index=True)


def _remove_from_depot(root: Path, depot: Depot, ids: Sequence[str]) -> tuple[str, ...]:
    """Remove the depot's versions that contain one of the users, or cannot be read.

    Returns:
        Names of the removed versions.
    """
    live, local = depot.read().live, {one.name: one for one in versions(root)}
    removed = []
    for name in depot.versions():
        if name == live:
            continue
        with staging(root) as folder:
            try:
                if name not in local:
                    depot.fetch(name, folder, {})
                contains = _contains_users(local.get(name, folder), ids)
            except BundleError:
                contains = True
        if contains:
            depot.remove(name, (files.USERS, files.VOCABULARIES))
            removed.append(name)
    return tuple(removed)


def _shared_outside(root: Path) -> list[Path]:
    """Return the versions with hard links outside the root to their file of users."""
    stats = [(folder, (folder / files.USERS).stat()) for folder in versions(root) if (folder / files.USERS).exists()]
    links_inside = Counter((stat.st_dev, stat.st_ino) for _, stat in stats)
    return [folder for folder, stat in stats if stat.st_nlink > links_inside[stat.st_dev, stat.st_ino]]


def _other_files(root: Path) -> list[str]:
    """Return paths that are not managed: copies, damaged logs, checkpoints."""
    logs = [f"{name}{ending}" for name in (JOURNAL, USERS_LIVE) for ending in ("", "-wal", "-shm")]
    known = {CURRENT, HISTORY, VERSIONS, STAGING, EVALUATIONS, SCENARIOS, KEY_FILE, MARK, USERS_MARK, USERS_REDIS_MARK, *logs}
    others = [path for path in root.iterdir() if path.name not in known]
    others += set((root / VERSIONS).iterdir()) - set(versions(root))
    return sorted(str(path.relative_to(root)) for path in others if path.is_dir() or path.stat().st_size)  # locks are empty


def _remaining_data(shared: Sequence[str], others: Sequence[str], live: LiveUsers) -> tuple[str, ...]:
    backups = "Backups that were made before contain the users: erase them there with the same command, or remove the backups"
    if shared:
        backups += f"; files of {', '.join(shared)} are shared with one on this file system"
    tables = (
        "The tables that models are trained from contain the users until they are removed there, and so would the next model"
    )
    learnt = "Parameters of items and of other features were also learnt from their interactions; a new training removes that"
    redis = (
        "Redis keeps removed values in its own files until it rewrites them: BGREWRITEAOF, or BGSAVE",
        "Services with --exported-users redis serve the new version after `recall users load`, until then the one before",
    )
    unread = (f"Not searched, and to be removed where it is not needed: {', '.join(others)}",) if others else ()
    return (backups, tables, learnt, *(redis if live.remote else ()), *unread)
