"""Detect the shape of a table and the meaning of its columns of text."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from recall.config.docs import toml
from recall.data.clock import TimeLike
from recall.data.column_names import counts_events, flag_rule, id_column, names_id
from recall.data.roles import Role
from recall.data.scaffold.detect import Written
from recall.data.scaffold.fields import ROWS, unlearnable
from recall.data.scaffold.meaning import (
    clock_pattern,
    date_parts,
    day_pattern,
    duration_form,
    holds_times,
    is_list,
    members_mark,
    names_clock,
    number_mark,
    swapped_pattern,
    time_pattern,
    units_of,
    yes_and_no,
)
from recall.data.selection import absent
from recall.data.tables import Table

_ODD = 0.01  # share of lines, such as totals, that do not follow a rule. Chosen, not tuned.
_TITLES = 50  # different titles between rows, at most. Chosen, not tuned.
_HELD, _FEWEST, _SAMPLE = 0.9, 5, 2_000  # ids that another table has: their share, and least and most different. Chosen.
_SPARSE = 10  # highest of the numbers of ids, by how many there are, from which on they prove something. Chosen, not tuned.
_FEW = 0.3  # of the numbers that are ids of another table, those that must be there. Chosen, not tuned.
_PADDED = 0.05  # share of the cells of a column with blanks around them. Chosen, not tuned.


def with_shape(written: Written, frame: pl.DataFrame, *, text: bool) -> Written:
    """Detect nested objects, and blanks around cells.

    Args:
        written: what is known of the table.
        frame: some of its rows.
        text: whether it is a text file.
    """
    nested = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]
    if nested:
        return written.with_({"unnest": True}, {"unnest": f"objects in {', '.join(nested)}"})
    if text and not written.form.strip:
        for column in frame.select(pl.col(pl.String)):
            padded = column.filter(column.str.contains(r"^\s|\s$"))
            if (len(padded) and column.str.strip_chars().n_unique() < column.n_unique()) or len(padded) > _PADDED * len(column):
                return written.with_({"strip": True}, {"strip": f"blanks around {padded[0]!r} in {column.name}"})
    return written


def with_names(
    tables: Mapping[str, Table], written: Mapping[str, Written], ids: Mapping[str, str | None]
) -> dict[str, Written]:
    """Name columns of files without a header.

    The first two of the interactions that hold values other than times are user and item, unless other tables have ids of one.

    Args:
        tables: by name.
        written: what is known of each.
        ids: column of the interactions with ids that the users or items have, by side.
    """
    named = dict(written)
    for name, one in written.items():
        if one.form.header is None:
            continue
        names = list(one.form.header)
        why = one.reasons["header"]
        if names[0] != "column_1":
            continue
        if name == "interactions" and len(names) > 1:
            others = _without_ids(tables[name])
            places = [place for place, column in enumerate(names) if column not in others]
            known = {side: names.index(column) for side, column in ids.items() if column in names}
            known = _in_order(tables, [names[place] for place in places[:2]], places) or known
            free = iter([place for place in places if place not in known.values()])
            for side in ("user", "item"):
                place = known.get(side, next(free, None) if side not in known else None)
                if place is not None:
                    names[place] = f"{side}_id"
            assumed = "assumed: the user comes first, then the item"
            why += f"; {assumed if len(known) < len(ids) else 'the other tables have its ids'}"
        elif name == "items":
            titles = unlearnable(tables[name], ())
            if titles:
                names[names.index(titles[0])] = "title"
        named[name] = one.with_({"header": tuple(names)}, {"header": why})
    return named


def by_content(interactions: Table, other: Table | None, side: str) -> str | None:
    """Return the column with the ids of another table, if its name hides that.

    None where the column with a telling name holds some of them. Low numbers without gaps prove nothing: minutes are such, too.

    Args:
        interactions: in which ids recur.
        other: users or items, in which each id is once.
        side: user or item.
    """
    by_name, opposite = id_column(interactions.columns, side), id_column(interactions.columns, _OPPOSITE[side])
    if other is None or (by_name is not None and names_id(by_name)):
        return None
    usual = id_column(other.columns, side)
    theirs = _distinct(other, [usual] if usual is not None and names_id(usual) else other.columns, once=True)
    best: tuple[bool, int, str] = (False, 0, "")
    for name, mine in _distinct(interactions, [name for name in interactions.columns if name != opposite]).items():
        sample = mine.head(_SAMPLE)
        for column, ids in theirs.items():
            share = _share(sample, ids)
            if name == by_name and share > 1 - _HELD:
                return None
            numbers = ids.cast(pl.Int64, strict=False)
            plain = not numbers.has_nulls() and not ids.str.contains(r"^0\d").any()
            dense = plain and numbers.max() < _SPARSE * len(numbers)  # type: ignore[operator]
            few = plain and len(mine) < _FEW * len(ids)
            if share >= _HELD and not dense and not few:
                best = max(best, (name == column, len(mine), name))
    return best[2] or None


_OPPOSITE = {"user": "item", "item": "user"}


def _distinct(table: Table, columns: Sequence[str], *, once: bool = False) -> dict[str, pl.Series]:
    """Return the different values, as text, of columns that may hold ids."""
    names = [name for name in columns if name and (table.types[name] == pl.String or table.types[name].is_integer())]
    rows = table.frame.select(names) if len(names) == 1 else table.frame.select(names).head(ROWS)
    frame = rows.collect().select(pl.all().cast(pl.String).str.strip_chars())
    found = {column.name: column.drop_nulls().unique(maintain_order=True) for column in frame}
    found = {
        name: ids
        for name, ids in found.items()
        if not number_mark(ids.head(_SAMPLE)) and not ids.str.contains(r"^-?\d+\.\d+$").any()
    }
    alike = {name: len(ids) >= _HELD * len(frame) for name, ids in found.items()}
    return {name: ids for name, ids in found.items() if len(ids) >= _FEWEST and alike[name] == once}


def _in_order(tables: Mapping[str, Table], columns: Sequence[str], places: Sequence[int]) -> dict[str, int]:
    """Return the places of user and item, if their tables fit in one order only.

    Args:
        tables: by name.
        columns: the first two of the interactions that may be ids.
        places: of these columns.
    """
    if len(columns) < 2 or not {"users", "items"} <= set(tables):
        return {}
    mine = tables["interactions"].collect(columns).select(pl.all().cast(pl.String).str.strip_chars())
    theirs = [list(_distinct(tables[name], tables[name].columns, once=True).values()) for name in ("users", "items")]
    fits = []
    for order in ((0, 1), (1, 0)):
        both = zip((mine[columns[at]].drop_nulls().unique() for at in order), theirs, strict=True)
        fits.append((min(max((_share(ids, one) for one in held), default=0.0) for ids, held in both), order))
    (other, _), (best, order) = sorted(fits)
    if best < _HELD or other == best or (other >= _HELD and best < 1):
        return {}
    fewest = [_FEW * min(map(len, held)) for held in theirs]
    if any(mine[columns[at]].n_unique() < least for at, least in zip(order, fewest, strict=True)):  # such as ratings
        return {}
    return {side: places[at] for side, at in zip(_OPPOSITE, order, strict=True)}


def _share(ids: pl.Series, among: pl.Series) -> float:
    return float(ids.is_in(among.implode()).mean() or 0)  # type: ignore[arg-type]


def _without_ids(table: Table) -> set[str]:
    """Return the columns of text that hold nothing, or dates or times."""
    head = table.frame.select(pl.col(pl.String)).head(1_000).collect()
    return {column.name for column in head if column.null_count() == len(column) or holds_times(column.drop_nulls())}


def with_rows(written: Written, frame: pl.DataFrame) -> Written:
    """Detect a list of items in each row, where no other column has items.

    Args:
        written: what is known of the interactions.
        frame: some of them.
    """
    lists = {name: dtype.inner for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)}
    item = id_column([name for name in frame.columns if name not in lists], "item")
    if item is not None:
        known = frame[item].drop_nulls()
        if known.dtype != pl.String or not (is_list(known) or members_mark(known)):
            return written
        how: dict[str, Any] = {"lists": (item,)} if is_list(known) else {"explode_by": members_mark(known)}
        return written.with_({"explode": item, **how}, dict.fromkeys(("explode", *how), f"several items in {known[0][:40]!r}"))
    for name, inner in lists.items():
        members = [f"{name}.{member.name}" for member in inner.fields] if isinstance(inner, pl.Struct) else [name]
        if id_column(members, "item") is not None:
            why = f"each member of {name} is an item: it becomes a row"
            return written.with_({"explode": name, "unnest": True}, {"explode": why, "unnest": f"objects in {name}"})
    return written


def with_carried(written: Written, frame: pl.DataFrame, user_id: str, item_id: str) -> Written:
    """Detect columns that only the first line of each order fills.

    Args:
        written: what is known of the interactions.
        frame: some of them.
        user_id: a column that may be one of these.
        item_id: a column that each line fills.
    """
    frame = frame.filter(pl.col(item_id).is_not_null())
    lacking = frame[user_id].is_null()
    if frame.is_empty() or not _PADDED < lacking.mean() < 1 or lacking[0]:  # type: ignore[operator]
        return written
    for order in (name for name, dtype in frame.schema.items() if name != user_id and not dtype.is_nested()):
        values = frame[order]
        first = values.ne_missing(values.shift(1))
        first[0] = True
        if not values.null_count() and values.n_unique() == first.sum() < len(values) and (first == ~lacking).all():
            filled = {name: frame[name].is_not_null() for name in frame.columns if frame[name].null_count()}
            columns = [name for name, there in filled.items() if not (there & ~first).any()]
            why = f"filled on the first line of each {order} only"
            return written.with_({"carry": dict.fromkeys(columns, order)}, {"carry": why})
    alike = [name for name in frame.columns if (frame[name].is_null() != lacking).mean() < _ODD]  # type: ignore[operator]
    if any(holds_times(frame[name].drop_nulls()) for name in alike if frame[name].dtype == pl.String) or names_clock(alike):
        why = f"lines without {user_id} have no time either: they belong to the line above"
        return written.with_({"carry": dict.fromkeys(alike, "")}, {"carry": why})
    return written


_GROUPS = r"^\D*\d{1,3}([.,]\d{3})+\D*$"  # such as 1,234
_CONVERTED = ("numbers", "units", "times", "durations", "lists", "booleans")


def with_columns(written: Written, frame: pl.DataFrame, ids: set[str], *, interactions: bool) -> Written:
    """Detect numbers, times, lists and truth values in the columns of text.

    Args:
        written: what is known of the table.
        frame: some of its rows.
        ids: columns that stay as they are.
        interactions: whether these are the interactions, where words may be events.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in _CONVERTED}
    if interactions:
        written, frame = _without_titles(written, frame, sorted(ids & set(frame.columns)))
    clocks = _clocks(frame) if interactions else {}
    doubts: list[str] = []
    unclear: list[str] = []
    for column in frame:
        known = column.drop_nulls()
        if column.name in clocks:
            pattern, clock = day_pattern(known), clocks[column.name]
            found["times"][column.name] = f"{pattern} {clock_pattern(frame[clock])}"
        elif column.dtype == pl.Duration:
            found["durations"][column.name] = "m:s"
        elif column.dtype != pl.String or column.name in (*ids, *clocks.values()) or known.is_empty():
            continue
        elif pattern := time_pattern(known):
            found["times"][column.name] = pattern
        elif mark := number_mark(known):
            found["numbers"][column.name] = mark
            unclear += [column.name] if known.str.contains(_GROUPS).all() else []
        elif two := duration_form(known):
            found["durations"][column.name] = two
        elif units := units_of(known):
            found["units"][column.name] = units
            numbers = known.str.strip_suffix(units[0]).str.strip_suffix(units[-1]).str.strip_chars()
            found["numbers"][column.name] = number_mark(numbers) or "."
            unclear += [column.name] if numbers.str.contains(_GROUPS).all() else []
        elif is_list(known):
            found["lists"][column.name] = None
        elif not interactions and (words := yes_and_no(known)) is not None:
            found["booleans"][column.name] = words
        if (pattern := found["times"].get(column.name, "")) and column.dtype == pl.String:
            other = swapped_pattern(known, pattern) if column.name not in clocks else ""
            part = "year" if "%y" in (pattern[:2], other[:2]) else "month"
            doubts += [f"; {other} fits {column.name} as well: check which number is the {part}"] if other else []
    marks = {mark for name, mark in found["numbers"].items() if name not in unclear}
    if len(marks) == 1:  # 1,234 and 1.234 are read as the other numbers of the file
        found["numbers"] |= dict.fromkeys(unclear, marks.pop())
    changes: dict[str, Any] = {name: values for name, values in found.items() if values}
    changes |= {"lists": tuple(found["lists"])} if found["lists"] else {}
    changes |= {"clocks": clocks} if clocks else {}
    reasons = {}
    for setting, value in changes.items():
        shown = ", ".join(f"{str(frame[name].drop_nulls()[0])!r} in {name}" for name in value)
        reasons[setting] = f"such as {shown}{''.join(doubts) if setting == 'times' else ''}"
    if unclear and len(marks) != 1:
        reasons["numbers"] += f"; check whether the marks of {' and '.join(unclear)} divide groups of three digits, as assumed"
    if found["durations"]:
        reasons["durations"] += '; they become seconds, and of two numbers the first are minutes (with "h:m" hours)'
    if clocks:
        reasons["clocks"] = "a date and a time of day in two columns"
    return written.with_(changes, reasons) if changes else written


