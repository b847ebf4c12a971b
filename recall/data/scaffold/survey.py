"""Open tables as they are written, and find their ids, with reasons."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from recall.config import DataConfig
from recall.config.docs import toml
from recall.data.column_names import id_column, instead_column, names_visit, table_named
from recall.data.files import files_of, kind_of, plain, unreadable_file
from recall.data.findings import alike
from recall.data.frames import NAMES, open_sources
from recall.data.scaffold.detect import Written, detect
from recall.data.scaffold.fields import ROWS, readable
from recall.data.scaffold.meaning import nulls_of
from recall.data.scaffold.shape import by_content, with_carried, with_columns, with_names, with_rows, with_shape
from recall.data.selection import absent, refuse_lists
from recall.data.tables import Table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import canonical_column, id_type
from recall.features.values import canonical_series

_SHARED = 0.5  # share of the ids of the interactions that the id column of another table must contain. Chosen, not tuned.
_ONCE = 0.9  # share of the rows of a table that must have different ids. Chosen, not tuned.
_OF_MANY = 0.2  # share of the rows of a table of properties that may have different ones, at most. Chosen, not tuned.
_SPARSE = 0.5  # share of the interactions without an id from which on it is a warning. Chosen, not tuned.
_WIDE = 20  # columns of numbers from which on a table may have one for each item. Chosen, not tuned.
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
        warnings: in words.
    """

    tables: dict[str, Table]
    written: dict[str, Written]
    nulls: dict[str, str]
    user_id: str
    item_id: str
    reasons: Mapping[str, str]
    own: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def why(self, name: str) -> str:
        """Return the reason of an id column as a comment."""
        return f"  # {self.reasons[name]}" if name in self.reasons else ""

    def lines(self) -> Iterator[str]:
        """Yield the lines of `[data]` about nulls and ids, and the unusual formats."""
        for setting, (value, why) in self.rows.items():
            yield f"{setting} = {toml(value)}  # {why}"
        if self.nulls:
            why = ", ".join(f"{toml(spelling)} {where}" for spelling, where in self.nulls.items())
            yield f"nulls = {toml(list(self.nulls))}  # missing: {why}"
        for name, written in self.written.items():
            if written.reasons:
                yield ""
                yield f"[data.formats.{name}]"
                for setting, why in written.reasons.items():
                    yield f"{setting} = {toml(getattr(written.form, setting))}  # {why}"


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
        written[name] = with_shape(written[name], frame, text=_is_text(given[name]))
    heads = _heads(_open(given, written, {}))
    nulls: dict[str, str] = {}
    for name, frame in heads.items():
        if _is_text(given[name]) or not isinstance(given[name], str | Path):
            for column in frame.select(pl.col(pl.String)):
                for spelling, why in nulls_of(column):
                    nulls.setdefault(spelling, why)
    tables = _open(given, written, nulls)
    holding = {side: by_content(tables["interactions"], tables.get(f"{side}s"), side) for side in _OPTIONS}
    if holding["user"] == holding["item"]:
        holding = dict.fromkeys(_OPTIONS)
    written = with_names(tables, written, holding)
    written["interactions"] = with_rows(written["interactions"], heads["interactions"])
    tables = _open(given, written, nulls)
    found: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for side, wanted in (("user", user_id), ("item", item_id)):
        found[side], why = find_id(tables, "user" if side == "user" else "item", wanted, holding[side])
        reasons |= {f"{side}_id": why} if why else {}
    if found["user"] == found["item"]:
        raise DataError(
            f"column {found['user']!r} would be the id of both users and items",
            where=str(tables["interactions"].path),
            hint="Name the two columns with --user-id (user_id=) and --item-id (item_id=)",
        )
    written["interactions"] = with_carried(written["interactions"], _heads(tables)["interactions"], *found.values())
    tables = _open(given, written, nulls)
    heads = _heads(tables)
    ids = {"users": found["user"], "items": found["item"]}
    own = {name: own_id(tables[name], heads["interactions"][column], column) for name, column in ids.items() if name in tables}
    for name, frame in heads.items():
        known = {*found.values(), own.get(name, "")}
        written[name] = with_columns(written[name], frame, known, interactions=name == "interactions")
    tables = _open(given, written, nulls)
    rows = row_settings(tables, found["user"], found["item"], own)
    warnings = tuple(_sparse(tables["interactions"], found))
    return Survey(tables, written, nulls, found["user"], found["item"], reasons, own, rows, warnings)


