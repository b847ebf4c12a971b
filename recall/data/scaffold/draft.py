"""The text of a drafted configuration: `[data]` with its outcomes, and `[fields]`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from recall.config.docs import toml, toml_key
from recall.data.column_names import title_of
from recall.data.roles import Role, roles
from recall.data.scaffold.fields import (
    ATTRIBUTE,
    ROWS,
    Keys,
    clean,
    context_fields,
    described_fields,
    guess,
    one_each,
    readable,
    table_fields,
    unlearnable,
    unreadable,
)
from recall.data.scaffold.shape import with_dates, with_flags
from recall.data.scaffold.survey import Survey, files_in, survey
from recall.data.tables import Table
from recall.errors import DataError

# Lines of `[data]` about time, split and outcomes.

_LIKED = 0.75  # of the way up a scale of ratings: 4 of 5, 8 of 10. Chosen, not tuned.


def data_lines(found: Mapping[str, Role]) -> Iterator[str]:
    """Draft lines for the time, the split, and every outcome.

    Alternatives are written as comments.
    """
    time = time_column(found)
    if time is not None:
        yield f"time = {toml(time)}  # {found[time].reason}"
    for name, role in found.items():
        if role.kind == "time" and role.time is not None and not role.time.readable:
            yield f"# {name} is not used as the time: {role.reason}"
    if any(role.kind == "split" for role in found.values()):
        yield 'split = { by = "column" }'
    elif time is not None:
        yield 'split = { by = "last", test = 1, valid = 1 }  # the last interaction of each user tests'
    else:
        yield 'split = { by = "random" }  # without a time, interactions drawn at random validate and test'
    taken: set[str] = set()
    events = next((name for name, role in found.items() if role.kind == "event" and role.events is not None), None)
    for name, role in found.items():
        match role.kind:
            case "event":
                yield from _event(name, role, active=name == events, events=events)
            case "label":
                yield from _label(name, role, active="label" not in taken and events is None, events=events)
                taken.add("label")
            case "amount" if name.lower() == "weight" and role.low > 0 and role.high > role.low:
                yield f"weight = {toml(name)}  # {role.reason}"
            case "amount":
                yield from _amount(name, role, active="outcome" not in taken)
                taken |= {"outcome"} if role.low < 0 else set()
            case "rating":
                yield from _rating(name, role)
            case "assumed":
                yield from _assumed(name, role)
            case "said":
                yield f"# {name}: {role.reason}, so no field reads it"


def time_column(found: Mapping[str, Role]) -> str | None:
    """Return the column that `data.time` should name, if there is one."""
    times = (name for name, role in found.items() if role.kind == "time" and role.time is not None and role.time.readable)
    return next(times, None)


def _event(name: str, role: Role, *, active: bool, events: str | None) -> Iterator[str]:
    rule = role.events
    if rule is None:
        return
    parts = [f"column = {toml(name)}", f"weights = {toml({event: _short(weight) for event, weight in rule.weights.items()})}"]
    parts += [f"left_out = {toml(rule.left_out)}"] if rule.left_out else []
    parts += [f"not_taken = {toml(rule.not_taken)}"] if rule.not_taken else []
    parts += [f"missing = {toml(rule.missing)}"] if rule.missing else []
    yield f"# {name} says what happened ({role.reason}), so no field reads it. The weights are a proposal:"
    if rule.left_out:
        yield "# what undoes another event is left out, as if its rows were not there"
    if rule.not_taken:
        yield "# what was shown and not taken does not count as an interaction; log loss learns from it"
    if rule.missing:
        yield f"# rows without a value are {_MISSING[rule.missing]}"
    if rule.unknown and (len(rule.weights) > 1 or rule.left_out or rule.not_taken):
        yield f"# not known here, and counted as 1: {', '.join(rule.unknown)}"
    if not active:
        yield f"# of outcomes {events} is used; to use {name} instead:"
    yield f"{'' if active else '# '}events = {{ {', '.join(parts)} }}"


_MISSING = {
    "taken": "interactions that weigh 1",
    "left out": "left out, as if they were not there",
    "not taken": "shown and not taken, and do not count as interactions",
}


def _short(number: float) -> float:
    return int(number) if number.is_integer() else number


def _label(name: str, role: Role, *, active: bool, events: str | None) -> Iterator[str]:
    why = f"{role.reason}: a row of 0 was shown and not taken, and does not count as an interaction"
    if active:
        yield f"label = {toml(name)}  # {why}"
        return
    other = "There is one label; to use this one" if events is None else f"Of outcomes {events} is used; to use this instead"
    yield f"# {name}: {why}. {other}:"
    yield f"# label = {toml(name)}"


def _assumed(name: str, role: Role) -> Iterator[str]:
    """Draft alternatives for a column that is an outcome by its values only."""
    yield f"# {name} holds {role.reason}. Assumed: it is the result of the interaction, so no field reads it."
    if role.levels:
        liked = next((level for level in role.levels if level >= role.low + _LIKED * (role.high - role.low)), role.high)
        yield "# If so, these lines use it: rows below are left out, or were shown and not taken, or rows weigh by it"
        yield from _uses(name, role, liked)
    else:
        yield "# If so, and if a row of 1 (or true) was taken and one of 0 (or false) shown and not taken, use this line:"
        yield f"# label = {toml(name)}"
    yield "# If a request knows it before an item is chosen, write this line below [fields]:"
    yield f'# {toml_key(name)} = {{ side = "user", kind = "categorical", source = "interactions" }}'


def _amount(name: str, role: Role, *, active: bool) -> Iterator[str]:
    if role.low == role.high:
        yield f"# {name}: {role.reason}; it is known only afterwards, so no field reads it"
        return
    yield f"# {name} holds {role.reason}, known only afterwards, so no field reads it."
    if role.low < 0 and active:
        least = next((level for level in role.levels if level > 0), 1.0)
        yield "# Rows of less than nothing (returns?) are left out; take the line out to count every row:"
        yield f"outcome = {{ column = {toml(name)}, at_least = {least:g} }}"
        return
    yield "# Every row counts alike until one of these lines is used: those below are left out, or rows weigh by it"
    yield from _uses(name, role, _middle(role))


def _uses(name: str, role: Role, least: float) -> Iterator[str]:
    """Draft comments that use numbers: as a threshold, as a label, as weights."""
    missing = ', missing = "taken"' if role.lacking else ""
    yield f"# outcome = {{ column = {toml(name)}, at_least = {least:g}{missing} }}"
    yield f'# outcome = {{ column = {toml(name)}, at_least = {least:g}, below = "not taken"{missing} }}'
    more = "needs a positive value in each row" if role.lacking else "positive only together with a line above"
    yield f"# weight = {toml(name)}{'' if role.low > 0 and not role.lacking else f'  # {more}'}"


def _rating(name: str, role: Role) -> Iterator[str]:
    liked = next((level for level in role.levels if level >= role.low + _LIKED * (role.high - role.low)), role.high)
    yield f"# {name} holds {role.reason}, known only afterwards, so no field reads it."
    yield "# Every row counts as liked, whatever it holds, until one of these lines is used: rows below are left out, or were"
    yield "# shown and not taken, or rows weigh by it"
    yield from _uses(name, role, liked)


def _middle(role: Role) -> float:
    positive = [level for level in role.levels if level > 0]
    return positive[len(positive) // 2] if positive else role.high


# The whole text.
# Thresholds. Chosen, not tuned.
_FEW = 50  # of columns with at most so many values in the sample all rows are read, because an event may be rare


def draft(folder: Path, user_id: str | None = None, item_id: str | None = None, files: Mapping[str, Path] | None = None) -> str:
    """Return the text of a configuration for the tables in a folder.

    Args:
        folder: where the configuration will be, which its paths start at.
        user_id: column of the interactions with the user's id; default: by its name.
        item_id: column of the interactions with the item's id; default: by its name.
        files: of the tables; default: those in the folder.

    Raises:
        DataError: There is no such folder, there are no interactions, or a table lacks its id column.
    """
    sources = dict(files) if files else files_in(folder)
    more = [] if files else [name for name in sources if name != "interactions" and sources[name].is_file()]
    empty = [name for name in more if not sources[name].stat().st_size]
    notes = [f"# {sources.pop(name).name} is empty, so that no table of {name} is read" for name in empty]
    found = survey(sources, user_id, item_id)
    paths = {name: Path(os.path.relpath(path, folder)).as_posix() for name, path in sources.items()}
    return draft_tables(found, folder.resolve().name, paths, notes)


def draft_tables(found: Survey, name: str, paths: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """Return the text of a configuration for opened tables.

    Args:
        found: the tables, and how they are written.
        name: of the run.
        paths: of the tables.
        notes: comments about the tables.

    Raises:
        DataError: A table lacks its id column, or there are no interactions.
    """
    tables, user_id, item_id = found.tables, found.user_id, found.item_id
    interactions = tables["interactions"]
    frame = _head(interactions)
    known = roles(frame, user_id, item_id, _whole(interactions, frame))
    ids = {"users": user_id, "items": item_id}
    own = found.own
    users, items = tables.get("users"), tables.get("items")
    titles = () if items is None else unlearnable(items, {item_id, own["items"]})
    name_of = None if users is None else title_of(unlearnable(users, {user_id, own["users"]}))
    written, known = with_flags(*with_dates(found.written["interactions"], frame, known))
    found = replace(found, written={**found.written, "interactions": written})
    plan = _Plan.of(known, frame, tables, user_id, item_id, titles)
    time = time_column(known)
    timeless = 0 if time is None or time not in interactions.types else interactions.collect([time])[time].null_count()

    lines = [f"name = {toml(name)}", "", "[data]"]
    lines += [f"{name} = {toml(path)}" for name, path in paths.items()]
    lines += [*notes, *(f"# warning: {one}" for one in found.warnings)]
    lines += [
        f"{name} = {toml(value)}{found.why(name)}"
        for name, value in (("user_id", user_id), ("item_id", item_id))
        if value != name
    ]
    lines += [
        f"id_in_{name} = {toml(column)}  # holds ids of the interactions, each once"
        for name, column in own.items()
        if column != ids[name]
    ]
    lines += plan.lines()
    lines += [f"user_attributes = {toml([name_of])}  # kept with each user, who is found by it"] if name_of is not None else []
    if timeless:
        lines += [f'missing_times = "left out"  # {timeless:,} interactions have no {time}; they are not read']
    lines += data_lines(known)
    lines += found.lines()
    keys = Keys(user_id, item_id)
    lines += ["", "[fields]", f'{toml_key(user_id)} = {{ side = "user", kind = "categorical" }}']
    if users is not None:
        shared = set(interactions.columns) - set(plan.moved)
        lines += table_fields(users, "user", {user_id, own["users"]}, shared, keys)
    lines += described_fields(frame, plan.of_users, "user", user_id, keys)
    lines += context_fields(frame, known, plan.users_columns, keys)
    lines += [unreadable(interactions, name) for name in interactions.columns if name not in frame.columns]
    history = f'{toml_key(keys.take("previous", "previous_items"))} = {{ kind = "history", lags = [[1, 1], [2, 3], [4, 10]] }}'
    lines += [history] if time else []
    lines += [f'{toml_key(item_id)} = {{ side = "item", kind = "categorical" }}']
    if items is not None:
        lines += table_fields(items, "item", {item_id, own["items"]}, (), keys, titles)
    lines += described_fields(frame, plan.of_items, "item", item_id, keys)
    lines += [f"# {name}: {reason}" for name, reason in plan.skipped.items()]
    lines += [
        "",
        "[train]",
        'objective = "auto"  # known recipes are raced on the validation part; the best is trained on it, too',
    ]
    return "\n".join([*map(clean, lines), ""])


@dataclass(frozen=True, slots=True)
class _Plan:
    """Use of the columns of the interactions that describe users or items.

    Attributes:
        of_users: columns that user fields read.
        of_items: columns that item fields read.
        attributes: columns of the interactions that describe items, for filters only.
        titles: the same of the items table.
        skipped: columns that no field reads, and why.
        users_columns: columns of the users table.
    """

    of_users: tuple[str, ...]
    of_items: tuple[str, ...]
    attributes: tuple[str, ...]
    titles: tuple[str, ...]
    skipped: dict[str, str]
    users_columns: frozenset[str]

    @staticmethod
    def of(
        found: Mapping[str, Role],
        frame: pl.DataFrame,
        tables: Mapping[str, Table],
        user_id: str,
        item_id: str,
        titles: tuple[str, ...],
    ) -> "_Plan":
        read: dict[str, list[str]] = {"user": [], "item": []}
        attributes: list[str] = []
        skipped: dict[str, str] = {}
        for name, role in found.items():
            if role.kind not in ("user", "item"):
                continue
            table = tables.get(f"{role.kind}s")
            if table is not None and name in table.types:
                skipped[name] = f"in the interactions it {role.reason}; the {role.kind}s table has it"
                continue
            one = guess(one_each(frame, name, user_id if role.kind == "user" else item_id))
            if one.field:
                read[role.kind].append(name)
            elif role.kind == "item" and not frame[name].dtype.is_temporal():
                attributes.append(name)
                skipped[name] = f"{one.reason}; {ATTRIBUTE}"
            else:
                skipped[name] = one.reason
        users = tables["users"].columns if "users" in tables else ()
        return _Plan(tuple(read["user"]), tuple(read["item"]), tuple(attributes), titles, skipped, frozenset(users))

    @property
    def moved(self) -> tuple[str, ...]:
        """Columns that are read as if they were in the table of users or items."""
        return (*self.of_users, *self.of_items, *self.attributes)

    def lines(self) -> list[str]:
        """Return the keys of `[data]` for the moved columns."""
        keys = {
            "user_columns": (
                self.of_users,
                "follow from the user, who gets the most frequent value",
            ),
            "item_columns": (
                (*self.of_items, *self.attributes),
                "follow from the item, which gets the most frequent value",
            ),
            "attributes": ((*self.attributes, *self.titles), "nothing to learn from; requests may filter by them"),
        }
        return [f"{name} = {toml(columns)}  # {why}" for name, (columns, why) in keys.items() if columns]


def _head(table: Table) -> pl.DataFrame:
    """Return the first rows, in the columns that fields can read."""
    head = Table(table.path, table.frame.head(ROWS), table.types).collect(
        name for name in table.columns if readable(table, name)
    )
    if head.is_empty():
        raise DataError("there are no interactions", where=str(table.path), hint="Give at least one row")
    return head


def _whole(table: Table, frame: pl.DataFrame) -> dict[str, pl.Series]:
    """Return the distinct values over all rows, of columns that have few."""
    if len(frame) < ROWS:
        return {}
    names = [name for name in frame.columns if not isinstance(frame[name].dtype, pl.List) and frame[name].n_unique() <= _FEW]
    return {name: table.collect([name])[name].unique() for name in names}
