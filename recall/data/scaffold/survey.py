"""Open the source tables, detect their formats, and find their id columns.

A format can only be detected on a table that opens: so `survey` opens the tables, detects some settings, and opens them
again with these, until all are known.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from recall.config import DataConfig
from recall.config.docs import toml
from recall.data.column_names import fallback_id_column, id_column, names_id, names_visit, table_of_file
from recall.data.entities import id_missing
from recall.data.files import files_of, kind_of, uncompressed_name, unreadable_file
from recall.data.findings import normalize_ids
from recall.data.scaffold.fields import SAMPLE_ROWS, is_readable
from recall.data.scaffold.file_format import DetectedFormat, detect_format
from recall.data.scaffold.table_format import (
    MIN_DISTINCT,
    MIN_NAMED,
    detect_carried_columns,
    detect_conversions,
    detect_id_spelling,
    detect_item_lists,
    detect_missing_numbers,
    detect_nesting_and_blanks,
    detect_placeholder_users,
    find_id_by_content,
    id_candidates,
    name_columns,
)
from recall.data.scaffold.text_values import NULL_SPELLINGS, NULL_SPELLINGS_OF_NUMBERS, date_pattern, find_null_spellings
from recall.data.selection import refuse_nested_ids
from recall.data.tables import TABLE_NAMES, Table, open_table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import canonical_column, id_type
from recall.features.values import canonical_series

# Thresholds. Chosen, not tuned.
_MIN_SHARED = 0.5  # share of the interactions' ids that the id column of a users or items table must contain
_MIN_UNIQUE = 0.9  # distinct values of an id column in its own table, relative to the rows
_MAX_PROPERTIES = 0.2  # distinct property names in a table of (id, property, value), relative to the rows
_MIN_REPEATED = 10  # repeated ids whose first rows alone are marked, to take the mark for that of current rows
_MAX_MISSING = 0.5  # share of interactions without an id; more are reported as a warning
_MIN_ONCE = 0.8  # distinct values / rows of a column that both tables have; former rows may be there, too
_MAX_NUMERIC = 20  # numeric columns; with more, the table may be a user-item matrix
_CODE = r"^\pL{0,4}-?\d{5,}$"  # such as a number of a loyalty card
_MAX_FOLLOWING = 1.1  # distinct pairs with ids of the other side / these ids, up to which a column follows from them
_OPTIONS = {"user": "--user-id (user_id=)", "item": "--item-id (item_id=)"}


@dataclass(frozen=True, slots=True)
class Survey:
    """The opened tables, and the settings of `[data]` that read them.

    Attributes:
        tables: opened tables by name: interactions, users, items.
        formats: detected format of each table.
        nulls: reason by spelling of a missing value.
        user_id: column of the interactions with the user's id.
        item_id: column of the interactions with the item's id.
        id_reasons: reason by setting, "user_id" or "item_id"; without those that the caller named.
        table_ids: id column of the users and of the items table.
        row_settings: (value, reason) of `missing_ids` and `repeated_ids`, where rows need them.
        warnings: messages about missing ids.
    """

    tables: dict[str, Table]
    formats: dict[str, DetectedFormat]
    nulls: dict[str, str]
    user_id: str
    item_id: str
    id_reasons: Mapping[str, str]
    table_ids: Mapping[str, str] = field(default_factory=dict)
    row_settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def why(self, name: str) -> str:
        """Return the reason for an id column as a TOML comment, or ""."""
        return f"  # {self.id_reasons[name]}" if name in self.id_reasons else ""

    def lines(self) -> Iterator[str]:
        """Yield the lines of `[data]` for nulls and ids, and `[data.formats]`."""
        for setting, (value, why) in self.row_settings.items():
            yield f"{setting} = {toml(value)}  # {why}"
        if self.nulls:
            why = ", ".join(f"{toml(spelling)} {where}" for spelling, where in self.nulls.items())
            yield f"nulls = {toml(list(self.nulls))}  # missing: {why}"
        for name, detected in self.formats.items():
            if detected.reasons:
                yield ""
                yield f"[data.formats.{name}]"
                for setting, why in detected.reasons.items():
                    yield f"{setting} = {toml(getattr(detected.settings, setting))}  # {why}"


def survey(sources: Mapping[str, object], user_id: str | None = None, item_id: str | None = None) -> Survey:
    """Open the tables, detect their formats, and find the id columns.

    Args:
        sources: a path or a frame for each table; interactions are required.
        user_id: column of the interactions with the user's id; None to detect it.
        item_id: column of the interactions with the item's id; None to detect it.

    Raises:
        DataError: A file cannot be read, or an id column is not found.
    """
    given = {name: source for name, source in sources.items() if source is not None}
    formats = {
        name: detect_format(Path(source)) if isinstance(source, str | Path) else DetectedFormat()
        for name, source in given.items()
    }
    heads = _collect_heads(_open(given, formats, {}))
    for name, frame in heads.items():
        formats[name] = detect_nesting_and_blanks(formats[name], frame, text=_is_text_file(given[name]))
    heads = _collect_heads(_open(given, formats, {}))
    nulls: dict[str, str] = {}
    written = [name for name, source in given.items() if _is_text_file(source) or not isinstance(source, str | Path)]
    texts = [column for name in written for column in heads[name].select(pl.col(pl.String))]
    usual = {*NULL_SPELLINGS, *NULL_SPELLINGS_OF_NUMBERS}
    for column in texts:
        for spelling, why in find_null_spellings(column):
            if spelling in usual or not re.search(r"\w", spelling) or sum((one == spelling).any() for one in texts) == 1:
                nulls.setdefault(spelling, why)
    tables = _open(given, formats, nulls)
    content_ids = {side: find_id_by_content(tables["interactions"], tables.get(f"{side}s"), side) for side in _OPTIONS}
    if content_ids["user"] == content_ids["item"]:
        content_ids = dict.fromkeys(_OPTIONS)
    formats = name_columns(tables, formats, content_ids)
    named = formats["interactions"]
    formats["interactions"] = detect_item_lists(named, heads["interactions"], content_ids["item"], tables.get("items"))
    tables = _open(given, formats, nulls)
    if formats["interactions"] != named:
        content_ids["item"] = find_id_by_content(tables["interactions"], tables.get("items"), "item")
    ids: dict[str, str] = {}
    id_reasons: dict[str, str] = {}
    for side, requested in (("user", user_id), ("item", item_id)):
        ids[side], why = find_id(tables, "user" if side == "user" else "item", requested, content_ids[side])
        id_reasons |= {f"{side}_id": why} if why else {}
    if ids["user"] == ids["item"]:
        raise DataError(
            f"column {ids['user']!r} would be the id of both users and items",
            where=str(tables["interactions"].path),
            hint="Name the two columns with --user-id (user_id=) and --item-id (item_id=)",
        )
    heads = _collect_heads(tables)
    formats["interactions"] = detect_carried_columns(formats["interactions"], heads["interactions"], *ids.values())
    id_columns = {name: ids[side] for name, side in (("users", "user"), ("items", "item")) if name in tables}
    for name, own_id in id_columns.items():
        formats[name] = detect_id_spelling(formats[name], heads[name], heads["interactions"][own_id])
    tables = _open(given, formats, nulls)
    heads = _collect_heads(tables)
    formats["interactions"] = detect_placeholder_users(formats["interactions"], heads["interactions"], ids["user"])
    table_ids = {
        name: find_table_id(tables[name], heads["interactions"][own_id], own_id) for name, own_id in id_columns.items()
    }
    for name, frame in heads.items():
        known = {*ids.values(), table_ids.get(name, "")}
        formats[name] = (
            formats[name] if name == "interactions" else detect_missing_numbers(formats[name], frame.drop(known, strict=False))
        )
        formats[name] = detect_conversions(formats[name], frame, known, interactions=name == "interactions")
    tables = _open(given, formats, nulls)
    row_settings = detect_row_settings(tables, ids["user"], ids["item"], table_ids)
    warnings = tuple(_warn_missing_ids(tables["interactions"], ids))
    return Survey(tables, formats, nulls, ids["user"], ids["item"], id_reasons, table_ids, row_settings, warnings)


def _open(sources: Mapping[str, object], formats: Mapping[str, DetectedFormat], nulls: Mapping[str, str]) -> dict[str, Table]:
    forms = {name: detected.settings for name, detected in formats.items() if detected.reasons}
    data = DataConfig.model_construct(nulls=tuple(nulls), text=(), formats=forms)
    return {name: open_table(name, source, data) for name, source in sources.items() if source is not None}


def _collect_heads(tables: Mapping[str, Table]) -> dict[str, pl.DataFrame]:
    heads = {}
    for name, table in tables.items():
        try:
            heads[name] = table.frame.head(SAMPLE_ROWS).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(table.path, error) from None
    return heads


def _is_text_file(source: object) -> bool:
    return isinstance(source, str | Path) and kind_of(files_of(Path(source))[0]) in ("text", None)


# Files of a folder.

_NOT_TABLES = (".toml", ".md", ".pdf", ".html", ".py", ".ipynb", ".log", ".sql", ".png", ".xlsx")


def files_in(folder: Path) -> dict[str, Path]:
    """Return the path of each table in a folder.

    These are interactions.*, users.* and items.*. Without interactions.*, every table is recognised by the words of its
    file name, such as orders.csv or movies.parquet.

    Args:
        folder: folder of the data files.

    Raises:
        DataError: The folder is missing, has no interactions, or has several files that may be one table.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), hint="Correct the path, or create the folder first")
    candidates = sorted(
        path for path in folder.iterdir() if path.name[0] not in "._" and path.suffix.lower() not in _NOT_TABLES
    )
    exact_names: dict[str, Path] = {}
    for name in TABLE_NAMES:
        matches = [path for path in candidates if uncompressed_name(path).stem == name]
        matches.sort(key=lambda path: (path.suffix != ".parquet", path.suffix != ".csv", path.name))
        exact_names |= {name: matches[0]} if matches else {}
    if "interactions" in exact_names:
        return exact_names
    hint = "Write one row for each interaction, with the id of a user and of an item; or name the file with --interactions"
    by_table: dict[str, list[Path]] = {}
    for path in candidates:
        table = table_of_file(uncompressed_name(path).name)
        if table is not None:
            by_table.setdefault(table, []).append(path)
    for table, files in by_table.items():
        pattern = re.sub(r"\d+", "*", files[0].name)  # such as sales_2024_01.csv and sales_2024_02.csv
        if len(files) > 1 and sorted(folder.glob(pattern)) == sorted(files):
            by_table[table] = [folder / pattern]
        elif len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise DataError(
                f"several files may be the {table}: {names}",
                where=str(folder),
                hint=f"Name the one that is meant with --{table}; or, where each has a part of the columns, join them first, "
                'such as polars.read_csv("orders.csv").join(polars.read_csv("order_items.csv"), on="order_id")'
                '.write_csv("interactions.csv")',
            )
    if (
        "interactions" not in by_table
        and len(candidates) == 1
        and uncompressed_name(candidates[0]).suffix in (".csv", ".tsv", ".parquet", ".jsonl")
    ):
        by_table = {"interactions": candidates}
    if "interactions" not in by_table:
        present = sorted(path.name for path in folder.iterdir() if path.name[0] not in "._")
        shown = f"{', '.join(present[:5])}{', ...' if len(present) > 5 else ''}"
        why = f"the folder holds {shown}" if present else "the folder is empty"
        message = "there is no interactions.parquet or .csv, nor a file named like one, such as ratings, orders or events"
        raise DataError(message, where=str(folder), why=why, hint=hint)
    return {name: by_table[name][0] for name in TABLE_NAMES if name in by_table}


