"""Draft the text of a configuration: `[data]` with the outcomes, and `[fields]`."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl

from recall.config.docs import toml, toml_key
from recall.data.column_names import COLUMN_WORDS, names_person, title_of, words
from recall.data.entities import id_missing
from recall.data.roles import MOST_LEVELS, Role, detect_roles, numbers_of
from recall.data.scaffold.fields import (
    ATTRIBUTE,
    SAMPLE_ROWS,
    FieldNames,
    draft_context_fields,
    draft_described_fields,
    draft_table_fields,
    find_unique_texts,
    guess_field,
    last_value_per_id,
    unreadable_comment,
)
from recall.data.scaffold.file_format import DetectedFormat
from recall.data.scaffold.folder_files import FolderFiles, files_in
from recall.data.scaffold.id_values import find_links
from recall.data.scaffold.survey import Survey, distinct_values, interactions_per_row, read_sample, survey
from recall.data.scaffold.table_format import combine_date_parts, combine_flags
from recall.data.tables import Table
from recall.features.values import canonical_series

_CONTROL_CHARACTERS = r"[\x00-\x1f\x7f]"  # TOML forbids them in comments, such as line breaks
# Thresholds. Chosen, not tuned.
_LIKED_SHARE = 0.75  # part of a rating scale above which a rating is a like: 4 of 1 to 5, 8 of 0 to 10
_MIN_PAIRS = 20  # users and items of an event, in fewer of which others may occur by chance
_MIN_SAME = 0.95  # share of the ids with the same value in a column of the interactions and one of their table


def draft_outcomes(roles: Mapping[str, Role]) -> Iterator[str]:
    """Draft the lines of `[data]` for the time, the split, and the outcomes.

    Only one outcome is active; the alternatives are comments.

    Args:
        roles: role of each column of the interactions.
    """
    time = find_time_column(roles)
    if time is not None:
        yield f"time = {toml(time)}  # {roles[time].reason}"
    for name, role in roles.items():
        if role.kind == "time" and role.time is not None and not role.time.readable:
            yield f"# {name} is not used as the time: {role.reason}"
    if any(role.kind == "split" for role in roles.values()):
        yield 'split = { by = "column" }'
    elif time is not None:
        yield 'split = { by = "last", test = 1, valid = 1 }  # the last interaction of each user tests'
    else:
        yield 'split = { by = "random" }  # without a time, interactions drawn at random validate and test'
    drafted: set[str] = set()
    event_column = next((name for name, role in roles.items() if role.kind == "event" and role.events is not None), None)
    for name, role in roles.items():
        match role.kind:
            case "event":
                yield from _event_lines(name, role, active=name == event_column, event_column=event_column)
            case "label":
                yield from _label_lines(
                    name, role, active="label" not in drafted and event_column is None, event_column=event_column
                )
                drafted.add("label")
            case "amount" if name.lower() == "weight" and role.low > 0 and role.high > role.low:
                yield f"weight = {toml(name)}  # {role.reason}"
            case "amount":
                yield from _amount_lines(name, role, active="outcome" not in drafted)
                drafted |= {"outcome"} if role.low < 0 else set()
            case "rating":
                yield from _rating_lines(name, role)
            case "assumed":
                yield from _assumed_lines(name, role)
            case "consequence":
                yield f"# {name}: {role.reason}, so no field reads it"


def find_time_column(roles: Mapping[str, Role]) -> str | None:
    """Return the column for `data.time`, or None."""
    times = (name for name, role in roles.items() if role.kind == "time" and role.time is not None and role.time.readable)
    return next(times, None)


def _event_lines(name: str, role: Role, *, active: bool, event_column: str | None) -> Iterator[str]:
    rule = role.events
    if rule is None:
        return
    weights = {event: int(weight) if weight.is_integer() else weight for event, weight in rule.weights.items()}
    keys = [f"column = {toml(name)}", f"weights = {toml(weights)}"]
    keys += [f"left_out = {toml(rule.left_out)}"] if rule.left_out else []
    keys += [f"not_taken = {toml(rule.not_taken)}"] if rule.not_taken else []
    keys += [f"missing = {toml(rule.missing)}"] if rule.missing else []
    yield f"# {name} says what happened ({role.reason}), so no field reads it. The weights are a proposal:"
    if rule.left_out:
        yield "# events that undo another event are left out: their rows are ignored"
    if rule.not_taken:
        yield "# items that were shown and not taken do not count as interactions; log loss learns from them"
    if rule.missing:
        yield f"# rows without a value are {_MISSING_COMMENTS[rule.missing]}"
    if rule.unknown and (len(rule.weights) > 1 or rule.left_out or rule.not_taken):
        yield f"# events of unknown meaning, which weigh 1: {', '.join(rule.unknown)}"
    if not active:
        yield f"# the outcome that is used is {event_column}; to use {name} instead:"
    yield f"{'' if active else '# '}events = {{ {', '.join(keys)} }}"


_MISSING_COMMENTS = {
    "taken": "interactions that weigh 1",
    "left out": "left out: they are ignored",
    "not taken": "shown and not taken, and do not count as interactions",
}


def _label_lines(name: str, role: Role, *, active: bool, event_column: str | None) -> Iterator[str]:
    comment = f"{role.reason}: a row of 0 was shown and not taken, and does not count as an interaction"
    if active:
        yield f"label = {toml(name)}  # {comment}"
        return
    used = "another label" if event_column is None else event_column
    yield f"# {name}: {comment}. The outcome that is used is {used}; to use this one instead:"
    yield f"# label = {toml(name)}"


def _assumed_lines(name: str, role: Role) -> Iterator[str]:
    """Draft comments for a column that looks like an outcome by its values only."""
    yield f"# {name} holds {role.reason}. Assumed: it is the result of the interaction, so no field reads it."
    if role.levels:
        yield "# If so, use one of these lines: rows below are left out, or were shown and not taken; or it weighs the rows"
        few = len(role.levels) <= MOST_LEVELS
        yield from _usage_comments(name, role, _liked_level(role) if few else _median_level(role))
    else:
        yield "# If so, and if a row of 1 (or true) was taken and one of 0 (or false) shown and not taken, use this line:"
        yield f"# label = {toml(name)}"
    yield "# If a request knows it before an item is chosen, write this line below [fields]:"
    kind = "numeric" if len(role.levels) > MOST_LEVELS else "categorical"
    yield f'# {toml_key(name)} = {{ side = "user", kind = "{kind}", source = "interactions" }}'


def _amount_lines(name: str, role: Role, *, active: bool) -> Iterator[str]:
    if role.low == role.high:
        yield f"# {name}: {role.reason}; it is known only afterwards, so no field reads it"
        return
    yield f"# {name} holds {role.reason}, known only afterwards, so no field reads it."
    if role.low < 0 and active:
        least = next((level for level in role.levels if level > 0), 1.0)
        yield "# Rows with a negative number (returns?) are left out; remove the line to count every row:"
        yield f"outcome = {{ column = {toml(name)}, at_least = {least:g} }}"
        return
    yield "# All rows weigh the same unless one of these lines is used: rows below are left out, or it weighs the rows"
    yield from _usage_comments(name, role, _median_level(role))


def _usage_comments(name: str, role: Role, threshold: float) -> Iterator[str]:
    """Draft comments that use a numeric column as a threshold, a label, or weights."""
    missing = ', missing = "taken"' if role.has_missing else ""
    yield f"# outcome = {{ column = {toml(name)}, at_least = {threshold:g}{missing} }}"
    yield f'# outcome = {{ column = {toml(name)}, at_least = {threshold:g}, below = "not taken"{missing} }}'
    condition = "needs a positive value in each row" if role.has_missing else "positive only together with a line above"
    yield f"# weight = {toml(name)}{'' if role.low > 0 and not role.has_missing else f'  # {condition}'}"


def _rating_lines(name: str, role: Role) -> Iterator[str]:
    yield f"# {name} holds {role.reason}, known only afterwards, so no field reads it."
    yield "# Every row counts as a like, regardless of its rating, unless one of these lines is used: rows below are left out,"
    yield "# or were shown and not taken; or it weighs the rows"
    yield from _usage_comments(name, role, _liked_level(role))


def _liked_level(role: Role) -> float:
    return next((level for level in role.levels if level >= role.low + _LIKED_SHARE * (role.high - role.low)), role.high)


def _median_level(role: Role) -> float:
    positive = [level for level in role.levels if level > 0]
    return positive[len(positive) // 2] if positive else role.high


def draft(folder: Path, user_id: str | None = None, item_id: str | None = None, files: Mapping[str, Path] | None = None) -> str:
    """Return the TOML text of a configuration for the tables in a folder.

    Args:
        folder: folder of the configuration, to which its paths are relative.
        user_id: column of the interactions with the user's id; None to detect it.
        item_id: column of the interactions with the item's id; None to detect it.
        files: path of each table; None to find them in the folder.

    Raises:
        DataError: The folder is missing, there are no interactions, or an id column is not found.
    """
    found = FolderFiles(dict(files)) if files else files_in(folder)
    sources = dict(found.paths)
    optional = [] if files else [name for name in sources if name != "interactions"]
    empty = [name for name in optional if sources[name].is_file() and not sources[name].stat().st_size]
    notes = found.comments()
    notes += [f"# {sources.pop(name).name} is empty, so that no table of {name} is read" for name in empty]
    surveyed = survey(sources, user_id, item_id, optional)
    paths = {name: Path(os.path.relpath(sources[name], folder)).as_posix() for name in sources if name in surveyed.tables}
    return draft_tables(surveyed, folder.resolve().name, paths, notes)


def draft_tables(surveyed: Survey, name: str, paths: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """Return the TOML text of a configuration for surveyed tables.

    Args:
        surveyed: the opened tables with their formats and ids.
        name: name of the run.
        paths: path of each table, for the configuration.
        notes: comment lines about the tables.

    Raises:
        DataError: There are no interactions.
    """
    tables, user_id, item_id = dict(surveyed.tables), surveyed.user_id, surveyed.item_id
    interactions = tables["interactions"]
    frame = read_sample(interactions)
    roles = detect_roles(frame, user_id, item_id, distinct_values(interactions, frame))
    roles = {column: _raise_later_events(role, column, frame, (user_id, item_id)) for column, role in roles.items()}
    ids = {"users": user_id, "items": item_id}
    table_ids = surveyed.table_ids
    if "missing_ids" in surveyed.row_settings:
        for name_, id_ in table_ids.items():
            tables[name_] = replace(tables[name_], frame=tables[name_].frame.filter(~id_missing([id_])))
    if "repeated_ids" in surveyed.row_settings:
        keep: Literal["first", "last"] = "first" if surveyed.row_settings["repeated_ids"][0] == "first" else "last"
        for name_, id_ in table_ids.items():
            tables[name_] = replace(tables[name_], frame=tables[name_].frame.unique(id_, keep=keep, maintain_order=True))
    users, items = tables.get("users"), tables.get("items")
    titles = () if items is None else find_unique_texts(items, {item_id, table_ids["items"]})
    user_name = None if users is None else title_of(find_unique_texts(users, {user_id, table_ids["users"]}))
    detected, roles = combine_flags(*combine_date_parts(surveyed.formats["interactions"], frame, roles))
    surveyed = replace(surveyed, formats={**surveyed.formats, "interactions": detected})
    roles |= {name: Role("consequence", why) for name, why in _unknown_in_advance(detected, roles, frame)}
    describing = _DescribingColumns.choose(roles, frame, tables, surveyed, titles)
    time = find_time_column(roles)
    without_time = 0 if time is None or time not in interactions.types else interactions.collect([time])[time].null_count()

    lines = [f"name = {toml(name)}", "", "[data]"]
    lines += [f"{name} = {toml(path)}" for name, path in paths.items()]
    lines += [*notes, *(f"# warning: {warning}" for warning in surveyed.warnings)]
    lines += [
        f"{name} = {toml(value)}{surveyed.why(name)}"
        for name, value in (("user_id", user_id), ("item_id", item_id))
        if value != name
    ]
    lines += [
        f"id_in_{name} = {toml(column)}  # holds ids of the interactions, each once"
        for name, column in table_ids.items()
        if column != ids[name]
    ]
    lines += describing.lines()
    if user_name is not None:
        lines += [f"user_attributes = {toml([user_name])}  # kept with each user, who is found by it"]
    if without_time:
        lines += [f'missing_times = "left out"  # {without_time:,} interactions have no {time}; they are not read']
    lines += draft_outcomes(roles)
    lines += surveyed.lines()
    field_names = FieldNames(user_id, item_id)
    results = {name: _possible_results(tables[name], id_, roles, frame) for name, id_ in table_ids.items()}
    lines += ["", "[fields]", f'{toml_key(user_id)} = {{ side = "user", kind = "categorical" }}']
    if users is not None:
        shared = set(interactions.columns) - set(describing.copied)
        per_row = interactions_per_row(users, table_ids["users"], frame[user_id])
        lines += draft_table_fields(
            users, "user", {user_id, table_ids["users"]}, shared, field_names, per_row, results["users"]
        )
    lines += draft_described_fields(frame, describing.user_fields, "user", user_id, field_names)
    lines += draft_context_fields(
        _counted_rows(frame, roles, (user_id, item_id)), roles, () if users is None else users.columns, field_names
    )
    lines += [unreadable_comment(interactions, name) for name in interactions.columns if name not in frame.columns]
    history = toml_key(field_names.allocate("previous", "previous_items"))
    lines += [f'{history} = {{ kind = "history", lags = [[1, 1], [2, 3], [4, 10]] }}'] if time else []
    lines += [f'{toml_key(item_id)} = {{ side = "item", kind = "categorical" }}']
    if items is not None:
        per_row = interactions_per_row(items, table_ids["items"], frame[item_id])
        lines += draft_table_fields(
            items, "item", {item_id, table_ids["items"]}, (), field_names, per_row, results["items"], titles
        )
    lines += draft_described_fields(frame, describing.item_fields, "item", item_id, field_names)
    lines += [f"# {name}: {reason}" for name, reason in describing.skipped.items()]
    lines += [
        "",
        "[train]",
        'objective = "auto"  # known recipes are raced on the validation part; the best is trained on it, too',
    ]
    return "\n".join([*(re.sub(_CONTROL_CHARACTERS, " ", line) for line in lines), ""])


def _raise_later_events(role: Role, name: str, frame: pl.DataFrame, ids: tuple[str, str]) -> Role:
    """Return the role of events where those that only follow another weigh as much.

    Such as plays of games that were all bought before.

    Args:
        role: any role.
        name: its column.
        frame: sample of the interactions.
        ids: columns of the user and the item.
    """
    if role.events is None or len(role.events.weights) < 2 or any(frame[one].dtype.is_nested() for one in ids):
        return role
    rows = frame.select(*ids, canonical_series(frame[name]).alias("\0event")).unique()
    pairs = {event: rows.filter(pl.col("\0event") == event).select(ids) for event in role.events.weights}
    weights, reason = dict(role.events.weights), role.reason
    for event, own in pairs.items():
        for earlier, other in pairs.items():
            shared = own.join(other, on=ids, how="semi").height
            follows = own.height >= _MIN_PAIRS and shared >= _MIN_SAME * own.height and shared < _MIN_SAME * other.height
            if follows and weights[event] < weights[earlier]:
                weights[event] = weights[earlier]
                reason += f"; {event} only follows {earlier}, so it weighs as much"
    return replace(role, events=replace(role.events, weights=weights), reason=reason)


def _possible_results(table: Table, id_: str, roles: Mapping[str, Role], frame: pl.DataFrame) -> dict[str, str]:
    """Return reasons by column of users or items that may result from interactions.

    Args:
        table: the users or items.
        id_: their id column.
        roles: role of each column of the interactions.
        frame: sample of the interactions.
    """
    reasons = dict.fromkeys(find_links(table, id_), "lists of ids of the same table, which may follow from the interactions")
    for name, dtype in table.types.items():
        in_log = name in frame.columns and name not in (id_, "") and dtype.is_numeric()
        role = roles.get(name) if in_log else None
        if in_log and ((role is not None and role.kind in ("rating", "assumed")) or frame[name].n_unique() == 1):
            reasons[name] = f"the interactions also have {name}, which it may add up"
    return reasons


def _unknown_in_advance(detected: DetectedFormat, roles: Mapping[str, Role], frame: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield contexts that a request is assumed not to know, and why."""
    for name in (name for name, role in roles.items() if role.kind == "context"):
        if name in detected.settings.durations:
            yield name, "how long something took, assumed to be known only afterwards"
        elif name in (detected.settings.header or ()) and re.fullmatch(r"column_\d+", name):
            yield name, "a column without a name, assumed to be unknown when a request comes"
        elif COLUMN_WORDS["exposure"] & set(words(name)) and name in frame.columns and numbers_of(frame[name]) is not None:
            yield name, "the place where the item was shown, assumed to follow from the answer to a request"


