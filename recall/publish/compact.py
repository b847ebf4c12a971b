"""Compact live changes into a new version, so that the delta segment stays small.

The new version records up to which change it contains them; later ones are replayed from the log on top of it, as those
before were on top of the old one. So it may be killed at any point: either version gives the same answers. The log keeps
what was compacted, because a version that is published from tables later may need it.
"""

from contextlib import closing
from pathlib import Path

from recall.bundle.manifest import Manifest
from recall.bundle.versions import locked, resolve, versions
from recall.errors import BundleError, JournalError, PublishError
from recall.publish.rebuild import RebuildReport, publish_items
from recall.serving.recommender import Recommender
from recall.store.items.binding import Standing, contained, deletions
from recall.store.items.log import JOURNAL, ChangeLog
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
    folder = resolve(root)
    with locked(root / _LOCK, 0.0, "another process is compacting"):
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
    with closing(ChangeLog(root / JOURNAL)) as journal:
        state = journal.state()
        if state is None:
            return 0
        held: list[int] = []
        for version in versions(root):
            try:
                held.append(contained(Manifest.read(version), state.identity))
            except BundleError:
                return 0  # what a damaged version would need is unknown
        lowest = min(held, default=0)
        return journal.prune(lowest) if lowest > state.pruned else 0


def _published(now: Recommender, root: Path) -> RebuildReport | None:
    catalogue, manifest = now.items.current(), now.bundle.manifest
    if catalogue.sequence == manifest.folded:
        return None
    if now.items.lacks:
        raise JournalError(
            f"version {manifest.version} lacks changes up to {now.items.lacks} of an earlier journal",
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
    with closing(ChangeLog(root / JOURNAL)) as journal:
        gone = deletions(journal, catalogue.sequence)
    standing = Standing(Base(now.items.identity or None, catalogue.sequence))
    return publish_items(now, items, root, manifest.sequence, standing, gone)