def find_id(
    tables: Mapping[str, Table], side: Literal["user", "item"], requested: str | None, content_id: str | None = None
) -> tuple[str, str]:
    """Return the id column of the interactions, and the reason for choosing it.

    Args:
        tables: opened tables by name.
        side: user or item.
        requested: name given by the caller; None to detect it.
        content_id: column that contains the ids of the users or items table, from `find_id_by_content`.

    Returns:
        The column, and the reason; the reason is empty for a requested column and for `user_id` or `item_id`.

    Raises:
        DataError: No column qualifies.
    """
    interactions = tables["interactions"]
    default = f"{side}_id"
    if (requested or default) in interactions.types:
        return requested or default, ""
    if requested is None:
        columns = [name for name in interactions.columns if not _holds_few_values(interactions, name)]
        by_name = id_column(columns, side)
        if content_id is None and by_name is not None:
            return by_name, f"the name says {side}"
        content_id = content_id or _shared_column(interactions, tables.get(f"{side}s"))
        if content_id is not None:
            return content_id, f"it holds ids of the {side}s table"
        series = Counter(re.sub(r"\d+$", "", name) for name in interactions.columns if re.search(r"\D\d+$", name))
        stem, count = max(series.items(), key=lambda one: one[1], default=("", 0))
        if side == "item" and stem != "column_" and count > max(_MAX_NUMERIC, len(interactions.columns) / 2):
            raise _wide_table_error(interactions, f"{count} columns are called {stem}1, {stem}2, ...")
        if (instead := fallback_id_column(columns, side)) is not None:
            return instead, f"no name says {side}: each of these counts as one"
        other_side = "item" if side == "user" else "user"
        other_id = id_column(columns, other_side) or fallback_id_column(columns, other_side)
        recurring = _recurring_ids(interactions, [name for name in columns if name != other_id], other_side, other_id)
        if len(recurring) == 1 and ("items" in tables or other_id is not None):
            return recurring[0], f"no name says {side}, and no other column has ids that recur"
    column = requested or default
    numeric = [name for name, dtype in interactions.types.items() if _is_numeric(interactions, name)]
    if requested is None and side == "item" and len(numeric) > _MAX_NUMERIC and len(numeric) > 0.8 * len(interactions.columns):
        raise _wide_table_error(interactions, "nearly all columns hold numbers")
    for name, other in tables.items():
        key = next((column for column in interactions.columns if column in other.types and names_visit(column)), None)
        if name != "interactions" and key is not None and id_column(other.columns, side) is not None:
            hint = f'Join them: polars.read_csv("A").join(polars.read_csv("B"), on="{key}").write_csv("interactions.csv")'
            what = f"there is no column of {side}s, which seem to be in {other.path.name}, one row for each {key} and {side}"
            raise DataError(what, where=str(interactions.path), hint=hint)
    suggestion = did_you_mean(column, interactions.columns)
    hint = f"{suggestion}{'' if suggestion.endswith('?') else '.'} Name the column with {_OPTIONS[side]}"
    raise DataError(f"there is no column {column!r}", where=str(interactions.path), hint=hint)


