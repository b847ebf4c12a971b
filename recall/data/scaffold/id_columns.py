"""Find the columns that hold the ids of users and items, by name and by content."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from recall.data.column_names import fallback_id_column, id_column, names_id, names_visit
from recall.data.files import files_of, kind_of
from recall.data.findings import normalize_ids
from recall.data.scaffold.fields import SAMPLE_ROWS, find_unique_texts, is_readable
from recall.data.scaffold.file_format import DetectedFormat, detect_format
from recall.data.scaffold.id_values import (
    MIN_DISTINCT,
    MIN_SHARED,
    MIN_UNIQUE,
    SAMPLE_IDS,
    are_dense,
    id_candidates,
    id_digits,
    share_in,
    share_of_digits,
)
from recall.data.scaffold.text_values import are_times, date_pattern
from recall.data.tables import Table, read_table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import canonical_column, id_type
from recall.features.values import canonical_series

# Thresholds. Chosen, not tuned.
_MIN_NAMED = 100  # rows of a column, from which on few values cannot be ids
_MIN_COVERED = 0.3  # share of the integer ids of a table that must occur in the interactions
_MIN_KNOWN = 0.5  # share of the interactions' ids that the id column of a users or items table must contain
_MIN_ONCE = 0.8  # distinct values / rows of a column that both tables have; former rows may be there, too
_MAX_NUMERIC = 20  # numeric columns; with more, the table may be a user-item matrix
_CODE = r"^\pL{0,4}-?\d{5,}$"  # such as a number of a loyalty card
_MAX_BESIDE = 20  # files in the folder that are opened
_ROUNDED = r"^\d[.,]\d+[eE]\+\d+$"
_MAX_FOLLOWING = 1.1  # distinct pairs with ids of the other side / these ids, up to which a column follows from them
OPTIONS: Final = {"user": "--user-id (user_id=)", "item": "--item-id (item_id=)"}
_OPPOSITE = {"user": "item", "item": "user"}


def find_id_by_content(interactions: Table, other: Table | None, side: str) -> str | None:
    """Return the column of the interactions that contains the ids of another table.

    None if a column can be chosen by its name and has some of the ids, or if no column matches. Small consecutive integers
    are not accepted as ids: minutes or ratings would match them as well.

    Args:
        interactions: the interactions.
        other: the users or items table, with unique ids.
        side: user or item.
    """
    by_name, opposite = id_column(interactions.columns, side), id_column(interactions.columns, _OPPOSITE[side])
    if other is None:
        return None
    named = [name for name in (id_column(other.columns, side),) if name is not None and names_id(name)]
    named = [name for name in named if other.frame.select(pl.col(name).drop_nulls().is_unique().all()).collect().item()]
    columns = [name for name in interactions.columns if name != opposite]
    if named and (found := _best_match(interactions, columns, other, named, by_name)):
        return found
    return _best_match(interactions, columns, other, other.columns, by_name) or None


def _best_match(
    interactions: Table, columns: Sequence[str], other: Table, other_columns: Sequence[str], by_name: str | None
) -> str:
    """Return which column contains the ids of another table, or "".

    Args:
        interactions: the interactions.
        columns: their columns to consider.
        other: the users or items table.
        other_columns: its columns to consider.
        by_name: column whose name says that it has these ids; if it has some, the result is "".
    """
    other_ids = id_candidates(other, other_columns, unique_ids=True)
    best: tuple[bool, bool, bool, bool, int, str] = (False, False, False, False, 0, "")
    for name, own_ids in id_candidates(interactions, columns).items():
        sample = own_ids.head(SAMPLE_IDS)
        for column, ids in other_ids.items():
            shared = share_in(normalize_ids(sample), normalize_ids(ids))
            if shared < MIN_SHARED:
                shared = max(shared, share_of_digits(id_digits(sample), id_digits(ids)))
            if name == by_name and shared > 1 - MIN_SHARED:
                return ""
            are_integers = bool(ids.str.contains(r"^(0|[1-9]\d*)$").all())
            dense = are_integers and are_dense(ids)
            covers_few = are_integers and len(own_ids) < _MIN_COVERED * len(ids)
            if shared >= MIN_SHARED and not dense and not covers_few:
                unique = len(ids) == other.frame.select(pl.col(column).is_not_null().sum()).collect().item()
                numbered = bool(ids.str.contains(r"\d").all())  # titles are not
                best = max(best, (unique, numbered, name == column, names_id(column), len(own_ids), name))
    return best[-1]


def name_columns(
    tables: Mapping[str, Table], detected: Mapping[str, DetectedFormat], ids: Mapping[str, str | None]
) -> dict[str, DetectedFormat]:
    """Name the id columns and the title of files without a header.

    The users and items tables determine which columns of the interactions hold their ids. Without them, the first two columns
    other than times are assumed to be the user and the item.

    Args:
        tables: opened tables by name.
        detected: format of each table so far.
        ids: by side, the column of the interactions that contains ids of the users or items table, or None.
    """
    updated = dict(detected)
    for name, format_ in detected.items():
        if format_.settings.header is None:
            continue
        names = list(format_.settings.header)
        why = format_.reasons["header"]
        if names[0] != "column_1":
            continue
        if name == "interactions" and len(names) > 1:
            not_ids = _empty_or_time_columns(tables[name])
            positions = [position for position, column in enumerate(names) if column not in not_ids]
            id_positions = {side: names.index(column) for side, column in ids.items() if column in names}
            id_positions = (
                _positions_by_tables(tables, [names[position] for position in positions[:2]], positions) or id_positions
            )
            first = [tables[name].frame.select(names[place]).head(1_000).collect() for place in positions[:2]]
            if not id_positions and any(len(one) > _MIN_NAMED and one.n_unique() < MIN_DISTINCT for one in first):
                continue  # such as the number of a till: the id columns are not known
            remaining = iter([position for position in positions if position not in id_positions.values()])
            for side in ("user", "item"):
                position = id_positions.get(side, next(remaining, None) if side not in id_positions else None)
                if position is not None:
                    names[position] = f"{side}_id"
            assumed = "assumed: the user comes first, then the item"
            why += f"; {assumed if len(id_positions) < len(ids) else 'the other tables have its ids'}"
        elif name == "items":
            titles = [title for title in find_unique_texts(tables[name], ()) if _are_phrases(tables[name].column(title))]
            if titles:
                names[names.index(titles[0])] = "title"
        updated[name] = format_.with_settings({"header": tuple(names)}, {"header": why})
    return updated


def _are_phrases(texts: pl.Series) -> bool:
    """Return whether most texts have words, unlike prices and codes."""
    return float(texts.drop_nulls().str.contains(r"^\W*\pL+\W+\pL|^\W*\pL{4}").mean() or 0) > 0.5  # type: ignore[arg-type]


def _positions_by_tables(tables: Mapping[str, Table], columns: Sequence[str], positions: Sequence[int]) -> dict[str, int]:
    """Return the positions of user and item, if the tables match one order only.

    Args:
        tables: opened tables by name.
        columns: first two columns of the interactions that may be ids.
        positions: positions of these columns.

    Returns:
        Position by side; empty if users or items are missing, or if both orders or neither match.
    """
    if len(columns) < 2 or not {"users", "items"} <= set(tables):
        return {}
    own_ids = tables["interactions"].collect(columns).select(pl.all().cast(pl.String).str.strip_chars())
    other_ids = [
        list(id_candidates(tables[name], tables[name].columns, unique_ids=True).values()) for name in ("users", "items")
    ]
    fit_of_orders = []
    for order in ((0, 1), (1, 0)):
        both = zip((own_ids[columns[at]].drop_nulls().unique() for at in order), other_ids, strict=True)
        fit_of_orders.append(
            (min(max((share_in(ids, one) for one in candidates), default=0.0) for ids, candidates in both), order)
        )
    (other_fit, _), (best_fit, order) = sorted(fit_of_orders)
    if best_fit < MIN_SHARED or other_fit == best_fit or (other_fit >= MIN_SHARED and best_fit < 1):
        return {}
    required = [_MIN_COVERED * min(map(len, candidates)) for candidates in other_ids]
    if any(own_ids[columns[at]].n_unique() < least for at, least in zip(order, required, strict=True)):  # such as ratings
        return {}
    return {side: positions[at] for side, at in zip(_OPPOSITE, order, strict=True)}


def _empty_or_time_columns(table: Table) -> set[str]:
    """Return the text columns that are empty or hold dates or times."""
    head = table.frame.select(pl.col(pl.String)).head(1_000).collect()
    known = {column.name: column.drop_nulls() for column in head}
    return {name for name, texts in known.items() if texts.is_empty() or are_times(texts) or date_pattern(texts)}


def find_id(tables: Mapping[str, Table], side: str, requested: str | None, content_id: str | None) -> tuple[str, str]:
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
            if names_visit(instead):
                _refuse_order_lines(interactions, instead, side)
            return instead, f"no column name denotes the {side}: each value of this column counts as one"
        other_side = _OPPOSITE[side]
        other_id = id_column(columns, other_side) or fallback_id_column(columns, other_side)
        recurring = _recurring_ids(interactions, [name for name in columns if name != other_id], other_side, other_id)
        if len(recurring) == 1 and ("items" in tables or other_id is not None):
            return recurring[0], f"no column name denotes the {side}, and no other column has ids that recur"
    column = requested or default
    numeric = [name for name in interactions.columns if _is_numeric(interactions, name)]
    if requested is None and side == "item" and len(numeric) > _MAX_NUMERIC and len(numeric) > 0.8 * len(interactions.columns):
        raise _wide_table_error(interactions, "nearly all columns hold numbers")
    for name, other in tables.items():
        key = next((column for column in interactions.columns if column in other.types and names_visit(column)), None)
        if name != "interactions" and key is not None and id_column(other.columns, side) is not None:
            hint = f'Join them: polars.read_csv("A").join(polars.read_csv("B"), on="{key}").write_csv("interactions.csv")'
            what = f"there is no column of {side}s, which seem to be in {other.path.name}, one row for each {key} and {side}"
            raise DataError(what, where=str(interactions.path), hint=hint)
    suggestion = did_you_mean(column, interactions.columns)
    hint = f"{suggestion}{'' if suggestion.endswith('?') else '.'} Name the column with {OPTIONS[side]}"
    raise DataError(f"there is no column {column!r}", where=str(interactions.path), hint=hint)


def _refuse_order_lines(interactions: Table, order: str, side: str) -> None:
    """Raise DataError if a file beside has the users or items of the orders."""
    own = {path for path in files_of(interactions.path) if path.exists()}
    if not own:  # a frame, which has no folder
        return
    beside = {path for path in interactions.path.parent.glob("*") if path.is_file() and kind_of(path) == "text"}
    for path in sorted(beside - own)[:_MAX_BESIDE]:
        try:
            columns = read_table(path, file_format=detect_format(path).settings).columns
        except DataError:
            continue
        found = id_column([name for name in columns if name != order], side) if order in columns else None
        if found is not None:
            what = f"the rows have no {side}: {path.name} has it in {found!r}, one for each {order!r}"
            hint = (
                f"Join the two files on {order!r} and name the result with --interactions; or count each {order!r} as a {side}"
            )
            hint += f", with {OPTIONS[side]}"
            raise DataError(what, where=str(interactions.path), hint=hint)


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
        found += [name] if (codes or named) and len(ids) > _MIN_NAMED and not follows else []
    return found


def _holds_few_values(table: Table, name: str) -> bool:
    """Return whether a column holds lists, or too few values for ids."""
    if table.types[name].is_nested():
        return True
    head = table.frame.select(name).head(SAMPLE_ROWS).collect()
    return len(head) > _MIN_NAMED and head[name].n_unique() < MIN_DISTINCT


def _wide_table_error(table: Table, why: str) -> DataError:
    what = "no column name denotes the item, and the table seems to have a column for each item"
    hint = f"Name the column of items with {OPTIONS['item']}; or write one row for each interaction, such as with polars: "
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
    own_column = column if column in table.types else by_name
    if own_column is not None and table.types[own_column] == pl.String:
        rounded = table.column(own_column).drop_nulls()
        rounded = rounded.filter(rounded.str.contains(_ROUNDED))
        if 2 * len(rounded) > table.column(own_column).count():
            why = f"{rounded[0]!r} was an id of more digits, as a spreadsheet shows numbers"
            hint = "Export the column as text, or leave this table out"
            raise DataError("the ids have lost digits", where=table.where(own_column), why=why, hint=hint)
    for name, dtype in ({column: table.types[column]} if column in table.types else table.types).items():
        if dtype.is_nested() or dtype.is_temporal() or dtype == pl.Boolean or not is_readable(table, name):
            continue
        values = table.collect([name])[name]
        type_ = id_type([ids, values])
        known = canonical_column(canonical_series(ids), type_).drop_nulls().unique()
        listed = canonical_column(canonical_series(values), type_).drop_nulls()
        unique = len(listed) > 0 and listed.n_unique() >= MIN_UNIQUE * len(listed)
        shared = share_in(known, listed)
        if unique and (shared >= _MIN_KNOWN or (shared > 0 and name == by_name)):
            candidates.append(name)
        elif unique and share_in(normalize_ids(known), normalize_ids(listed)) >= _MIN_KNOWN:
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
