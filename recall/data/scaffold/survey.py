"""Open tables as they are written, with the reason of each assumption."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recall.config import DataConfig
from recall.data.column_names import id_column, instead_column, table_named
from recall.data.files import files_of, kind_of, plain
from recall.data.frames import NAMES, open_sources
from recall.data.identified import absent
from recall.data.scaffold.detect import Written, detect
from recall.data.scaffold.fields import ROWS, array, key, readable, text, unlearnable
from recall.data.scaffold.meaning import (
    clock_pattern,
    day_pattern,
    is_list,
    nulls_of,
    number_mark,
    swapped_pattern,
    time_pattern,
    yes_and_no,
)
from recall.data.tables import Table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import canonical_column, id_type
from recall.features.values import canonical_series

_SHARED = 0.5  # share of the ids of the interactions that the id column of another table must contain. Chosen, not tuned.
_ONCE = 0.9  # share of the rows of a table that must have different ids. Chosen, not tuned.
_PADDED = 0.05  # share of the cells of a column with blanks around them. Chosen, not tuned.
_OPTIONS = {"user": "--user-id (user_id=)", "item": "--item-id (item_id=)"}


@dataclass(frozen=True, slots=True)
class Survey:
    """Opened tables, and how they are written.

    Attributes:
        tables: by name.
        written: how each is written.
        nulls: spellings of missing values, with the reason of each.
        user_id: column of the interactions with the user's id.
        item_id: column of the interactions with the item's id.
        reasons: why these are the ids; empty where they were given.
        own: id columns of the users and items tables.
        rows: settings of `[data]` about rows without ids and repeated ids, with the reason of each.
    """

    tables: dict[str, Table]
    written: dict[str, Written]
    nulls: dict[str, str]
    user_id: str
    item_id: str
    reasons: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def why(self, name: str) -> str:
        """Return the reason of an id column as a comment."""
        return f"  # {self.reasons[name]}" if name in self.reasons else ""

    def lines(self) -> Iterator[str]:
        """Yield the lines of `[data]` about nulls and ids, and the unusual formats."""
        for setting, (value, why) in self.rows.items():
            yield f"{setting} = {text(value)}  # {why}"
        if self.nulls:
            why = ", ".join(f"{text(spelling)} {where}" for spelling, where in self.nulls.items())
            yield f"nulls = {array(self.nulls)}  # missing: {why}"
        for name, written in self.written.items():
            if written.reasons:
                yield ""
                yield f"[data.formats.{name}]"
                for setting, why in written.reasons.items():
                    yield f"{setting} = {_toml(getattr(written.form, setting))}  # {why}"


def survey(sources: Mapping[str, object], user_id: str | None = None, item_id: str | None = None) -> Survey:
    """Open tables, and detect how they are written.

    Args:
        sources: of each table a path or a frame; with interactions.
        user_id: column of the interactions with the user's id; default: by its name.
        item_id: column of the interactions with the item's id; default: by its name.

    Raises:
        DataError: A file cannot be read, or a column of ids is not found.
    """
    given = {name: source for name, source in sources.items() if source is not None}
    written = {name: detect(Path(source)) if isinstance(source, str | Path) else Written() for name, source in given.items()}
    heads = _heads(_open(given, written, {}))
    for name, frame in heads.items():
        written[name] = _with_shape(written[name], frame, text=_is_text(given[name]))
    heads = _heads(_open(given, written, {}))
    nulls: dict[str, str] = {}
    for name, frame in heads.items():
        if _is_text(given[name]) or not isinstance(given[name], str | Path):
            for column in frame.select(pl.col(pl.String)):
                for spelling, why in nulls_of(column):
                    nulls.setdefault(spelling, why)
    tables = _open(given, written, nulls)
    written = _with_names(tables, written)
    tables = _open(given, written, nulls)
    found: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for side, wanted in (("user", user_id), ("item", item_id)):
        found[side], why = _id(tables, "user" if side == "user" else "item", wanted)
        reasons |= {f"{side}_id": why} if why else {}
    for name, frame in _heads(tables).items():
        written[name] = _with_columns(written[name], frame, set(found.values()), interactions=name == "interactions")
    tables = _open(given, written, nulls)
    ids = {"users": found["user"], "items": found["item"]}
    head = _heads({"interactions": tables["interactions"]})["interactions"]
    own = {name: own_id(tables[name], head[column], column) for name, column in ids.items() if name in tables}
    rows = _rows(tables, found["user"], found["item"], own)
    return Survey(tables, written, nulls, found["user"], found["item"], reasons, own, rows)


def _open(sources: Mapping[str, object], written: Mapping[str, Written], nulls: Mapping[str, str]) -> dict[str, Table]:
    forms = {name: one.form for name, one in written.items() if one.reasons}
    return open_sources(sources, DataConfig.model_construct(nulls=tuple(nulls), text=(), formats=forms))


def _heads(tables: Mapping[str, Table]) -> dict[str, pl.DataFrame]:
    return {name: table.frame.head(ROWS).collect() for name, table in tables.items()}


def _is_text(source: object) -> bool:
    return isinstance(source, str | Path) and kind_of(files_of(Path(source))[0]) in ("text", None)


def _with_shape(written: Written, frame: pl.DataFrame, *, text: bool) -> Written:
    """Detect nested objects, and blanks around cells."""
    nested = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]
    if nested:
        return written.with_({"unnest": True}, {"unnest": f"objects in {', '.join(nested)}"})
    if text and not written.form.strip:
        for column in frame.select(pl.col(pl.String)):
            padded = column.filter(column.str.contains(r"^\s|\s$"))
            if (len(padded) and column.str.strip_chars().n_unique() < column.n_unique()) or len(padded) > _PADDED * len(column):
                return written.with_({"strip": True}, {"strip": f"blanks around {padded[0]!r} in {column.name}"})
    return written


def _rows(tables: Mapping[str, Table], user_id: str, item_id: str, own: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return settings for rows without ids, and for repeated ids."""
    found: dict[str, tuple[str, str]] = {}
    for name, ids in {"interactions": [user_id, item_id], **{name: [column] for name, column in own.items()}}.items():
        values = tables[name].collect(ids)
        missing = values.filter(absent(ids)).height
        if 0 < missing < values.height:
            why = f"{missing:,} of {values.height:,} {name} have no {' or no '.join(ids)}"
            found.setdefault("missing_ids", ("left out", why))
        known = values[ids[0]].drop_nulls()
        again = known.filter(known.is_duplicated())
        if name != "interactions" and len(again):
            found["repeated_ids"] = (
                "last",
                f"{again.n_unique():,} ids of the {name} are in several rows, such as {again[0]!r}",
            )
    return found


