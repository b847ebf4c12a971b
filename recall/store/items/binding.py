"""Live changes that a version built from tables contains, or that stay on top.

One rule, whether changes were compacted or not: live changes apply on top of every version, except those that its tables
contain. Tables contain none unless their owner says up to which sequence they do.
"""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recall.bundle.manifest import Manifest
from recall.bundle.reader import ITEM_ID, SEQUENCE, no_deletions, read_deletions
from recall.bundle.versions import live_name, resolve
from recall.errors import BundleError, ConfigError
from recall.store.items.log import open_log
from recall.store.items.log_base import ChangeLog
from recall.store.items.log_position import Base

THROUGH = "contains_changes_through"
"""Key of `[data]`: the tables contain all live changes up to this sequence."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Relation of a table of items to the live changes of a root.

    Attributes:
        base: what a version made from the table holds of the log.
        hidden: items of the table whose values a live change replaces.
        withheld: items of the table that stay deleted.
        added: live items that the table lacks, and that are served on top of it.
        returned: deleted items that the table brings back, as it contains the deletion's sequence and the item.
        assumed: changes up to this sequence are no longer in the log, so the table is taken to contain them; 0 for none.
    """

    base: Base = Base()  # noqa: RUF009 - immutable
    hidden: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    assumed: int = 0

    def lines(self) -> list[str]:
        """Describe it in sentences, one a line; none without live changes."""
        found = []
        if self.hidden:
            found.append(f"live changes hide the values that this table has of {_named(self.hidden)}")
        if self.withheld:
            verb = "stay" if len(self.withheld) > 1 else "stays"
            found.append(f"{_named(self.withheld)} of this table {verb} deleted, as live changes say")
        if self.added:
            verb = "are" if len(self.added) > 1 else "is"
            found.append(f"{_named(self.added)} {verb} served besides, as live changes say")
        if self.returned:
            found.append(f"this table brings back {_named(self.returned)} that a live change deleted")
        if self.assumed:
            found.append(f"live changes up to {self.assumed} are not in the log any more: the table is taken to contain them")
        if found and not self.base.compacted_through:
            found.append("a table that contains live changes says so by --as-of SEQUENCE, or data.contains_changes_through")
        return found

    def counts(self) -> dict[str, object]:
        """Return all of it for other programs."""
        sets = {name: list(getattr(self, name)) for name in ("hidden", "withheld", "added", "returned")}
        return {"as_of": self.base.compacted_through, "assumed": self.assumed, **sets}


def stand(root: Path, ids: Iterable[str], as_of: int = 0) -> Standing:
    """Compare a table of items with the live changes of the root to publish to.

    Args:
        root: the folder of published versions; it may not exist yet.
        ids: of the table's items.
        as_of: the table contains all changes up to this sequence.

    Raises:
        ConfigError: There is no such change.
        JournalError: The log cannot be read.
    """
    with closing(open_log(root)) as journal:
        state = journal.state()
        if as_of > (0 if state is None else state.last):
            raise ConfigError(
                f"the tables cannot contain live changes up to {as_of}",
                where=f"data.{THROUGH}",
                why="there were none" if state is None else f"the last one is {state.last}",
                hint="Give the sequence that the last change was acknowledged with, or leave it out",
            )
        if state is None:
            return Standing()
        assumed = state.pruned if as_of < state.pruned else 0
        rows = journal.read(None, Base(state.identity or None, state.pruned)).rows
    base, table = Base(state.identity or None, max(as_of, assumed)), set(ids)
    forgotten = [(one, sequence) for one, sequence in _deletions(root).iter_rows() if sequence <= state.pruned]
    gone = [*forgotten, *((row.item_id, row.sequence) for row in rows if row.features is None)]
    given = [row.item_id for row in rows if row.features is not None and row.sequence > base.compacted_through]
    return Standing(
        base,
        hidden=tuple(one for one in given if one in table),
        withheld=tuple(one for one, sequence in gone if sequence > base.compacted_through and one in table),
        added=tuple(one for one in given if one not in table),
        returned=tuple(one for one, sequence in gone if sequence <= base.compacted_through and one in table),
        assumed=assumed,
    )


def deletions(journal: ChangeLog, upto: int) -> pl.DataFrame:
    """Return the deletions in a log up to a sequence, as a bundle stores them.

    Args:
        journal: the log.
        upto: the sequence.

    Raises:
        JournalError: The log cannot be read.
    """
    state = journal.state()
    rows = [] if state is None else journal.read(None, Base(state.identity or None, state.pruned)).rows
    gone = [(row.item_id, row.sequence) for row in rows if row.features is None and row.sequence <= upto]
    return pl.DataFrame(gone, schema=no_deletions().schema, orient="row")


def contained(manifest: Manifest, identity: str) -> int:
    """Return the sequence up to which the tables behind a version contain a log.

    Args:
        manifest: of the version.
        identity: of the log.

    Returns:
        0 where they contain no change.
    """
    data = manifest.config.get("data")
    through = data.get(THROUGH) if isinstance(data, dict) else None
    return through if isinstance(through, int) and manifest.log == identity else 0


def _deletions(root: Path) -> pl.DataFrame:
    """Return the deletions that were compacted into the live version."""
    if not live_name(root):
        return no_deletions()
    try:
        return read_deletions(resolve(root)).select(ITEM_ID, SEQUENCE)
    except BundleError:
        return no_deletions()


def _named(ids: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, ids[:3]))
    return f"{len(ids):,} items ({shown}{', ...' if len(ids) > 3 else ''})" if len(ids) > 1 else f"item {shown}"
