"""Erase users: from live changes, idempotency keys, and every published version."""

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from recall._arrays import Float32
from recall._ids import check_ids
from recall.bundle import files
from recall.bundle.depot import Depot
from recall.bundle.locks import acquire, locked
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
from recall.publish.rebuild import STORED, carried_counts, user_rows
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
    """Outcome of the data of some users.

    Attributes:
        version: name of the version without them; None if the live one did not contain them.
        removed: names of versions that contained them and are gone.
        held: names of versions that contain them, and of staged folders, that could not be removed, because a process has
            them open. The users stay deleted in the live changes, and so unknown, until another run removes those.
        depot: names of versions that contained them and are gone from the depot.
        keys: idempotency keys that named them and are gone.
        remains: where data of them may be left, in sentences.
    """

    version: str | None
    removed: tuple[str, ...]
    held: tuple[str, ...]
    depot: tuple[str, ...]
    keys: int
    remains: tuple[str, ...]


def erase_users(root: Path, user_ids: Sequence[str], live: LiveUsers, wait: float = 10.0) -> ErasureReport:
    """Erase users from everything below a root, while it may be served.

    The users are deleted from the live changes first, so no later answer knows them. Then a version without them is published
    and all versions with them, or that cannot be read, are removed. At the end no file that this program wrote below the root
    contains their ids as those of users, except those that the report names. Versions in the depot are treated alike.

    Args:
        root: the folder of published versions.
        user_ids: of the users; unknown ones are ignored.
        live: the changes of users.
        wait: seconds to wait until services have closed the older versions.

    Raises:
        BundleError: The live version is missing or damaged.
        VersionMovedError: Another version is live in the depot.
        RequestError: An id is malformed.
        StoreError: The live changes cannot be written.
        JournalError: The log of items cannot be written.
        PublishError: The file system refused, the depot does not answer, or another version is live; run it again.
    """
    check_ids(user_ids, "/user_ids")
    folder, depot = resolve(root), open_depot()
    if depot.shared and (live_now := depot.read().live) not in ("", folder.name):
        raise VersionMovedError(
            f"version {live_now} is live in the depot, and {folder.name} here",
            where=str(root),
            hint="Run it where the live version of the depot is served",
        )
    lock = acquire(folder)  # against removal by another publisher
    try:
        bundle = load_bundle(folder, index=False)
        ids = list(dict.fromkeys([*user_ids, *map(bundle.encoder.user_id, user_ids)]))
        live.write([UserDelete(one) for one in ids])
        version = _publish_without(bundle, root, ids) if _holds(folder, ids) else None
    finally:
        if lock is not None:
            lock.close()
    sent = _remove_from_depot(root, depot, ids)
    shared = [one.name for one in _shared(root) if _holds(one, ids)]
    with raising(PublishError, "a version could not be removed", where=str(root), hint="Run it again"):
        removed, held = _remove(root, ids, wait)
    keys = 0
    if not held:
        keys = live.forget(ids)
        with closing(open_log(root)) as log:
            keys += log.forget(ids)
    remains = _remains(shared, _others(root), live)
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
    encoder, rows = _without_values(bundle.encoder, ids)
    arrays = {
        name: _cleared(array, rows) if name.startswith("user_") else array for name, array in bundle.tables.arrays().items()
    }
    tables = Layout.of(bundle.tables).tables(arrays, encoder.user_fields, encoder.item_fields)
    items = bundle.items()
    with BundleWriter.open(root) as writer:
        writer.write_contents(encoder, tables, bundle.item_vectors, items, carried_counts(bundle, items))
        count = copy_user_store(bundle.users_file, writer.folder / files.USERS, ids)
        write_deletions(writer.folder, read_deletions(bundle.folder))
        with closing(SqliteUsers(writer.folder / files.USERS)) as users:  # the index is checked with vectors of users
            asked = QuerySample(tables.user_vectors(user_rows(encoder, users, manifest.seed)), STORED, manifest.seed)
        config = IndexConfig.recorded(manifest.config.get("index", {}))
        columns = partial(coded_columns, items, encoder)
        index = write_index(writer.folder, bundle.item_vectors, asked, config, manifest.index, columns=columns)
        writer.write_manifest(manifest.provenance(), count, manifest.parity, index, manifest.model.fold)
        return writer.publish(golden.record, manifest.sequence)[1].version


def _without_values(encoder: FeatureEncoder, ids: Sequence[str]) -> tuple[FeatureEncoder, list[int]]:
    """Return an encoder without some ids, and the feature rows that were theirs.

    Their places are taken by random values, so all other rows stay.
    """
    values, vocabularies = encoder.state()
    rows: list[int] = []
    parts = []
    for (name,), frame in vocabularies.group_by("field", maintain_order=True):
        known = frame["value"].to_list()
        places = _places(encoder, str(name), known, set(ids))
        start = next((block.offset for block in encoder.user_blocks if block.name == name), 0)
        for place in places:
            known[place] = f"0:erased-{secrets.token_hex(8)}"  # that a cross can read, too
        rows += [start + FIRST + place for place in places]
        parts.append(frame.with_columns(pl.Series("value", known, dtype=pl.String())))
    return FeatureEncoder.from_state(values, pl.concat([vocabularies.clear(), *parts])), rows