def _open(sources: Mapping[str, object], written: Mapping[str, Written], nulls: Mapping[str, str]) -> dict[str, Table]:
    forms = {name: one.form for name, one in written.items() if one.reasons}
    return open_sources(sources, DataConfig.model_construct(nulls=tuple(nulls), text=(), formats=forms))


def _heads(tables: Mapping[str, Table]) -> dict[str, pl.DataFrame]:
    heads = {}
    for name, table in tables.items():
        try:
            heads[name] = table.frame.head(ROWS).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(table.path, error) from None
    return heads


def _is_text(source: object) -> bool:
    return isinstance(source, str | Path) and kind_of(files_of(Path(source))[0]) in ("text", None)


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
        pattern = re.sub(r"\d+", "*", files[0].name)  # such as sales_2024_01.csv and sales_2024_02.csv
        if len(files) > 1 and sorted(folder.glob(pattern)) == sorted(files):
            by_name[table] = [folder / pattern]
        elif len(files) > 1:
            names = ", ".join(one.name for one in files)
            raise DataError(
                f"several files may be the {table}: {names}",
                where=str(folder),
                hint=f"Name the one that is meant with --{table}; or, where each has a part of the columns, join them first, "
                'such as polars.read_csv("orders.csv").join(polars.read_csv("order_items.csv"), on="order_id")'
                '.write_csv("interactions.csv")',
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


def find_id(
    tables: Mapping[str, Table], side: Literal["user", "item"], wanted: str | None, holding: str | None = None
) -> tuple[str, str]:
    """Return the column of ids in the interactions, and why it is that.

    Args:
        tables: with the interactions.
        side: user or item.
        wanted: the column; None for one with a telling name.
        holding: a column with ids of the other table, unlike that with a telling name.

    Raises:
        DataError: There is none.
    """
    interactions = tables["interactions"]
    usual = f"{side}_id"
    if (wanted or usual) in interactions.types:
        return wanted or usual, ""
    if wanted is None:
        by_name = id_column(interactions.columns, side)
        if holding is None and by_name is not None:
            return by_name, f"the name says {side}"
        holding = holding or _shared(interactions, tables.get(f"{side}s"))
        if holding is not None:
            return holding, f"it holds ids of the {side}s table"
        series = Counter(re.sub(r"\d+$", "", name) for name in interactions.columns if re.search(r"\D\d+$", name))
        stem, count = max(series.items(), key=lambda one: one[1], default=("", 0))
        if side == "item" and stem != "column_" and count > max(_WIDE, len(interactions.columns) / 2):
            raise _wide(interactions, f"{count} columns are called {stem}1, {stem}2, ...")
        if (instead := instead_column(interactions.columns, side)) is not None:
            return instead, f"no name says {side}: each of these counts as one"
    column = wanted or usual
    numbers = [name for name, dtype in interactions.types.items() if _is_numeric(interactions, name)]
    if wanted is None and side == "item" and len(numbers) > _WIDE and len(numbers) > 0.8 * len(interactions.columns):
        raise _wide(interactions, "nearly all columns hold numbers")
    for name, other in tables.items():
        key = next((both for both in interactions.columns if both in other.types and names_visit(both)), None)
        if name != "interactions" and key is not None and id_column(other.columns, side) is not None:
            hint = f'Join them: polars.read_csv("A").join(polars.read_csv("B"), on="{key}").write_csv("interactions.csv")'
            what = f"there is no column of {side}s, which seem to be in {other.path.name}, one row for each {key} and {side}"
            raise DataError(what, where=str(interactions.path), hint=hint)
    near = did_you_mean(column, interactions.columns)
    hint = f"{near}{'' if near.endswith('?') else '.'} Name the column with {_OPTIONS[side]}"
    raise DataError(f"there is no column {column!r}", where=str(interactions.path), hint=hint)


def _wide(table: Table, why: str) -> DataError:
    what = "no name says item, and the table seems to have a column for each item"
    hint = f"Name the column of items with {_OPTIONS['item']}; or write one row for each interaction, such as with polars: "
    return DataError(what, where=str(table.path), why=why, hint=hint + 'frame.unpivot(index="user").drop_nulls()')


def _is_numeric(table: Table, name: str) -> bool:
    known = table.frame.select(name).head(1_000).collect()[name].drop_nulls()
    return len(known) > 0 and known.cast(pl.Float64, strict=False).null_count() == 0 if not known.dtype.is_nested() else False


def _shared(interactions: Table, other: Table | None) -> str | None:
    """Return the one column that another table has too, each value once."""
    if other is None:
        return None
    both = [name for name in interactions.columns if name in other.types]
    unique = [name for name in both if canonical_series(other.collect([name])[name]).is_unique().all()]
    return unique[0] if len(unique) == 1 else None


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
    fitting, similar = [], ""
    telling = id_column(table.columns, "user") or id_column(table.columns, "item")
    for name, dtype in table.types.items():
        if dtype.is_nested() or dtype.is_temporal() or dtype == pl.Boolean or not readable(table, name):
            continue
        values = table.collect([name])[name]
        type_ = id_type([ids, values])
        known = canonical_column(canonical_series(ids), type_).drop_nulls().unique()
        listed = canonical_column(canonical_series(values), type_).drop_nulls()
        each = len(listed) > 0 and listed.n_unique() >= _ONCE * len(listed)
        shared = float(known.is_in(listed.implode()).mean() or 0)  # type: ignore[arg-type]
        if each and (shared >= _SHARED or (shared > 0 and name == telling)):
            fitting.append(name)
        elif each and alike(known).is_in(alike(listed).implode()).mean() >= _SHARED:  # type: ignore[operator]
            similar = f"{name!r} holds them in other case or with other zeros: {listed[0]!r} there, {known[0]!r} here"
    named = id_column(fitting, "user") or id_column(fitting, "item")
    if len(fitting) == 1 or named is not None:
        return named or fitting[0]
    hint = did_you_mean(column, table.columns)
    if fitting:
        why = f"{' and '.join(map(repr, fitting))} hold ids of the interactions"
    else:
        why, hint = (similar, "Write them in one way in both tables") if similar else ("and no column holds their ids", hint)
    raise DataError(f"there is no column {column!r}", where=str(table.path), why=why, hint=hint)


def row_settings(tables: Mapping[str, Table], user_id: str, item_id: str, own: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return settings for rows without ids, and for repeated ids.

    Args:
        tables: by name.
        user_id: column of the interactions.
        item_id: column of the interactions.
        own: id columns of the users and items tables.

    Returns:
        Value and reason by key of `[data]`.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, ids in {"interactions": [user_id, item_id], **{name: [column] for name, column in own.items()}}.items():
        refuse_lists(tables[name], ids)
        values = tables[name].collect(ids)
        missing = values.filter(absent(ids)).height
        if 0 < missing < values.height:
            why = f"{missing:,} of {values.height:,} {name} have no {' or no '.join(ids)}; they are not read"
            found.setdefault("missing_ids", ("left out", why))
        known = values[ids[0]].drop_nulls()
        again = known.filter(known.is_duplicated())
        if name != "interactions" and len(again):
            _refuse_properties(tables[name], ids[0])
            found["repeated_ids"] = (
                "last",
                f"{again.n_unique():,} ids of the {name} are in several rows, such as {again[0]!r}",
            )
    return found


def _sparse(table: Table, ids: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each id that most interactions lack."""
    for side, column in ids.items():
        others = [name for name, dtype in table.types.items() if name not in ids.values() and not dtype.is_nested()]
        other = id_column(others, side) or instead_column(others, side)
        named = [column, *([other] if other is not None else [])]
        empty = table.collect(named).select(absent([name]).mean().alias(name) for name in named).row(0)
        if (empty[0] or 0) <= _SPARSE:
            continue
        message = f"{empty[0]:.0%} of the interactions have no {column}: they are not read, and nothing is learned from them"
        if empty[-1] < empty[0]:
            message += f". {other} is empty in {empty[-1]:.0%}: {_OPTIONS[side]} {other} reads these rows"
        yield message


def _refuse_properties(table: Table, id_: str) -> None:
    """Raise DataError for a table with a row for each property of an item or user."""
    texts = [name for name, dtype in table.types.items() if name != id_ and dtype == pl.String]
    if len(table.columns) > 4 or len(texts) < 2:  # id, property, value, and perhaps a time
        return
    frame = table.collect([id_, *texts])
    for name in texts:
        different = frame[name].n_unique()
        if 1 < different <= len(frame) * _OF_MANY and frame.select(id_, name).n_unique() >= _ONCE * len(frame):
            value = next(other for other in texts if other != name)
            raise DataError(
                f"the table has a row for each value of {name!r}, such as {frame[name][0]!r}",
                where=str(table.path),
                hint=f"Write one row for each {id_}, such as with polars: "
                f'frame.pivot("{name}", index="{id_}", values="{value}", aggregate_function="last")',
            )
