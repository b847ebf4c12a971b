"""Versions made of another: with live changes, a new index, or in another root.

Compaction keeps the delta segment small. The new version records up to which change it contains them; later ones are replayed
from the log on top of it, as those before were on top of the old one. So it may be killed at any point: either version gives
the same answers. The log keeps what was compacted, because a version that is published from tables later may need it.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import JsonValue, ValidationError

from recall.bundle.activation import follow
from recall.bundle.locks import locked
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
    kept,
    open_for_another_index,
    publish_items,
    user_rows,
    with_through,
)
from recall.serving.filters.columns import coded_columns
from recall.serving.recommender import Recommender
from recall.store.items.binding import LogOverlap, compare_with_log, contained_through, deletions_through
from recall.store.items.log import JOURNAL, open_log
from recall.store.items.log_position import Base

_LOCK = ".compacting"


def compact(root: Path) -> RebuildReport | None:
    """Publish the live version's model with the current items, and prune the log.

    Args:
        root: the folder of published versions.

    Returns:
        What was published; None when nothing has changed since the live version.

    Raises:
        PublishBusyError: Another process does the same.
        JournalError: The log cannot be read, or a change does not fit the live version.
        BundleError: As `rebuild`; what was live stays live.
        ExportError: As `rebuild`; what was live stays live.
        PublishError: As `rebuild`; what was live stays live.
    """
    depot = open_depot()
    with locked(root / _LOCK, 0.0, "another process is compacting"), depot.lease("compacting"):
        follow(root, depot)
        folder = resolve(root)
        with Recommender.load(folder, root=root, pause=None, users=None) as now:  # the catalogue at one moment
            report = _published(now, root)
        prune(root)
        return report


def prune(root: Path) -> int:
    """Drop the changes that no version can need from the log; return how many.

    These are the changes that the tables behind every version contain, as stated in training. What compaction has put into a
    version stays in the log: a version that is trained from older tables needs it.

    Raises:
        JournalError: The log cannot be read or written.
    """
    with closing(open_log(root)) as journal:
        state = journal.state()
        if state is None:
            return 0
        held: list[int] = []
        for version in versions(root):
            try:
                held.append(contained_through(Manifest.read(version), state.identity))
            except BundleError:
                return 0  # what a damaged version would need is unknown
        lowest = min(held, default=0)
        return journal.prune(lowest) if lowest > state.pruned else 0


def _published(now: Recommender, root: Path) -> RebuildReport | None:
    catalogue, manifest = now.items.current(), now.bundle.manifest
    if catalogue.sequence == manifest.folded:
        return None
    if now.items.missing_through:
        raise JournalError(
            f"version {manifest.version} lacks changes up to {now.items.missing_through} of an earlier journal",
            where=str(root / JOURNAL),
            why="the journal was lost, and what has replaced it does not hold them; a version made now would hide that",
            hint="Activate a version that holds them, or publish one from tables that do, with --as-of",
        )
    for item_id, why in now.items.refused.items():
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
        gone = deletions_through(journal, catalogue.sequence)
    log_overlap = LogOverlap(Base(now.items.identity or None, catalogue.sequence))
    return publish_items(now, items, root, manifest.sequence, log_overlap, gone)


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """Result of tuning.

    Attributes:
        before: the index that the source has.
        index: the one that was chosen.
        folder: the published bundle; None where nothing was to be published.
        version: of that bundle, or of the source.
        unopened: why the source's index could not be opened; empty when it could.
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
    tell: Callable[[IndexTrial], None] = lambda _: None,
) -> ReindexReport:
    """Find the fastest index that reaches a target, for the stored users of a bundle.

    Args:
        source: a bundle, or the root whose live version is taken.
        root: where a version with that index is published; None publishes nothing. When it is also the source, its live
            version must not change meanwhile.
        changes: settings of the index that override those of the bundle.
        tell: called with each candidate when it was tried.

    Raises:
        BundleError: The source is missing or damaged.
        ConfigError: A setting is unknown or out of range.
        PublishError: The file system refused, or another version went live meanwhile; what was live stays live.
    """
    if root is not None and (root / MANIFEST).exists():
        raise PublishError("a bundle is not a folder to publish to", where=str(root), hint="Give one with versions: --out")
    old, unopened = open_for_another_index(source, users=None)
    with old:
        bundle, manifest = old.bundle, old.bundle.manifest
        config = _config(manifest, changes)
        users = bundle.tables.user_vectors(user_rows(bundle.encoder, old.users, manifest.seed))
        asked = QuerySample(users, STORED, manifest.seed)
        if root is None:
            with tempfile.TemporaryDirectory() as temporary:
                index = write_index(Path(temporary), bundle.item_vectors, asked, config, tell=tell, always=True)
            drop(index.engine, index.kind, index.params)
            return ReindexReport(manifest.index, index, None, manifest.version, unopened)
        with BundleWriter.open(root) as writer:
            items = bundle.items()
            writer.write_contents(bundle.encoder, bundle.tables, bundle.item_vectors, items, carried_counts(bundle, items))
            writer.link(bundle.users_file)
            write_deletions(writer.folder, read_deletions(bundle.folder))
            columns = partial(coded_columns, items, bundle.encoder)
            index = write_index(writer.folder, bundle.item_vectors, asked, config, tell=tell, always=True, columns=columns)
            settings = {**manifest.config, "index": config.model_dump(mode="json")}
            origin = manifest.provenance(config=settings)
            writer.write_manifest(origin, manifest.sizes.users, manifest.parity, index, manifest.model.fold)
            live = (source / CURRENT).exists() and source.resolve() == root.resolve()
            published, after = writer.publish(golden.record, manifest.sequence if live else None, kept(manifest))
        return ReindexReport(manifest.index, index, published, after.version, unopened)