def _counted_rows(frame: pl.DataFrame, roles: Mapping[str, Role], ids: Sequence[str]) -> pl.DataFrame:
    """Return the rows with ids that the drafted outcome counts, without returns."""
    frame = frame.filter(~id_missing(ids))
    amount = next((name for name, role in roles.items() if role.kind == "amount" and role.low < 0), None)
    kept = frame if amount is None else frame.filter(pl.col(amount).cast(pl.Float64, strict=False) > 0)
    return frame if kept.is_empty() else kept


@dataclass(frozen=True, slots=True)
class _DescribingColumns:
    """Columns of the interactions that describe users or items, by their use.

    Attributes:
        user_fields: columns that user fields read.
        item_fields: columns that item fields read.
        attributes: columns that describe items and serve filters only.
        titles: title columns of the items table, which serve filters only.
        skipped: reason for each column that no field reads.
    """

    user_fields: tuple[str, ...]
    item_fields: tuple[str, ...]
    attributes: tuple[str, ...]
    titles: tuple[str, ...]
    skipped: dict[str, str]

    @staticmethod
    def choose(
        roles: Mapping[str, Role],
        frame: pl.DataFrame,
        tables: Mapping[str, Table],
        surveyed: Survey,
        titles: tuple[str, ...],
    ) -> "_DescribingColumns":
        readable: dict[str, list[str]] = {"user": [], "item": []}
        attributes: list[str] = []
        skipped: dict[str, str] = {}
        for name, role in roles.items():
            if role.kind not in ("user", "item"):
                continue
            table = tables.get(f"{role.kind}s")
            own_id = surveyed.user_id if role.kind == "user" else surveyed.item_id
            copy = "" if table is None else _find_copy(frame, name, own_id, table, surveyed.table_ids[f"{role.kind}s"])
            if copy:
                skipped[name] = f"in the interactions it {role.reason}; the {role.kind}s table has it as {copy}"
                continue
            guessed = guess_field(last_value_per_id(frame, name, own_id))
            if role.kind == "user" and frame[name].dtype == pl.String and names_person(name):
                skipped[name] = "names of people: nothing to learn from"
            elif guessed.keys:
                readable[role.kind].append(name)
            elif role.kind == "item" and not frame[name].dtype.is_temporal():
                attributes.append(name)
                skipped[name] = f"{guessed.reason}; {ATTRIBUTE}"
            else:
                skipped[name] = guessed.reason
        return _DescribingColumns(tuple(readable["user"]), tuple(readable["item"]), tuple(attributes), titles, skipped)

    @property
    def copied(self) -> tuple[str, ...]:
        """Columns that are copied to the users or items table."""
        return (*self.user_fields, *self.item_fields, *self.attributes)

    def lines(self) -> list[str]:
        """Return the lines of `[data]` for these columns."""
        settings = (
            ("user_columns", self.user_fields, "follow from the user, who gets the most frequent value"),
            ("item_columns", (*self.item_fields, *self.attributes), "follow from the item, which gets the most frequent value"),
            ("attributes", (*self.attributes, *self.titles), "nothing to learn from; requests may filter by them"),
        )
        return [f"{name} = {toml(columns)}  # {why}" for name, columns, why in settings if columns]


def _find_copy(frame: pl.DataFrame, name: str, own_id: str, table: Table, table_id: str) -> str:
    """Return the column of a table with the name or the values of a column, or ""."""
    if name in table.types:
        return name
    own = (
        frame.select(pl.col(own_id).cast(pl.String).alias("\0id"), pl.col(name).alias("\0own"))
        .drop_nulls()
        .unique("\0id", keep="last")
    )
    rows = table.frame.head(SAMPLE_ROWS).collect().with_columns(pl.col(table_id).cast(pl.String).alias("\0id"))
    both = own.join(rows, on="\0id")
    alike = (one for one in both.drop("\0id", "\0own", table_id).iter_columns() if one.dtype == both["\0own"].dtype)
    return next((one.name for one in alike if (one == both["\0own"]).sum() > _MIN_SAME * len(both)), "")