def _without_titles(written: Written, frame: pl.DataFrame, ids: Sequence[str]) -> tuple[Written, pl.DataFrame]:
    """Leave out rows without ids that are titles or remarks among dates or numbers."""
    first, numbered = frame.columns[0], r"^\W*\d"
    if not ids or frame.schema[first] != pl.String or first in ids:
        return written, frame
    kept = frame.filter(~absent(ids))
    titles = frame.filter(absent(ids))[first].drop_nulls().unique(maintain_order=True)
    titles = titles.filter(~titles.str.contains(numbered))
    if not 0 < len(titles) <= _TITLES or not kept[first].drop_nulls().str.contains(numbered).all():
        return written, frame
    why = f"rows without {' or '.join(ids)}, such as {titles[0]!r}"
    rows = tuple(dict.fromkeys((*written.form.totals, *titles.str.strip_chars())))
    return written.with_({"totals": rows}, {"totals": why}), frame.filter(~pl.col(first).is_in(titles).fill_null(value=False))


def with_dates(written: Written, frame: pl.DataFrame, found: Mapping[str, Role]) -> tuple[Written, dict[str, Role]]:
    """Join columns of year, month and day, where no other column is the time.

    Args:
        written: what is known of the interactions.
        frame: some of them.
        found: the role of each column.
    """
    described = [name for name, role in found.items() if role.kind in ("item", "user")]  # such as the year of a film
    dates = [parts for parts in date_parts(frame.select(list(found)), described) if len(parts) >= 3]
    parts = dates[0] if len(dates) == 1 else []
    if not parts or any(role.time is not None and role.time.rank[0] > 1 for role in found.values()):
        return written, dict(found)
    try:
        frame.select(pl.datetime(*(pl.col(part).cast(pl.Float64).cast(pl.Int32) for part in parts)))
    except pl.exceptions.PolarsError:  # 30 February
        return written, dict(found)
    made = next(name for name in ("date", "date_of_row") if name not in found)
    others = {name: role for name, role in found.items() if name not in parts}
    roles = {name: Role("moment", role.reason) if role.kind == "time" else role for name, role in others.items()}
    roles[made] = Role("time", f"made of {', '.join(parts)}", time=TimeLike((2, 3, 1), ""))
    return written.with_({"dates": {made: tuple(parts)}}, {"dates": "the parts of a date in columns of their own"}), roles


