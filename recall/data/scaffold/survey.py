"""Open the source tables, detect their formats, and find their id columns.

A format can only be detected on a table that opens: so `survey` opens the tables, detects some settings, and opens them
again with these, until all are known.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recall.config import DataConfig
from recall.config.docs import toml
from recall.data.column_names import COLUMN_WORDS, fallback_id_column, id_column, words
from recall.data.entities import id_missing
from recall.data.files import files_of, kind_of, unreadable_file
from recall.data.roles import numbers_of
from recall.data.scaffold.fields import SAMPLE_ROWS, is_readable
from recall.data.scaffold.file_format import DetectedFormat, detect_format
from recall.data.scaffold.id_columns import (
    OPTIONS,
    find_id,
    find_id_by_content,
    find_table_id,
    name_columns,
)
from recall.data.scaffold.id_spelling import detect_id_case, detect_id_spelling
from recall.data.scaffold.id_values import MIN_DISTINCT, MIN_SHARED, MIN_UNIQUE, id_candidates, share_in
from recall.data.scaffold.table_format import (
    detect_carried_columns,
    detect_conversions,
    detect_item_lists,
    detect_missing_numbers,
    detect_nesting_and_blanks,
    detect_placeholder_users,
)
from recall.data.scaffold.text_values import NULL_SPELLINGS, NULL_SPELLINGS_OF_NUMBERS, find_null_spellings
from recall.data.selection import refuse_nested_ids
from recall.data.tables import Table, open_table
from recall.errors import DataError
from recall.features.canonical import canonical_column, id_type
from recall.features.values import canonical_series

# Thresholds. Chosen, not tuned.
_MAX_RARE_VALUES = 50  # distinct values in the sample up to which all rows are read, because an event may be rare
_MAX_PROPERTIES = 0.2  # distinct property names in a table of (id, property, value), relative to the rows
_MIN_PROPERTIES = 1.5  # properties, and values, per id in such a table
_MIN_REPEATED = 10  # repeated ids whose first rows alone are marked, to take the mark for that of current rows
_MAX_LISTING = 1_000  # rows in which lists of ids are looked for
_MIN_LISTING = 0.5  # share of cells with several ids; more are lists
_MAX_MISSING = 0.5  # share of interactions without an id; more are reported as a warning


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
        warnings: messages about missing ids, and tables that are left out.
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


def survey(
    sources: Mapping[str, object],
    user_id: str | None = None,
    item_id: str | None = None,
    optional: Collection[str] = (),
) -> Survey:
    """Open the tables, detect their formats, and find the id columns.

    Args:
        sources: a path or a frame for each table; interactions are required.
        user_id: column of the interactions with the user's id; None to detect it.
        item_id: column of the interactions with the item's id; None to detect it.
        optional: tables that are left out, with a warning, where they have a row for each property.

    Raises:
        DataError: A file cannot be read, an id column is not found, or a table has a row for each property.
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
    content_ids = {side: find_id_by_content(tables["interactions"], tables.get(f"{side}s"), side) for side in OPTIONS}
    if content_ids["user"] == content_ids["item"]:
        content_ids = dict.fromkeys(OPTIONS)
    formats = name_columns(tables, formats, content_ids)
    named = formats["interactions"]
    formats["interactions"] = detect_item_lists(named, heads["interactions"], content_ids["item"], tables.get("items"))
    tables = _open(given, formats, nulls)
    if formats["interactions"] != named:
        content_ids["item"] = find_id_by_content(tables["interactions"], tables.get("items"), "item")
    ids: dict[str, str] = {}
    id_reasons: dict[str, str] = {}
    for side, requested in (("user", user_id), ("item", item_id)):
        ids[side], why = find_id(tables, side, requested, content_ids[side])
        id_reasons |= {f"{side}_id": why} if why else {}
    if ids["user"] == ids["item"]:
        raise DataError(
            f"column {ids['user']!r} would be the id of both users and items",
            where=str(tables["interactions"].path),
            hint="Name the two columns with --user-id (user_id=) and --item-id (item_id=)",
        )
    heads = _collect_heads(tables)
    formats["interactions"] = detect_carried_columns(formats["interactions"], heads["interactions"], *ids.values())
    for own_id in ids.values():
        if not heads["interactions"][own_id].dtype.is_nested():
            formats["interactions"] = detect_id_case(formats["interactions"], heads["interactions"][own_id])
    heads = _collect_heads(_open(given, formats, nulls))
    id_columns = {name: ids[side] for name, side in (("users", "user"), ("items", "item")) if name in tables}
    for name, own_id in id_columns.items():
        formats[name], formats["interactions"] = detect_id_spelling(
            formats[name], heads[name], formats["interactions"], heads["interactions"][own_id]
        )
    tables = _open(given, formats, nulls)
    heads = _collect_heads(tables)
    table_ids = {}
    for name, own_id in id_columns.items():
        try:
            table_ids[name] = find_table_id(tables[name], heads["interactions"][own_id], own_id)
        except DataError:
            _refuse_lists_of_ids(tables["interactions"], tables[name])
            raise
    warnings = []
    for name, own_id in tuple(table_ids.items()):
        problem = _find_property_rows(tables[name], own_id)
        if problem is not None and name not in optional:
            raise problem
        if problem is not None:
            warnings.append(f"{Path(tables[name].path).name} is not read: {problem.what}. {problem.hint}")
            for kept in (given, formats, tables, heads, table_ids):
                kept.pop(name)
    listed = tables["users"].column(table_ids["users"]) if "users" in table_ids else None
    formats["interactions"] = detect_placeholder_users(formats["interactions"], heads["interactions"], ids["user"], listed)
    for name, frame in heads.items():
        known = {*ids.values(), table_ids.get(name, "")}
        values = frame.drop(known, strict=False)
        formats[name] = detect_missing_numbers(formats[name], values, interactions=name == "interactions")
        formats[name] = detect_conversions(formats[name], frame, known, interactions=name == "interactions")
    tables = _open(given, formats, nulls)
    row_settings = detect_row_settings(tables, ids["user"], ids["item"], table_ids)
    warnings += _warn_missing_ids(tables["interactions"], ids)
    return Survey(tables, formats, nulls, ids["user"], ids["item"], id_reasons, table_ids, row_settings, tuple(warnings))


