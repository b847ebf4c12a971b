"""The expected state of a root as plain dictionaries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Value(NamedTuple):
    """The values of an item."""

    category: str | None
    price: float | None


Catalogue = dict[str, Value]
Changes = list[tuple[str, Value | None]]
"""New values by item id, None for a deleted item."""


class Line(NamedTuple):
    """Versions made from the same table. Compaction stays within a line, because it changes no answer.

    Attributes:
        table: items of the table.
        model: versions of one model give equal items equal scores.
    """

    table: Mapping[str, Value]
    model: int


@dataclass
class Truth:
    """The acknowledged state.

    Attributes:
        lines: tables of the versions.
        versions: the line of each version, by sequence.
        changes: changes of items in order; all apply to every line, compacted or not.
        pending: changes of a process that crashed before it could acknowledge them: all are applied, or none.
        users: history by user, latest first; None for a deleted user.
        pending_user: the same for users.
        damaged: number of changes when the log was last damaged; None if it is complete.
    """

    lines: list[Line] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    changes: Changes = field(default_factory=list)
    pending: Changes = field(default_factory=list)
    users: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pending_user: tuple[str, str] | None = None
    damaged: int | None = None

    def items(self, version: int, upto: int | None = None) -> Catalogue:
        """Return the catalogue of a version with the changes up to a sequence, or all."""
        items = dict(self.lines[self.versions[version]].table)
        _apply(items, self.changes if upto is None else self.changes[:upto])
        return items

    def with_pending(self, version: int) -> Catalogue:
        """Return `items` with the changes in flight when a process crashed."""
        items = self.items(version)
        _apply(items, self.pending)
        return items

    def possible(self, version: int, item: str) -> set[Value | None]:
        """Return the permitted values of an item while the log lacks changes."""
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
    """Describe some differences."""
    wrong = sorted(one for one in found.keys() | expected.keys() if found.get(one) != expected.get(one))
    shown = [f"{one} is {found.get(one)}, expected {expected.get(one)}" for one in wrong[:3]]
    return f"{len(wrong)} differ: " + "; ".join(shown)