def _places(encoder: FeatureEncoder, field: str, values: Sequence[str], ids: set[str]) -> list[int]:
    """Return the positions in a vocabulary of values that contain one of some ids."""
    column, read = encoder.columns.get(field), encoder.schema.user_id
    if column is None or read not in column.columns or encoder.schema.fields[field].side != "user":
        return []
    if isinstance(column, CrossEncoder):
        return [place for place, value in enumerate(values) if ids.intersection(column.reads(value, read))]
    return [place for place, value in enumerate(values) if value in ids]


def _cleared(array: Float32, rows: Sequence[int]) -> Float32:
    """Return an array of features with zeros in some rows."""
    if not rows:
        return array
    copy = np.array(array)
    copy[rows] = 0
    return copy


def _holds(folder: Path, ids: Sequence[str]) -> bool:
    """Return whether a version contains a user, or cannot be read."""
    try:
        bundle = load_bundle(folder, verify=False, index=False)
        if any(one.user_id in ids for one in bundle.manifest.golden or ()):
            return True
        if _without_values(bundle.encoder, ids)[1]:
            return True
        with closing(SqliteUsers(bundle.users_file)) as users:
            return any(users.get(one) is not None for one in ids)
    except BundleError:
        return True


def _remove(root: Path, ids: Sequence[str], wait: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove the versions that contain a user, and leftovers of killed processes.

    Returns:
        The removed ones, and those that are open.
    """
    deadline = time.monotonic() + wait
    held = [one for one in versions(root) if _holds(one, ids)]
    removed: list[str] = []
    while True:
        with locked(root / LOCK, 10.0, PUBLISHING):
            gone = [one for one in held if _gone(one, root / STAGING)]
            staged = clear_leftovers(root)
        removed += [one.name for one in gone]
        held = [one for one in held if one not in gone]
        if not (held or staged) or time.monotonic() > deadline:
            break
        time.sleep(_POLL)
    return tuple(removed), (*(one.name for one in held), *(f"{STAGING}/{one.name}" for one in staged))


def _gone(folder: Path, aside: Path) -> bool:
    """Remove a version; if its index cannot be removed, that stays: it has no users."""
    try:
        return remove(folder, aside)
    except (IndexFileError, ConfigError):
        return remove(folder, aside, shared=True)


def _remove_from_depot(root: Path, depot: Depot, ids: Sequence[str]) -> tuple[str, ...]:
    """Remove the versions of a depot that contain a user, or cannot be read.

    Returns:
        Their names.
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
                holds = _holds(local.get(name, folder), ids)
            except BundleError:
                holds = True
        if holds:
            depot.remove(name, (files.USERS, files.VOCABULARIES))
            removed.append(name)
    return tuple(removed)


def _shared(root: Path) -> list[Path]:
    """Return the versions whose file of users has links outside the root."""
    found = [(one, (one / files.USERS).stat()) for one in versions(root) if (one / files.USERS).exists()]
    inside = Counter((stat.st_dev, stat.st_ino) for _, stat in found)
    return [one for one, stat in found if stat.st_nlink > inside[stat.st_dev, stat.st_ino]]


def _others(root: Path) -> list[str]:
    """Return what is neither a version nor a log: copies, damaged logs, checkpoints."""
    logs = [f"{name}{ending}" for name in (JOURNAL, USERS_LIVE) for ending in ("", "-wal", "-shm")]
    known = {CURRENT, HISTORY, VERSIONS, STAGING, EVALUATIONS, SCENARIOS, KEY_FILE, MARK, USERS_MARK, USERS_REDIS_MARK, *logs}
    other = [one for one in root.iterdir() if one.name not in known]
    other += set((root / VERSIONS).iterdir()) - set(versions(root))
    return sorted(str(one.relative_to(root)) for one in other if one.is_dir() or one.stat().st_size)  # a lock is empty


def _remains(shared: Sequence[str], others: Sequence[str], live: LiveUsers) -> tuple[str, ...]:
    backups = "Backups that were made before contain the users: erase them there with the same command, or remove the backups"
    if shared:
        backups += f"; files of {', '.join(shared)} are shared with one on this file system"
    tables = (
        "The tables that models are trained from contain the users until they are removed there, and so would the next model"
    )
    learnt = "Parameters of items and of other features were also learnt from their interactions; a new training removes that"
    redis = (
        ("Redis keeps removed values in its own files until it rewrites them: BGREWRITEAOF, or BGSAVE",) if live.remote else ()
    )
    unread = (f"Not searched, and to be removed where it is not needed: {', '.join(others)}",) if others else ()
    return (backups, tables, learnt, *redis, *unread)