def _recurring_ids(table: Table, columns: list[str], other_side: str, other_id: str | None) -> list[str]:
    """Return the columns of ids, by name or as numbers of one length, that recur.

    Those that follow from the other side, as bar codes from items, are left out.
    """
    found = []
    for name, ids in id_candidates(table, columns).items():
        codes = ids.str.contains(_CODE).all() and ids.str.len_chars().n_unique() == 1 and not date_pattern(ids)
        named = names_id(name) and id_column([name], other_side) is None
        pairs = table.frame.select({name, other_id or name}).head(SAMPLE_ROWS).drop_nulls().unique().collect()
        follows = other_id is not None and len(pairs) <= _MAX_FOLLOWING * pairs[other_id].n_unique()
        found += [name] if (codes or named) and len(ids) > MIN_NAMED and not follows else []
    return found


def _holds_few_values(table: Table, name: str) -> bool:
    """Return whether a column holds lists, or too few values for ids."""
    if table.types[name].is_nested():
        return True
    head = table.frame.select(name).head(SAMPLE_ROWS).collect()
    return len(head) > MIN_NAMED and head[name].n_unique() < MIN_DISTINCT


def _wide_table_error(table: Table, why: str) -> DataError:
    what = "no name says item, and the table seems to have a column for each item"
    hint = f"Name the column of items with {_OPTIONS['item']}; or write one row for each interaction, such as with polars: "
    return DataError(what, where=str(table.path), why=why, hint=hint + 'frame.unpivot(index="user").drop_nulls()')