def own_id(table: Table, ids: pl.Series, column: str) -> str:
    """Return the id column of a users or items table, which may have its own name.

    Args:
        table: of users or items.
        ids: of the interactions, [n].
        column: the name that the interactions use.

    Raises:
        DataError: No column has the name that the interactions use, and not exactly one holds their ids.
    """
    if column in table.types:
        return column
    fitting = []
    for name, dtype in table.types.items():
        if dtype.is_nested() or dtype.is_temporal() or dtype == pl.Boolean or not readable(table, name):
            continue
        values = table.collect([name])[name]
        type_ = id_type([ids, values])
        known = canonical_column(canonical_series(ids), type_).drop_nulls().unique()
        listed = canonical_column(canonical_series(values), type_).drop_nulls()
        each = listed.n_unique() >= _ONCE * len(values)
        if each and known.is_in(listed.implode()).mean() >= _SHARED:  # type: ignore[operator]
            fitting.append(name)
    named = id_column(fitting, "user") or id_column(fitting, "item")
    if len(fitting) == 1 or named is not None:
        return named or fitting[0]
    why = f"{' and '.join(map(repr, fitting))} hold ids of the interactions" if fitting else "and no column holds their ids"
    raise DataError(f"there is no column {column!r}", where=str(table.path), why=why, hint=did_you_mean(column, table.columns))


def _with_names(tables: Mapping[str, Table], written: Mapping[str, Written]) -> dict[str, Written]:
    """Name columns of files without a header.

    The first two of the interactions are user and item.
    """
    named = dict(written)
    for name, one in written.items():
        if one.form.header is None:
            continue
        names = list(one.form.header)
        why = one.reasons["header"]
        if name == "interactions" and len(names) > 1:
            names[:2] = ["user_id", "item_id"]
            why += "; assumed: the user comes first, then the item"
        elif name == "items":
            titles = unlearnable(tables[name], ())
            if titles:
                names[names.index(titles[0])] = "title"
        named[name] = one.with_({"header": tuple(names)}, {"header": why})
    return named


def _id(tables: Mapping[str, Table], side: Literal["user", "item"], wanted: str | None) -> tuple[str, str]:
    """Return the column of ids in the interactions, and why it is that."""
    interactions = tables["interactions"]
    usual = f"{side}_id"
    if (wanted or usual) in interactions.types:
        return wanted or usual, ""
    if wanted is None:
        by_name = id_column(interactions.columns, side)
        if by_name is not None:
            return by_name, f"the name says {side}"
        shared = _shared(interactions, tables.get(f"{side}s"))
        if shared is not None:
            return shared, f"it holds ids of the {side}s table"
        instead = instead_column(interactions.columns, side)
        if instead is not None:
            return instead, f"no name says {side}: each of these counts as one"
    column = wanted or usual
    near = did_you_mean(column, interactions.columns)
    hint = f"{near}{'' if near.endswith('?') else '.'} Name the column with {_OPTIONS[side]}"
    raise DataError(f"there is no column {column!r}", where=str(interactions.path), hint=hint)