def _open(sources: Mapping[str, object], formats: Mapping[str, DetectedFormat], nulls: Mapping[str, str]) -> dict[str, Table]:
    forms = {name: detected.settings for name, detected in formats.items() if detected.reasons}
    data = DataConfig.model_construct(nulls=tuple(nulls), text=(), formats=forms)
    return {name: open_table(name, source, data) for name, source in sources.items() if source is not None}


def _collect_heads(tables: Mapping[str, Table]) -> dict[str, pl.DataFrame]:
    heads = {}
    for name, table in tables.items():
        try:
            heads[name] = table.head(SAMPLE_ROWS).frame.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable_file(table.path, error) from None
    return heads


def _is_text_file(source: object) -> bool:
    return isinstance(source, str | Path) and kind_of(files_of(Path(source))[0]) in ("text", None)


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
            message += f". {alternative} is empty in {missing[-1]:.0%}: {OPTIONS[side]} {alternative} reads these rows"
        yield message


def _find_property_rows(table: Table, id_: str) -> DataError | None:
    """Return the error for a table of (id, property, value), perhaps with times."""
    if len(table.columns) not in (3, 4) or not all(is_readable(table, name) for name in table.columns):
        return None
    frame = table.collect(table.columns)
    texts = [name for name in table.columns if name != id_ and frame[name].dtype == pl.String]
    name = min((one for one in texts if numbers_of(frame[one]) is None), key=lambda one: frame[one].n_unique(), default=id_)
    times = COLUMN_WORDS["time"] | COLUMN_WORDS["date"]
    value = next((one for one in reversed(texts) if one != name and not times & set(words(one))), id_)
    if id_ in (name, value):
        return None
    keys = frame.drop(value).n_unique()  # a later row may hold another value
    if not 1 < frame[name].n_unique() <= len(frame) * _MAX_PROPERTIES or keys < MIN_UNIQUE * len(frame):
        return None
    if min(frame.select(id_, one).n_unique() for one in (name, value)) <= _MIN_PROPERTIES * frame[id_].n_unique():
        return None  # one row per id, or former and current rows of it
    return DataError(
        f"the table has a row for each value of {name!r}, such as {frame[name][0]!r}",
        where=str(table.path),
        hint=f"Write one row for each {id_}, such as with polars: "
        f'frame.pivot("{name}", index="{id_}", values="{value}", aggregate_function="last")',
    )


