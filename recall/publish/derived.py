"""Derive versions from others: compact live changes, rebuild the index, or adopt.

A compacted version records the sequence of the last change that it contains; later changes are applied on top of it from the
log. Both versions with their later changes give the same answers, so a compaction may be killed at any point. Compacted changes
stay in the log, because a version published from older tables later needs them again.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from recall._file_system import locked
from recall.bundle.activation import follow
from recall.bundle.manifest import MANIFEST, Manifest
from recall.bundle.reader import Bundle, load_bundle, read_deletions, write_deletions
from recall.bundle.versions import CURRENT, live_name, open_depot, resolve, versions
from recall.bundle.writer import BundleWriter
from recall.config import IndexConfig
from recall.errors import BundleError, ConfigError, JournalError, PublishError
from recall.evaluation.data_match import refuse_other_data
from recall.index.record import IndexRecord, IndexTrial
from recall.index.registry import drop
from recall.publish import golden
from recall.publish.index import QuerySample, write_index
from recall.publish.rebuild import (
    STORED,
    Published,
    RebuildReport,
    carried_counts,
    encode_stored_users,
    open_ignoring_index,
    publish_items,
    versions_to_keep,
    with_contained_changes,
)
from recall.serving.filters.columns import coded_columns
from recall.serving.recommender import Recommender
from recall.store.items.log import JOURNAL, open_log
from recall.store.items.log_overlap import LogOverlap, compare_with_log, contained_through, deletions_through
from recall.store.items.log_position import Base

_LOCK = ".compacting"


def compact(root: Path) -> RebuildReport | None:
    """Publish the live version's model with the current items, and prune the log.

    Args:
        root: the folder of published versions.

    Returns:
        The published version; None if there are no changes since the live version.

    Raises:
        PublishBusyError: Another process is compacting.
        JournalError: The log cannot be read, or a change cannot be encoded with the live version.
        BundleError: As `rebuild`; the live version does not change.
        ExportError: As `rebuild`; the live version does not change.
        PublishError: As `rebuild`; the live version does not change.
    """
    depot = open_depot()
    with locked(root / _LOCK, 0.0, "another process is compacting"), depot.lease("compacting"):
        follow(root, depot)
        folder = resolve(root)
        with Recommender.load(folder, root=root, pause=None, users=None) as current:  # without a pause, it does not change
            report = _publish_current_items(current, root)
        prune(root)
        return report


def prune(root: Path) -> int:
    """Delete the changes from the log that no version can need; return their number.

    These are the changes that the tables of all versions contain, according to `data.contains_changes_through`. Changes that
    are only compacted into a version stay in the log: a version trained from older tables needs them.

    Raises:
        JournalError: The log cannot be read or written.
    """
    with closing(open_log(root)) as journal:
        state = journal.state()
        if state is None:
            return 0
        contained: list[int] = []
        for version in versions(root):
            try:
                contained.append(contained_through(Manifest.read(version), state.identity))
            except BundleError:
                return 0  # it is unknown which changes a damaged version needs
        lowest = min(contained, default=0)
        return journal.prune(lowest) if lowest > state.pruned else 0


def _publish_current_items(current: Recommender, root: Path) -> RebuildReport | None:
    catalogue, manifest = current.items.current(), current.bundle.manifest
    if catalogue.sequence == manifest.folded:
        return None
    if current.items.missing_through:
        raise JournalError(
            f"version {manifest.version} lacks changes up to {current.items.missing_through} of an earlier journal",
            where=str(root / JOURNAL),
            why="the journal was lost, and the one that replaced it does not hold them; a version made now would hide that",
            hint="Activate a version that holds them, or publish one from tables that do, with --as-of",
        )
    for item_id, why in current.items.refused.items():
        raise JournalError(
            f"the last change of item {item_id!r} does not fit version {manifest.version}",
            where=str(root / JOURNAL),
            why=why,
            hint="Upsert the item again, or delete it",
        )
    items = catalogue.items()
    if items.is_empty():
        raise PublishError("every item was deleted", where=str(root), hint="A version holds at least one item: add some first")
    with closing(open_log(root)) as journal:
        deletions = deletions_through(journal, catalogue.sequence)
    log_overlap = LogOverlap(Base(current.items.identity or None, catalogue.sequence))
    return publish_items(current, items, root, manifest.sequence, log_overlap, deletions)


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """Result of rebuilding an index.

    Attributes:
        before: index of the source.
        index: the new index.
        folder: folder of the published version; None if none was published.
        version: name of the published version, or of the source.
        unopened: why the source's index could not be opened; empty if it could.
    """

    before: IndexRecord
    index: IndexRecord
    folder: Path | None
    version: str
    unopened: str = ""


def reindex(
    source: Path,
    root: Path | None,
    changes: Mapping[str, JsonValue],
    on_trial: Callable[[IndexTrial], None] = lambda _: None,
) -> ReindexReport:
    """Find the fastest index that reaches a target, for the stored users of a bundle.

    Args:
        source: a bundle, or a root, for its live version.
        root: root to publish a version with the new index to; None to publish nothing. If it is also the source, its live
            version must not change meanwhile.
        changes: settings of the index that override those of the bundle.
        on_trial: called after each candidate.

    Raises:
        BundleError: The source is missing or damaged.
        ConfigError: A setting is unknown or out of range.
        PublishError: Writing failed, or another version went live meanwhile; the live version does not change.
    """
    if root is not None and (root / MANIFEST).exists():
        raise PublishError("a bundle is not a folder to publish to", where=str(root), hint="Give one with versions: --out")
    old, unopened = open_ignoring_index(source, users=None)
    with old:
        bundle, manifest = old.bundle, old.bundle.manifest
        config = _config(manifest, changes)
        users = bundle.tables.user_vectors(encode_stored_users(bundle.encoder, old.users, manifest.seed))
        sample = QuerySample(users, STORED, manifest.seed)
        if root is None:
            with tempfile.TemporaryDirectory() as temporary:
                index = write_index(Path(temporary), bundle.item_vectors, sample, config, on_trial=on_trial, always=True)
            drop(index.engine, index.kind, index.params)
            return ReindexReport(manifest.index, index, None, manifest.version, unopened)
        with BundleWriter.open(root) as writer:
            items = bundle.items()
            writer.write_contents(bundle.encoder, bundle.tables, bundle.item_vectors, items, carried_counts(bundle, items))
            writer.link(bundle.users_file)
            write_deletions(writer.folder, read_deletions(bundle.folder))
            index = write_index(
                writer.folder,
                bundle.item_vectors,
                sample,
                config,
                on_trial=on_trial,
                always=True,
                columns=lambda: coded_columns(items, bundle.encoder),
            )
            settings = {**manifest.config, "index": config.model_dump(mode="json")}
            origin = manifest.provenance(config=settings)
            writer.write_manifest(origin, manifest.sizes.users, manifest.parity, index, manifest.model.fold)
            live = (source / CURRENT).exists() and source.resolve() == root.resolve()
            published, after = writer.publish(golden.record, manifest.sequence if live else None, versions_to_keep(manifest))
        return ReindexReport(manifest.index, index, published, after.version, unopened)


def _config(manifest: Manifest, changes: Mapping[str, JsonValue]) -> IndexConfig:
    before = IndexConfig.recorded(manifest.section("index"))
    try:
        return IndexConfig.model_validate({**before.model_dump(), **changes})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(fault["msg"], where=".".join(("index", *map(str, fault["loc"])))) from None


@dataclass(frozen=True, slots=True)
class Adopted(Published):
    """A version copied to another root.

    Attributes:
        source: name of the original version.
        unmatched: why its data could not be compared with those of the live version; empty if they were, or if there was no
            live version.
    """

    source: str
    unmatched: str = ""


def adopt(version: Path, root: Path, as_of: int = 0, *, other_data: bool = False) -> Adopted:
    """Publish a copy of a version to a root.

    The root's live changes after `as_of` apply on top of the copy, regardless of the changes of its original root that the
    version contains.

    Args:
        version: folder of a version, or another root, for its live version.
        root: root to publish to.
        as_of: the version's tables contain all live changes of `root` up to this sequence.
        other_data: publish the version even if it comes from a different data set than the live version.

    Raises:
        BundleError: The version is missing or damaged, answers its golden requests differently, or comes from a different data
            set.
        IndexFileError: Its index does not match.
        ConfigError: `as_of` is after the last change.
        JournalError: The root's log cannot be read.
        PublishError: Writing failed; the live version does not change.
    """
    folder = resolve(version)
    with Recommender.load(folder, users=None) as recommender:
        golden.check(recommender)
        bundle = recommender.bundle
        unmatched = "" if other_data else _check_same_data(bundle, root)
        log_overlap = compare_with_log(root, bundle.item_ids.values.to_list(), as_of)
        names = (bundle.encoder.user_fields.names, bundle.encoder.item_fields.names)
        base, config = log_overlap.base, with_contained_changes(bundle.manifest, log_overlap.base.compacted_through)
        with BundleWriter.open(root) as writer:
            for name in bundle.manifest.files:
                writer.copy(folder / name)
            bundle.manifest.adopted(base.compacted_through, base.log, config, names).write(writer.folder)
            published, manifest = writer.publish(lambda copy: _check_loads(copy, root), keep=versions_to_keep(bundle.manifest))
    return Adopted(published, manifest, log_overlap, folder.name, unmatched)


def _check_loads(copy: Path, root: Path) -> None:
    """Check that a copy can be loaded with the root's live changes."""
    Recommender.load(copy, verify=True, root=root, users=None).close()


def _check_same_data(bundle: Bundle, root: Path) -> str:
    """Check that a version has the live version's data; return why if that is unknown.

    Raises:
        BundleError: They come from different data sets.
    """
    if not live_name(root):
        return ""
    try:
        served = load_bundle(root, index=False)
    except BundleError as error:  # publishing a new version is a way to repair the root
        return f"the live version cannot be read, so it is unknown whether this one has the same data: {error.what}"
    refuse_other_data(bundle, served)
    return ""