def _shared(interactions: Table, other: Table | None) -> str | None:
    """Return the one column that another table has too, each value once."""
    if other is None:
        return None
    both = [name for name in interactions.columns if name in other.types]
    unique = [name for name in both if canonical_series(other.collect([name])[name]).is_unique().all()]
    return unique[0] if len(unique) == 1 else None


def _with_columns(written: Written, frame: pl.DataFrame, ids: set[str], *, interactions: bool) -> Written:
    """Detect numbers, times and lists in the columns of text."""
    found: dict[str, dict[str, Any]] = {"numbers": {}, "times": {}, "lists": {}, "booleans": {}}
    clocks = _clocks(frame) if interactions else {}
    doubts: list[str] = []
    unclear: list[str] = []
    for column in frame:
        known = column.drop_nulls()
        if column.name in clocks:
            pattern, clock = day_pattern(known), clocks[column.name]
            found["times"][column.name] = f"{pattern} {clock_pattern(frame[clock])}"
        elif column.dtype != pl.String or column.name in (*ids, *clocks.values()) or known.is_empty():
            continue
        elif pattern := time_pattern(known):
            found["times"][column.name] = pattern
        elif mark := number_mark(known):
            found["numbers"][column.name] = mark
            unclear += [column.name] if known.str.contains(r"^\D*\d{1,3}([.,]\d{3})+\D*$").all() else []
        elif is_list(known):
            found["lists"][column.name] = None
        elif not interactions and (words := yes_and_no(known)) is not None:
            found["booleans"][column.name] = words
        if (pattern := found["times"].get(column.name, "")) and column.dtype == pl.String:
            other = swapped_pattern(known, pattern) if column.name not in clocks else ""
            doubts += [f"; {other} fits {column.name} as well: check which number is the month"] if other else []
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
    if clocks:
        reasons["clocks"] = "a date and a time of day in two columns"
    return written.with_(changes, reasons) if changes else written


def _clocks(frame: pl.DataFrame) -> dict[str, str]:
    """Return the column of times of day by that of dates, where each is the only one."""
    texts = [column.drop_nulls() for column in frame if column.dtype in (pl.String, pl.Date, pl.Time)]
    texts = [column for column in texts if len(column)]
    days = [column.name for column in texts if column.dtype != pl.Time and day_pattern(column)]
    clocks = [column.name for column in texts if column.dtype != pl.Date and clock_pattern(column)]
    return {days[0]: clocks[0]} if len(days) == len(clocks) == 1 else {}


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key(name)} = {_toml(one)}' for name, one in value.items())} }}"
    if isinstance(value, bool | int):
        return str(value).lower()
    return array(value) if isinstance(value, tuple) else text(str(value))


# Files of a folder.

_OTHER = (".toml", ".md", ".pdf", ".html", ".py", ".ipynb", ".log", ".sql", ".png", ".xlsx")


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by table.

    These are interactions.*, users.* and items.*; without the first, files with similar names.

    Args:
        folder: any.

    Raises:
        DataError: There is no such folder, or no interactions, or several files may be one table.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), hint="Correct the path, or create the folder first")
    there = sorted(one for one in folder.iterdir() if one.name[0] not in "._" and one.suffix.lower() not in _OTHER)
    exact: dict[str, Path] = {}
    for name in NAMES:
        same = [one for one in there if plain(one).stem == name]
        same.sort(key=lambda one: (one.suffix != ".parquet", one.suffix != ".csv", one.name))
        exact |= {name: same[0]} if same else {}
    if "interactions" in exact:
        return exact
    hint = "Write one row for each interaction, with the id of a user and of an item; or name the file with --interactions"
    by_name: dict[str, list[Path]] = {}
    for one in there:
        table = table_named(plain(one).name)
        if table is not None:
            by_name.setdefault(table, []).append(one)
    for table, files in by_name.items():
        if len(files) > 1:
            names = ", ".join(one.name for one in files)
            raise DataError(
                f"several files may be the {table}: {names}",
                where=str(folder),
                hint=f"Name the one that is meant with --{table}",
            )
    if "interactions" not in by_name and len(there) == 1 and plain(there[0]).suffix in (".csv", ".tsv", ".parquet", ".jsonl"):
        by_name = {"interactions": there}
    if "interactions" not in by_name:
        present = sorted(one.name for one in folder.iterdir() if one.name[0] not in "._")
        shown = f"{', '.join(present[:5])}{', ...' if len(present) > 5 else ''}"
        why = f"the folder holds {shown}" if present else "the folder is empty"
        what = "there is no interactions.parquet or .csv, nor a file named like one, such as ratings, orders or events"
        raise DataError(what, where=str(folder), why=why, hint=hint)
    return {name: by_name[name][0] for name in NAMES if name in by_name}