def _is_numeric(table: Table, name: str) -> bool:
    known = table.frame.select(name).head(1_000).collect()[name].drop_nulls()
    return len(known) > 0 and known.cast(pl.Float64, strict=False).null_count() == 0 if not known.dtype.is_nested() else False


def _shared_column(interactions: Table, other: Table | None) -> str | None:
    """Return the only column of both tables whose values hardly recur in the other."""
    if other is None:
        return None
    both = [name for name in interactions.columns if name in other.types]
    columns = {name: canonical_series(other.collect([name])[name]) for name in both}
    unique = [name for name, ids in columns.items() if ids.n_unique() >= _MIN_ONCE * len(ids)]
    unique = [name for name in unique if names_id(name)] if len(unique) > 1 else unique
    return unique[0] if len(unique) == 1 else None


def find_table_id(table: Table, ids: pl.Series, column: str) -> str:
    """Return the id column of a users or items table, by name or by content.

    Args:
        table: the users or the items.
        ids: user or item ids of the interactions, [n].
        column: name of the id column in the interactions.

    Raises:
        DataError: No column has that name, and no column or several columns contain the ids.
    """
    candidates, spelled_otherwise = [], ""
    by_name = id_column(table.columns, "user") or id_column(table.columns, "item")
    for name, dtype in ({column: table.types[column]} if column in table.types else table.types).items():
        if dtype.is_nested() or dtype.is_temporal() or dtype == pl.Boolean or not is_readable(table, name):
            continue
        values = table.collect([name])[name]
        type_ = id_type([ids, values])
        known = canonical_column(canonical_series(ids), type_).drop_nulls().unique()
        listed = canonical_column(canonical_series(values), type_).drop_nulls()
        unique = len(listed) > 0 and listed.n_unique() >= _MIN_UNIQUE * len(listed)
        shared = float(known.is_in(listed.implode()).mean() or 0)  # type: ignore[arg-type]
        if unique and (shared >= _MIN_SHARED or (shared > 0 and name == by_name)):
            candidates.append(name)
        elif unique and normalize_ids(known).is_in(normalize_ids(listed).implode()).mean() >= _MIN_SHARED:  # type: ignore[operator]
            spelled_otherwise = f"{name!r} holds them in another spelling: {listed[0]!r} there, {known[0]!r} here"
    if column in table.types and not spelled_otherwise:
        return column
    chosen = id_column(candidates, "user") or id_column(candidates, "item")
    if len(candidates) == 1 or chosen is not None:
        return chosen or candidates[0]
    hint = did_you_mean(column, table.columns)
    if candidates:
        why = f"{' and '.join(map(repr, candidates))} hold ids of the interactions"
    else:
        why, hint = (
            (spelled_otherwise, "Write them in one way in both tables")
            if spelled_otherwise
            else ("and no column holds their ids", hint)
        )
    what = "ids differ from those of the interactions" if column in table.types else f"there is no column {column!r}"
    raise DataError(what, where=str(table.path), why=why, hint=hint)


