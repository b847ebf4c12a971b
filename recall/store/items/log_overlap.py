"""Overlap of a table of items with the change log of the root to publish to.

Live changes apply on top of every version, whether they were compacted or not, except those that the version's tables contain.
Tables contain no live changes unless the configuration states the sequence up to which they do.
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
"""Key of `[data]`: sequence of the last live change that the tables contain."""


@dataclass(frozen=True, slots=True)
class LogOverlap:
    """Items that occur in a table of items, in the change log of a root, or in both.

    Attributes:
        base: changes that a version built from the table contains.
        hidden: ids of items in the table that a live upsert replaces.
        withheld: ids of items in the table that a live deletion removes.
        added: ids of live upserts that are not in the table; they are served on top of it.
        returned: ids of items that the table contains although it also contains their deletion; they are served again.
        assumed: changes up to this sequence are no longer in the log, so the table is assumed to contain them; 0 for none.
    """

    base: Base = Base()  # noqa: RUF009 - immutable
    hidden: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    assumed: int = 0

    def describe(self) -> list[str]:
        """Describe the overlap in sentences; empty without an overlap."""
        sentences = []
        if self.hidden:
            sentences.append(f"live changes override the values of {_named(self.hidden)} in this table")
        if self.withheld:
            verb = "stay" if len(self.withheld) > 1 else "stays"
            sentences.append(f"{_named(self.withheld)} of this table {verb} deleted by live changes")
        if self.added:
            verb = "are" if len(self.added) > 1 else "is"
            sentences.append(f"{_named(self.added)} added by live changes {verb} served in addition to this table")
        if self.returned:
            sentences.append(f"this table restores {_named(self.returned)} deleted by live changes")
        if self.assumed:
            sentences.append(
                f"live changes up to {self.assumed} are no longer in the log: the table is assumed to contain them"
            )
        if sentences and not self.base.compacted_through:
            sentences.append("if the table contains live changes, give --as-of SEQUENCE or data.contains_changes_through")
        return sentences

    def to_json(self) -> dict[str, object]:
        """Return the overlap as JSON values."""
        sets = {name: list(getattr(self, name)) for name in ("hidden", "withheld", "added", "returned")}
        return {"as_of": self.base.compacted_through, "assumed": self.assumed, **sets}


def compare_with_log(root: Path, ids: Iterable[str], as_of: int = 0) -> LogOverlap:
    """Compare the ids of a table of items with the change log of a root.

    Args:
        root: folder of published versions; it need not exist yet.
        ids: ids of the table's items.
        as_of: the table contains all changes up to this sequence.

    Raises:
        ConfigError: `as_of` is after the last change.
        JournalError: The log cannot be read.
    """
    with closing(open_log(root)) as journal:
        state = journal.state()
        if as_of > (0 if state is None else state.last):
            raise ConfigError(
                f"the tables cannot contain live changes up to {as_of}",
                where=f"data.{THROUGH}",
                why="there were none" if state is None else f"the last change is {state.last}",
                hint="Give the sequence with which the last change was acknowledged, or leave it out",
            )
        if state is None:
            return LogOverlap()
        assumed = state.pruned if as_of < state.pruned else 0
        rows = journal.read(None, Base(state.identity or None, state.pruned)).rows
    base, table = Base(state.identity or None, max(as_of, assumed)), set(ids)
    pruned = [(item_id, sequence) for item_id, sequence in _compacted_deletions(root).iter_rows() if sequence <= state.pruned]
    deleted = [*pruned, *((row.item_id, row.sequence) for row in rows if row.features is None)]
    upserted = [row.item_id for row in rows if row.features is not None and row.sequence > base.compacted_through]
    return LogOverlap(
        base,
        hidden=tuple(item_id for item_id in upserted if item_id in table),
        withheld=tuple(item_id for item_id, sequence in deleted if sequence > base.compacted_through and item_id in table),
        added=tuple(item_id for item_id in upserted if item_id not in table),
        returned=tuple(item_id for item_id, sequence in deleted if sequence <= base.compacted_through and item_id in table),
        assumed=assumed,
    )


def deletions_through(journal: ChangeLog, upto: int) -> pl.DataFrame:
    """Return the deletions in a log up to a sequence, in the schema of a bundle.

    Args:
        journal: the change log.
        upto: sequence of the last change to include.

    Raises:
        JournalError: The log cannot be read.
    """
    state = journal.state()
    rows = [] if state is None else journal.read(None, Base(state.identity or None, state.pruned)).rows
    deleted = [(row.item_id, row.sequence) for row in rows if row.features is None and row.sequence <= upto]
    return pl.DataFrame(deleted, schema=no_deletions().schema, orient="row")


def contained_through(manifest: Manifest, identity: str) -> int:
    """Return the last sequence of a log that the tables of a version contain.

    Args:
        manifest: manifest of the version.
        identity: identity of the log.

    Returns:
        The sequence; 0 if the tables contain no change.
    """
    through = manifest.section("data").get(THROUGH)
    return through if isinstance(through, int) and manifest.log == identity else 0


def _compacted_deletions(root: Path) -> pl.DataFrame:
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