def with_flags(written: Written, found: Mapping[str, Role]) -> tuple[Written, dict[str, Role]]:
    """Join columns such as clicked and purchased to one column of events.

    Args:
        written: what is known of the interactions.
        found: the role of each column.
    """
    counts = {name for name, role in found.items() if role.kind == "amount" and role.low >= 0 and counts_events(name)}
    flags = [name for name, role in found.items() if role.flag or name in counts]
    if len(flags) < 2 or any(role.kind == "event" and not role.flag for role in found.values()):
        return written, dict(found)
    rule = flag_rule(flags)
    made = next(name for name in ("event", "event_of_row", "event_of_the_row") if name not in found)
    ordered = (*rule.weights, *rule.not_taken, *rule.left_out)
    last = f"the last of {', '.join(ordered)} that is {'above 0' if counts else 'true'}, see flags below"
    roles = {name: role for name, role in found.items() if name not in flags}
    roles[made] = Role("event", last, events=rule)
    why = "one column of events"
    if rule.weights:
        why += f"; to use one of these alone, write label = {toml([*rule.weights][-1])} instead of events, and remove this line"
    return written.with_({"flags": {made: ordered}}, {"flags": why}), roles


def _clocks(frame: pl.DataFrame) -> dict[str, str]:
    """Return the column of times of day by that of dates, where each is the only one."""
    texts = [column.drop_nulls() for column in frame if column.dtype in (pl.String, pl.Date, pl.Time)]
    texts = [column for column in texts if len(column)]
    days = [column.name for column in texts if column.dtype != pl.Time and day_pattern(column)]
    texts = [column for column in texts if column.dtype == pl.Time or (column.dtype == pl.String and not duration_form(column))]
    clocks = [column.name for column in texts if clock_pattern(column)]
    beside = [day for day, name in zip(frame.columns, frame.columns[1:], strict=False) if day in days and [name] == clocks]
    return (
        dict(zip(days, clocks, strict=True))
        if len(days) == len(clocks) == 1
        else {one: name for one in beside for name in clocks}
    )
