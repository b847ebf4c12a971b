"""Open tables as they are written, with the reason of each assumption."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from recall.config import DataConfig
from recall.data.column_names import id_column, table_named
from recall.data.files import kind_of, plain
from recall.data.frames import NAMES, open_sources
from recall.data.scaffold.detect import Written, detect, is_list, nulls_of, number_mark, swapped_pattern, time_pattern
from recall.data.scaffold.fields import ROWS, array, key, text, unlearnable
from recall.data.tables import Table
from recall.errors import DataError, did_you_mean
from recall.features.values import canonical_series

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
    """

    tables: dict[str, Table]
    written: dict[str, Written]
    nulls: dict[str, str]
    user_id: str
    item_id: str
    reasons: Mapping[str, str]

    def why(self, name: str) -> str:
        """Return the reason of an id column as a comment."""
        return f"  # {self.reasons[name]}" if name in self.reasons else ""

    def lines(self) -> Iterator[str]:
        """Yield the lines of `[data]` about nulls, and a section for each unusual table."""
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
    nulls: dict[str, str] = {}
    for name, frame in heads.items():
        if not isinstance(given[name], str | Path) or kind_of(Path(str(given[name]))) in ("text", None):
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
    ids = set(found.values())
    for name, frame in _heads(tables).items():
        written[name] = _with_columns(written[name], frame, ids, times=name == "interactions")
    return Survey(_open(given, written, nulls), written, nulls, found["user"], found["item"], reasons)


def _open(sources: Mapping[str, object], written: Mapping[str, Written], nulls: Mapping[str, str]) -> dict[str, Table]:
    forms = {name: one.form for name, one in written.items() if one.reasons}
    return open_sources(sources, DataConfig.model_construct(nulls=tuple(nulls), text=(), formats=forms))


def _heads(tables: Mapping[str, Table]) -> dict[str, pl.DataFrame]:
    return {name: table.frame.head(ROWS).collect() for name, table in tables.items()}


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


def _with_columns(written: Written, frame: pl.DataFrame, ids: set[str], *, times: bool) -> Written:
    """Detect numbers, times and lists in the columns of text."""
    changes: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    numbers: dict[str, str] = {}
    moments: dict[str, str] = {}
    doubts: list[str] = []
    lists: list[str] = []
    for column in frame.select(pl.col(pl.String)):
        known = column.drop_nulls()
        if column.name in ids or known.is_empty():
            continue
        if times and (pattern := time_pattern(known)):
            moments[column.name] = pattern
            if other := swapped_pattern(known, pattern):
                doubts.append(f"; {other} fits {column.name} as well: check which number is the month")
        elif mark := number_mark(known):
            numbers[column.name] = mark
        elif is_list(known):
            lists.append(column.name)
    for setting, value in (("numbers", numbers), ("times", moments), ("lists", tuple(lists))):
        if value:
            changes[setting] = value
            shown = ", ".join(f"{frame[name].drop_nulls()[0]!r} in {name}" for name in value)
            reasons[setting] = f"such as {shown}{''.join(doubts) if setting == 'times' else ''}"
    return written.with_(changes, reasons) if changes else written


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key(name)} = {text(one)}' for name, one in value.items())} }}"
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
        raise DataError("there is no interactions.parquet and no interactions.csv", where=str(folder), hint=hint)
    return {name: by_name[name][0] for name in NAMES if name in by_name}