def _refuse_lists_of_ids(interactions: Table, other: Table) -> None:
    """Raise DataError if cells of the interactions list ids of another table.

    A mark may follow each id, such as N123-1 for a click.
    """
    ids = list(id_candidates(other, other.columns, unique_ids=True).values())
    names = [name for name, dtype in interactions.types.items() if dtype == pl.String]
    for cells in interactions.head(_MAX_LISTING).collect(names):
        lists = cells.drop_nulls().str.extract_all(r"[^\s,;|]+")
        members = lists.explode(empty_as_null=False, keep_nulls=False).unique()
        marked = members.str.replace(r"[-:][\d.]+$", "")
        if len(members) < MIN_DISTINCT or (lists.list.len() > 1).mean() <= _MIN_LISTING:  # type: ignore[operator]
            continue
        if any(share_in(spelled, known) >= MIN_SHARED for spelled in (members, marked) for known in ids):
            example = next(cell for cell, parts in zip(cells.drop_nulls(), lists, strict=True) if len(parts) > 1)
            raise DataError(
                f"a cell of {cells.name!r} lists several ids of {other.path.name}, such as {example[:40]!r}",
                where=str(interactions.path),
                hint="Write one row for each user and item, with a mark such as a click in a separate column",
            )


# Samples of the surveyed tables.


def read_sample(interactions: Table) -> pl.DataFrame:
    """Return the first rows of the interactions, in columns that fields can read.

    Raises:
        DataError: There are no rows.
    """
    head = interactions.head(SAMPLE_ROWS).collect(name for name in interactions.columns if is_readable(interactions, name))
    if head.is_empty():
        raise DataError("there are no interactions", where=str(interactions.path), hint="Give at least one row")
    return head


def distinct_values(table: Table, sample: pl.DataFrame) -> dict[str, pl.Series]:
    """Return the distinct values of all rows, for columns with few in the sample.

    Empty for a table with no more rows than its sample.

    Args:
        table: the whole table.
        sample: its first rows.
    """
    if len(sample) < SAMPLE_ROWS:
        return {}
    few = [values.name for values in sample if not isinstance(values.dtype, pl.List) and values.n_unique() <= _MAX_RARE_VALUES]
    return {name: table.column(name).unique() for name in few}


def interactions_per_row(table: Table, id_: str, ids: pl.Series) -> pl.Series:
    """Return the number of interactions of each user or item of a sample, uint32 [n].

    Args:
        table: the users or items.
        id_: their id column.
        ids: user or item of each interaction.
    """
    rows = table.head(SAMPLE_ROWS).column(id_)
    type_ = id_type([ids, rows])
    counts = canonical_column(canonical_series(ids), type_).alias("id").value_counts(name="count")
    per_row = pl.DataFrame({"id": canonical_column(canonical_series(rows), type_)})
    return per_row.join(counts, on="id", how="left", maintain_order="left")["count"].fill_null(0)
