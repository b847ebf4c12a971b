"""Detect the settings of `[data.formats]` that depend on the values of a table.

Each `detect_...` function returns the `DetectedFormat` with more settings, or the same one: `unnest`, `strip`, `header`,
`explode`, `carry`, and the conversions of text columns. `combine_...` functions also replace the roles of several columns by
that of a new one.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recall.config.docs import toml
from recall.data.column_names import counts_events, flag_rule, id_column, names_id, word_set
from recall.data.conversions import date_part, parse_lists
from recall.data.entities import id_missing
from recall.data.roles import Role, numbers_of
from recall.data.scaffold.file_format import DetectedFormat
from recall.data.scaffold.id_values import MIN_DISTINCT, MIN_SHARED, are_dense, id_candidates, share_in
from recall.data.scaffold.text_values import (
    ambiguous_pattern,
    any_names_clock,
    are_lists,
    are_times,
    boolean_words,
    clock_pattern,
    compact_pattern,
    date_pattern,
    decimal_mark,
    detect_unit,
    duration_pattern,
    hold_years,
    list_separator,
    time_pattern,
)
from recall.data.tables import Table
from recall.data.time_columns import LATER, TimeCandidate, find_date_parts
from recall.data.times import UNITS, unit_of_time, within_unit
from recall.features.values import canonical_series

# Thresholds. Chosen, not tuned.
_MAX_IRREGULAR = 0.01  # share of lines, such as totals, that may break a rule
_MAX_TITLES = 50  # distinct section titles between the rows
_PLACEHOLDERS = word_set(
    f"0 -1 {uuid.UUID(int=0)} anonymous anonym anonyme anonimo guest gast unknown unbekannt none null undefined public default"
)
_MIN_PLACEHOLDER = 2  # rows of such an id, relative to those of the next
_MIN_MARKED = 2  # columns that mark the first lines of orders, where every line names the user; one may be a flag
_FAR_MORE = 5  # the same for the id 0, where the ids may count from 0 but have gaps
_MIN_PADDED = 0.05  # share of the cells of a column that have blanks around them


def detect_nesting_and_blanks(detected: DetectedFormat, frame: pl.DataFrame, *, text: bool) -> DetectedFormat:
    """Detect nested objects (`unnest`) and blanks around cells (`strip`).

    Args:
        detected: format of the table so far.
        frame: sample of its rows.
        text: whether the table is a text file.
    """
    nested = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]
    if nested:
        return detected.with_settings({"unnest": True}, {"unnest": f"objects in {', '.join(nested)}"})
    if text and not detected.settings.strip:
        for column in frame.select(pl.col(pl.String)):
            padded = column.filter(column.str.contains(r"^\s|\s$"))
            if (len(padded) and column.str.strip_chars().n_unique() < column.n_unique()) or len(padded) > _MIN_PADDED * len(
                column
            ):
                return detected.with_settings({"strip": True}, {"strip": f"blanks around {padded[0]!r} in {column.name}"})
    return detected


def detect_item_lists(
    detected: DetectedFormat, frame: pl.DataFrame, item_id: str | None = None, items: Table | None = None
) -> DetectedFormat:
    """Detect rows with a list of items, which become a row for each item (`explode`).

    Args:
        detected: format of the interactions so far.
        frame: sample of the interactions.
        item_id: column that contains the ids of the items table, or None.
        items: the items table, or None.
    """
    if item_id is not None:  # such as the restaurant of an order, which lists dishes
        return detected
    lists = {name: dtype.inner for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)}
    named = id_column([name for name in frame.columns if name not in lists], "item")
    item_ids = {} if items is None else id_candidates(items, items.columns, unique_ids=True)
    own_ids = pl.Series(dtype=pl.String) if named is None else frame[named].drop_nulls().cast(pl.String).unique()
    beside = names_id(named or "") or any(share_in(own_ids, ids) > 1 - MIN_SHARED for ids in item_ids.values())
    by_content = bool(item_ids) and not beside  # a list beside the id is of other items, such as those on the same page
    texts = [column.drop_nulls() for column in frame.select(pl.col(pl.String)) if by_content or column.name == named]
    settings_of = {column.name: settings for column in texts if (settings := _list_settings(column))}
    listing = named
    for name, settings in settings_of.items() if by_content else ():
        listing = name if any(_members_in(frame[name], settings, ids) for ids in item_ids.values()) else listing
    if listing in settings_of:
        why = f"several items in {frame[listing].drop_nulls()[0][:40]!r}"
        changes = {"explode": listing, **settings_of[listing]}
        return detected.with_settings(changes, dict.fromkeys(changes, why))
    if named is not None:
        return detected
    for name, inner in lists.items():
        members = [f"{name}.{member.name}" for member in inner.fields] if isinstance(inner, pl.Struct) else [name]
        if id_column(members, "item") is not None:
            why = f"each member of {name} is an item: it becomes a row"
            return detected.with_settings({"explode": name, "unnest": True}, {"explode": why, "unnest": f"objects in {name}"})
    return detected


def _list_settings(texts: pl.Series) -> dict[str, Any]:
    """Return the settings that read several ids in a cell; empty for other text."""
    separator = "" if are_lists(texts) else list_separator(texts)
    return {"lists": (texts.name,)} if are_lists(texts) else {"explode_by": separator} if separator else {}


def _members_in(texts: pl.Series, settings: Mapping[str, Any], ids: pl.Series) -> bool:
    lists = parse_lists(texts) if "lists" in settings else texts.str.split(settings["explode_by"])
    return share_in(lists.explode().str.strip_chars().drop_nulls().unique(), ids) >= MIN_SHARED


def detect_placeholder_users(
    detected: DetectedFormat, frame: pl.DataFrame, user_id: str, listed: pl.Series | None = None
) -> DetectedFormat:
    """Detect the id that all unknown users have (`missing`), such as 0 or "guest".

    It is far more frequent than any other. Of ids that count from 0, that of 0 is a user, unless the users table lacks it.

    Args:
        detected: format of the interactions so far.
        frame: sample of the interactions.
        user_id: column of user ids.
        listed: ids of the users table, [n]; None without one.
    """
    if frame[user_id].dtype.is_nested():
        return detected
    counts = frame[user_id].drop_nulls().cast(pl.String).str.strip_chars().value_counts(sort=True, name="rows")
    most = str(counts[user_id][0]).lower() if len(counts) else ""
    if len(counts) < MIN_DISTINCT or (most not in _PLACEHOLDERS and not re.fullmatch("0{4,}|9{4,}", most)):
        return detected
    (placeholder, rows), (_, next_rows) = counts.rows()[:2]
    numbers = counts[user_id].cast(pl.Int64, strict=False)
    has_gaps = numbers.n_unique() <= int(numbers.max() or 0) / 2  # type: ignore[arg-type]
    counting = not numbers.has_nulls() and are_dense(numbers) and not (has_gaps and rows >= _FAR_MORE * next_rows)
    unlisted = listed is not None and not (canonical_series(listed) == placeholder).any()
    if rows < _MIN_PLACEHOLDER * next_rows or (placeholder == "0" and counting and not unlisted):
        return detected
    where = ", nor is it in the users table" if unlisted else ""
    why = f"{rows:,} rows, and no other {user_id} in more than {next_rows:,}{where}: assumed to be that of all unknown users"
    return detected.with_settings({"missing": {user_id: (placeholder,)}}, {"missing": why})


def detect_missing_numbers(detected: DetectedFormat, frame: pl.DataFrame, *, interactions: bool) -> DetectedFormat:
    """Detect 0 among unix times, and 9999 far above all others (`missing`).

    Args:
        detected: format of the table so far.
        frame: sample of its rows, without ids.
        interactions: whether the table is the interactions; there nines may be amounts.
    """
    found = {}
    for column in frame:
        numbers = None if column.dtype.is_nested() else numbers_of(column)
        high = None if numbers is None else numbers.max()
        if numbers is None or high is None:
            continue
        others = numbers.filter(numbers != 0).to_numpy()
        unit = unit_of_time(others) if 0 < len(others) < numbers.count() else ""
        if unit and within_unit(others, UNITS[unit]).all():
            found[column.name] = (str(column.filter(numbers == 0)[0]),)
        elif not interactions and re.fullmatch(r"9{3,}(\.0)?", str(high)):
            below = numbers.filter(numbers < high)
            if 0 < len(below) < numbers.count() - 1 and float(below.max()) < high / 2:  # type: ignore[arg-type, operator]
                found[column.name] = (str(column.filter(numbers == high)[0]),)
    if not found:
        return detected
    whys = [*filter(None, [detected.reasons.get("missing")]), f"far from all other numbers of {', '.join(found)}"]
    return detected.with_settings({"missing": {**detected.settings.missing, **found}}, {"missing": "; ".join(whys)})


def detect_carried_columns(detected: DetectedFormat, frame: pl.DataFrame, user_id: str, item_id: str) -> DetectedFormat:
    """Detect columns with values on the first line of each order only (`carry`).

    Args:
        detected: format of the interactions so far.
        frame: sample of the interactions.
        user_id: column that may be filled on the first lines only; otherwise the state and the sums of the order may be.
        item_id: column that every line fills.
    """
    complete = not frame[user_id].null_count()
    frame = frame if complete else frame.filter(pl.col(item_id).is_not_null())
    user_missing = frame[user_id].is_null()
    if frame.is_empty() or not (complete or _MIN_PADDED < user_missing.mean() < 1) or user_missing[0]:  # type: ignore[operator]
        return detected
    filled = {name: frame[name].is_not_null() for name in frame.columns if frame[name].null_count()}
    for order in (name for name, dtype in frame.schema.items() if name != user_id and not dtype.is_nested()):
        values = frame[order]
        first_lines = values.ne_missing(values.shift(1))
        first_lines[0] = True
        if values.null_count() or not values.n_unique() == first_lines.sum() < len(values):
            continue
        marked = [name for name, there in filled.items() if (first_lines == there).all()]
        of_order = len(marked) >= _MIN_MARKED and frame.select(order, user_id).n_unique() == values.n_unique()
        if user_id in marked or (complete and of_order):
            columns = [name for name, there in filled.items() if not (there & ~first_lines).any() and there.any()]
            why = f"filled on the first line of each {order} only"
            return detected.with_settings({"carry": dict.fromkeys(columns, order)}, {"carry": why})
    if complete:
        return detected
    missing_together = [name for name in frame.columns if (frame[name].is_null() != user_missing).mean() < _MAX_IRREGULAR]  # type: ignore[operator]
    if any(
        are_times(frame[name].drop_nulls()) for name in missing_together if frame[name].dtype == pl.String
    ) or any_names_clock(missing_together):
        why = f"lines without {user_id} have no time either: they belong to the line above"
        return detected.with_settings({"carry": dict.fromkeys(missing_together, "")}, {"carry": why})
    return detected


_GROUPS = r"^\D*\d{1,3}([.,]\d{3})+\D*$"  # such as 1,234
_CONVERTED = ("numbers", "units", "times", "durations", "years", "lists", "booleans")


def detect_conversions(detected: DetectedFormat, frame: pl.DataFrame, ids: set[str], *, interactions: bool) -> DetectedFormat:
    """Detect text columns of numbers, times, durations, lists and booleans.

    Args:
        detected: format of the table so far.
        frame: sample of its rows.
        ids: id columns, which remain text.
        interactions: whether the table is the interactions; there yes and no may be events, and remain text.
    """
    columns_of: dict[str, dict[str, Any]] = {name: {} for name in _CONVERTED}
    frame = frame.with_columns(pl.col(pl.String).replace("", None))  # JSON has "" for missing values
    if interactions:
        detected, frame = _skip_section_titles(detected, frame, sorted(ids & set(frame.columns)))
    clocks = _find_clock_columns(frame) if interactions else {}
    ambiguous_dates: list[str] = []
    ambiguous_marks: list[str] = []
    for column in frame:
        known = column.drop_nulls()
        if column.name in clocks:
            pattern, clock = date_pattern(known), clocks[column.name]
            columns_of["times"][column.name] = f"{pattern} {clock_pattern(frame[clock])}"
        elif isinstance(column.dtype, pl.List) and isinstance(column.dtype.inner, pl.Struct):
            named = "name" in [member.name for member in column.dtype.inner.fields]
            columns_of["lists"] |= {column.name: None} if named else {}
        elif column.dtype.is_integer() and column.name not in ids and (pattern := compact_pattern(known)):
            columns_of["times"][column.name] = pattern
        elif column.dtype == pl.Duration:
            columns_of["durations"][column.name] = "m:s"
        elif column.dtype != pl.String or column.name in (*ids, *clocks.values()) or known.is_empty():
            continue
        elif pattern := time_pattern(known):
            columns_of["times"][column.name] = pattern
        elif mark := decimal_mark(known):
            columns_of["numbers"][column.name] = mark
            ambiguous_marks += [column.name] if known.str.contains(_GROUPS).all() else []
        elif duration_format := duration_pattern(known):
            columns_of["durations"][column.name] = duration_format
        elif units := detect_unit(known):
            columns_of["units"][column.name] = units
            numbers = known.str.strip_suffix(units[0]).str.strip_suffix(units[-1]).str.strip_chars()
            columns_of["numbers"][column.name] = decimal_mark(numbers) or "."
            ambiguous_marks += [column.name] if numbers.str.contains(_GROUPS).all() else []
        elif not interactions and hold_years(known) and not are_times(known):
            columns_of["years"][column.name] = None
        elif are_lists(known):
            columns_of["lists"][column.name] = None
        elif not interactions and (pair := boolean_words(known)) is not None:
            columns_of["booleans"][column.name] = pair
        if (pattern := columns_of["times"].get(column.name, "")) and column.dtype == pl.String:
            alternative = ambiguous_pattern(known, pattern) if column.name not in clocks else ""
            part = "year" if "%y" in (pattern[:2], alternative[:2]) else "month"
            ambiguous_dates += (
                [f"; {alternative} fits {column.name} as well: check which number is the {part}"] if alternative else []
            )
    marks = {mark for name, mark in columns_of["numbers"].items() if name not in ambiguous_marks}
    if len(marks) == 1:  # 1,234 and 1.234 are read as the other numbers of the file
        columns_of["numbers"] |= dict.fromkeys(ambiguous_marks, marks.pop())
    changes: dict[str, Any] = {name: values for name, values in columns_of.items() if values}
    changes |= {name: tuple(columns_of[name]) for name in ("years", "lists") if columns_of[name]}
    if columns_of["lists"] and detected.settings.explode in detected.settings.lists:  # read by now, and a row for each item
        changes["lists"] = (*detected.settings.lists, *changes["lists"])
    changes |= {"clocks": clocks} if clocks else {}
    reasons = {}
    for setting, value in changes.items():
        shown = ", ".join(
            f"the names of objects in {name}"
            if frame[name].dtype.is_nested()
            else f"{str(frame[name].drop_nulls()[0])!r} in {name}"
            for name in value
        )
        reasons[setting] = f"such as {shown}{''.join(ambiguous_dates) if setting == 'times' else ''}"
    if ambiguous_marks and len(marks) != 1:
        reasons["numbers"] += (
            f"; check whether the marks of {' and '.join(ambiguous_marks)} divide groups of three digits, as assumed"
        )
    if columns_of["durations"]:
        reasons["durations"] += '; they become seconds, and of two numbers the first are minutes (with "h:m" hours)'
    if clocks:
        reasons["clocks"] = "a date and a time of day in two columns"
    return detected.with_settings(changes, reasons) if changes else detected


def _skip_section_titles(
    detected: DetectedFormat, frame: pl.DataFrame, ids: Sequence[str]
) -> tuple[DetectedFormat, pl.DataFrame]:
    """Leave out section titles, which have no ids, among rows that begin with numbers.

    Returns the format with the titles as `totals`, and the other rows of the sample.
    """
    first_column, numbered = frame.columns[0], r"^\W*\d"
    if not ids or frame.schema[first_column] != pl.String or first_column in ids:
        return detected, frame
    data_rows = frame.filter(~id_missing(ids))
    titles = frame.filter(id_missing(ids))[first_column].drop_nulls().unique(maintain_order=True)
    titles = titles.filter(~titles.str.contains(numbered))
    if not 0 < len(titles) <= _MAX_TITLES or not data_rows[first_column].drop_nulls().str.contains(numbered).all():
        return detected, frame
    why = f"rows without {' or '.join(ids)}, such as {titles[0]!r}"
    labels = tuple(dict.fromkeys((*detected.settings.totals, *titles.str.strip_chars())))
    return detected.with_settings({"totals": labels}, {"totals": why}), frame.filter(
        ~pl.col(first_column).is_in(titles).fill_null(value=False)
    )


def combine_date_parts(
    detected: DetectedFormat, frame: pl.DataFrame, roles: Mapping[str, Role]
) -> tuple[DetectedFormat, dict[str, Role]]:
    """Combine columns of year, month and day into the time (`dates`).

    Nothing changes if another column is the time, or if there are two such dates.

    Args:
        detected: format of the interactions so far.
        frame: sample of the interactions.
        roles: role of each column.

    Returns:
        The format, and the roles with the new column instead of its parts.
    """
    describing = [name for name, role in roles.items() if role.kind in ("item", "user")]  # such as the year of a film
    candidates = [parts for parts in find_date_parts(frame.select(list(roles)), describing) if len(parts) >= 3]
    parts = candidates[0] if len(candidates) == 1 else []
    if not parts or any(role.time is not None and role.time.rank[:2] >= (2, LATER + 1) for role in roles.values()):
        return detected, dict(roles)
    try:
        frame.select(pl.datetime(*(date_part(pl.col(part)).cast(pl.Int32) for part in parts)))
    except pl.exceptions.PolarsError:  # 30 February
        return detected, dict(roles)
    new_name = next(name for name in ("date", "date_of_row") if name not in roles)
    remaining = {name: role for name, role in roles.items() if name not in parts}
    combined = {name: Role("moment", role.reason) if role.kind == "time" else role for name, role in remaining.items()}
    combined[new_name] = Role("time", f"made of {', '.join(parts)}", time=TimeCandidate((2, 3, 1), ""))
    return detected.with_settings(
        {"dates": {new_name: tuple(parts)}}, {"dates": "the parts of a date in several columns"}
    ), combined


def combine_flags(detected: DetectedFormat, roles: Mapping[str, Role]) -> tuple[DetectedFormat, dict[str, Role]]:
    """Combine columns such as clicked and purchased into one of events (`flags`).

    Args:
        detected: format of the interactions so far.
        roles: role of each column.

    Returns:
        The format, and the roles with the new column instead of the flags.
    """
    count_columns = {name for name, role in roles.items() if role.kind == "amount" and role.low >= 0 and counts_events(name)}
    flags = [name for name, role in roles.items() if role.flag or name in count_columns]
    if len(flags) < 2 or any(role.kind == "event" and not role.flag for role in roles.values()):
        return detected, dict(roles)
    rule = flag_rule(flags)
    new_name = next(name for name in ("event", "event_of_row", "event_of_the_row") if name not in roles)
    flags_in_order = (*rule.weights, *rule.not_taken, *rule.left_out)
    reason = f"the last of {', '.join(flags_in_order)} that is {'above 0' if count_columns else 'true'}, see flags below"
    combined = {name: role for name, role in roles.items() if name not in flags}
    combined[new_name] = Role("event", reason, events=rule)
    why = "one column of events"
    if rule.weights:
        why += f"; to use one of these alone, write label = {toml([*rule.weights][-1])} instead of events, and remove this line"
    return detected.with_settings({"flags": {new_name: flags_in_order}}, {"flags": why}), combined


def _find_clock_columns(frame: pl.DataFrame) -> dict[str, str]:
    """Return the column with the time of day for each column of dates.

    Either each is the only one of its kind, or the time of day is the next column after the date.
    """
    texts = [column.drop_nulls() for column in frame if column.dtype in (pl.String, pl.Date, pl.Time)]
    texts = [column for column in texts if len(column)]
    days = [column.name for column in texts if column.dtype != pl.Time and date_pattern(column)]
    texts = [
        column for column in texts if column.dtype == pl.Time or (column.dtype == pl.String and not duration_pattern(column))
    ]
    clocks = [column.name for column in texts if clock_pattern(column)]
    adjacent = [day for day, name in zip(frame.columns, frame.columns[1:], strict=False) if day in days and [name] == clocks]
    return (
        dict(zip(days, clocks, strict=True))
        if len(days) == len(clocks) == 1
        else {one: name for one in adjacent for name in clocks}
    )
