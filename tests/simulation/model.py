"""What a root should hold, as plain dictionaries: the truth that a simulation compares with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Value(NamedTuple):
    """What is said of an item."""

    category: str | None
    price: float | None


Catalogue = dict[str, Value]
Changes = list[tuple[str, Value | None]]
"""Items and their new values, or None for one that is deleted."""


class Line(NamedTuple):
    """Versions that were made from the same table. Compaction stays within one: it changes no answer.

    Attributes:
        table: items that it was made from.
        model: versions of one model give an item of the same values the same score.
    """

    table: Mapping[str, Value]
    model: int


@dataclass
class Truth:
    """Everything that was acknowledged.

    Attributes:
        lines: tables that versions were made from.
        versions: the line of each version, by sequence.
        changes: of items, in order. All of them lie over every line, whether they were compacted or not.
        pending: changes of a process that died before it could say anything: all of them are there, or none.
        users: history by user, latest first; None for one who was deleted.
        pending_user: as `pending`.
        damaged: number of changes there were when the log was last damaged, None when it was not, or holds everything again.
    """

    lines: list[Line] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    changes: Changes = field(default_factory=list)
    pending: Changes = field(default_factory=list)
    users: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pending_user: tuple[str, str] | None = None
    damaged: int | None = None

    def items(self, version: int, upto: int | None = None) -> Catalogue:
        """The catalogue of a version with the changes up to a sequence, or all."""
        items = dict(self.lines[self.versions[version]].table)
        _apply(items, self.changes if upto is None else self.changes[:upto])
        return items

    def with_pending(self, version: int) -> Catalogue:
        """As `items`, with what was in flight when a process died."""
        items = self.items(version)
        _apply(items, self.pending)
        return items

    def possible(self, version: int, item: str) -> set[Value | None]:
        """What an item may be while the log lacks changes: whatever it was at a time, what was said since, or is in flight."""
        past = self.lines[self.versions[version]].table.get(item)
        since = self.damaged or 0
        open_ = {value for one, value in self.pending if one == item}
        later = [value for one, value in self.changes[since:] if one == item]
        if later:
            return {later[-1], *open_}
        return {past, *open_, *(value for one, value in self.changes[:since] if one == item)}


def _apply(items: Catalogue, changes: Iterable[tuple[str, Value | None]]) -> None:
    for item, value in changes:
        if value is None:
            items.pop(item, None)
        else:
            items[item] = value


def difference(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """Some of what differs."""
    wrong = sorted(one for one in found.keys() | expected.keys() if found.get(one) != expected.get(one))
    shown = [f"{one} is {found.get(one)}, expected {expected.get(one)}" for one in wrong[:3]]
    return f"{len(wrong)} differ: " + "; ".join(shown)