def detect_row_settings(
    tables: Mapping[str, Table], user_id: str, item_id: str, table_ids: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Return `missing_ids` and `repeated_ids` of `[data]`, where rows need them.

    Args:
        tables: opened tables by name.
        user_id: id column of the interactions.
        item_id: id column of the interactions.
        table_ids: id columns of the users and items tables.

    Returns:
        (value, reason) by setting.
    """
    settings: dict[str, tuple[str, str]] = {}
    for name, ids in {"interactions": [user_id, item_id], **{name: [column] for name, column in table_ids.items()}}.items():
        refuse_nested_ids(tables[name], ids)
        values = tables[name].collect(ids)
        missing = values.filter(id_missing(ids)).height
        if 0 < missing < values.height:
            why = f"{missing:,} of {values.height:,} {name} have no {' or no '.join(ids)}; they are not read"
            settings.setdefault("missing_ids", ("left out", why))
        known = values[ids[0]].drop_nulls()
        repeated = known.filter(known.is_duplicated())
        if name != "interactions" and len(repeated):
            _refuse_property_rows(tables[name], ids[0])
            why, kept = f"{repeated.n_unique():,} ids of the {name} are in several rows, such as {repeated[0]!r}", "last"
            for flag in (one for one, dtype in tables[name].types.items() if dtype == pl.Boolean):
                rows = tables[name].collect([*ids, flag]).filter(pl.col(ids[0]).is_duplicated())
                current = rows.group_by(ids[0]).agg(pl.col(flag).sum().alias("n"), pl.col(flag).first().alias("first"))
                several = current.height >= _MIN_REPEATED  # fewer may be so by chance
                if several and (current["n"] == 1).all() and current["first"].all():  # of former and current rows
                    why, kept = f"{why}, and {flag} is true in the first", "first"
            settings["repeated_ids"] = (kept, why)
    return settings


def _warn_missing_ids(table: Table, ids: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each id that most interactions lack."""
    for side, column in ids.items():
        others = [name for name, dtype in table.types.items() if name not in ids.values() and not dtype.is_nested()]
        alternative = id_column(others, side) or fallback_id_column(others, side)
        columns = [column, *([alternative] if alternative is not None else [])]
        missing = table.collect(columns).select(id_missing([name]).mean().alias(name) for name in columns).row(0)
        if (missing[0] or 0) <= _MAX_MISSING:
            continue
        message = f"{missing[0]:.0%} of the interactions have no {column}: they are not read, and nothing is learned from them"
        if missing[-1] < missing[0]:
            message += f". {alternative} is empty in {missing[-1]:.0%}: {_OPTIONS[side]} {alternative} reads these rows"
        yield message


def _refuse_property_rows(table: Table, id_: str) -> None:
    """Raise DataError for a table of (id, property, value) instead of one row per id."""
    text_columns = [name for name, dtype in table.types.items() if name != id_ and dtype == pl.String]
    if len(table.columns) > 4 or len(text_columns) < 2:  # id, property, value, and perhaps a time
        return
    frame = table.collect([id_, *text_columns])
    for name in text_columns:
        properties = frame[name].n_unique()
        if 1 < properties <= len(frame) * _MAX_PROPERTIES and frame.select(id_, name).n_unique() >= _MIN_UNIQUE * len(frame):
            value = next(other for other in text_columns if other != name)
            raise DataError(
                f"the table has a row for each value of {name!r}, such as {frame[name][0]!r}",
                where=str(table.path),
                hint=f"Write one row for each {id_}, such as with polars: "
                f'frame.pivot("{name}", index="{id_}", values="{value}", aggregate_function="last")',
            )
