"""Publishing a catalogue with its live changes as a version of its own, so that what lies over it stays small.

The new version says up to which change it holds them; later ones are read from the journal on top of it, as those before
were on top of the old one. So it may be killed at any point: either version gives the same answers. The journal keeps what was
compacted: what is published from tables later gives the same answers whether this has run or not.
"""

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
    """Publish the live version's model with the items as they are now, and let the journal forget what no version needs.

    Args:
        root: the folder of published versions.

    Returns:
        What was published; None when nothing has changed since the live version.

    Raises:
        PublishBusyError: another process does the same.
        JournalError: the journal cannot be read, or a change does not fit the live version.
        BundleError, ExportError, PublishError: as `rebuild`; what was live stays live.
    """
    folder = resolve(root)
    with locked(root / _LOCK, 0.0, "another process is compacting"):
        now = Recommender.load(folder, root=root, pause=None, users=None)  # the catalogue at one moment
        try:
            report = _published(now, root)
        finally:
            now.close()
        prune(root)
        return report


def prune(root: Path) -> int:
    """Drop what no version can need again from the journal, and give how many changes.

    That is what the tables behind every version hold, as whoever trained from them has said. What compaction has put into a
    version stays in the journal: a version that is trained from older tables needs it.

    Raises:
        JournalError: the journal cannot be read or written.
    """
    journal = ChangeLog(root / JOURNAL)
    try:
        state = journal.state()
        if state is None:
            return 0
        held: list[int] = []
        for version in versions(root):
            try:
                held.append(contained(Manifest.read(version), state.identity))
            except BundleError:
                return 0  # nobody knows what a damaged one would need
        lowest = min(held, default=0)
        return journal.prune(lowest) if lowest > state.pruned else 0
    finally:
        journal.close()


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
            hint="Give the item anew, or delete it",
        )
    items = catalogue.items()
    if items.is_empty():
        raise PublishError("every item was deleted", where=str(root), hint="A version holds at least one item: add some first")
    journal = ChangeLog(root / JOURNAL)
    try:
        gone = deletions(journal, catalogue.sequence)
    finally:
        journal.close()
    standing = Standing(Base(now.items.identity or None, catalogue.sequence))
    return publish_items(now, items, root, manifest.sequence, standing, gone)