def _config(manifest: Manifest, changes: Mapping[str, JsonValue]) -> IndexConfig:
    before = IndexConfig.recorded(manifest.config.get("index", {}))
    try:
        return IndexConfig.model_validate({**before.model_dump(), **changes})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(fault["msg"], where=".".join(("index", *map(str, fault["loc"])))) from None


@dataclass(frozen=True, slots=True)
class Adopted(Published):
    """The copy of a version.

    Attributes:
        source: name of the version where it came from.
        unmatched: why it could not be compared with the version that was served; empty when it was, or nothing was served.
    """

    source: str
    unmatched: str = ""


def adopt(version: Path, root: Path, as_of: int = 0, *, other_data: bool = False) -> Adopted:
    """Publish a copy of a version to a root.

    None of the root's live changes are in it, whatever it contains of those of its own root: all are applied on top
    of it, but for those up to `as_of`.

    Args:
        version: the folder of a version, or another root, whose live version is taken.
        root: the folder to publish to.
        as_of: the tables behind the version contain all live changes of `root` up to this sequence.
        other_data: take it although it comes from another data set than the version that is served.

    Raises:
        BundleError: the version is missing, damaged, does not answer its golden requests as it did, or comes from another data
            set.
        IndexFileError: its index does not fit.
        ConfigError: there is no live change of that sequence.
        JournalError: the root's log cannot be read.
        PublishError: the file system refused; what was live stays live.
    """
    folder = resolve(version)
    with Recommender.load(folder, users=None) as recommender:
        golden.check(recommender)
        bundle = recommender.bundle
        unmatched = "" if other_data else _matched(bundle, root)
        log_overlap = compare_with_log(root, bundle.item_ids.values.to_list(), as_of)
        names = (bundle.encoder.user_fields.names, bundle.encoder.item_fields.names)
        base, config = log_overlap.base, with_through(bundle.manifest.config, log_overlap.base.compacted_through)
        with BundleWriter.open(root) as writer:
            for name in bundle.manifest.files:
                writer.copy(folder / name)
            bundle.manifest.adopted(base.compacted_through, base.log, config, names).write(writer.folder)
            published, manifest = writer.publish(lambda copy: _rehearse(copy, root), keep=kept(bundle.manifest))
    return Adopted(published, manifest, log_overlap, folder.name, unmatched)


def _rehearse(copy: Path, root: Path) -> None:
    """Open a copy as it will be served, with the root's live changes on top."""
    Recommender.load(copy, verify=True, root=root, users=None).close()


def _matched(bundle: Bundle, root: Path) -> str:
    """Compare a version with the live one; return why that was not possible.

    Raises:
        BundleError: They come from different data sets.
    """
    if not live_name(root):
        return ""
    try:
        served = load_bundle(root, index=False)
    except BundleError as error:  # which publishing may repair
        return f"the version that was served cannot be read, so whether this one is of the same data is not known: {error.what}"
    refuse_other_data(bundle, served)
    return ""
