"""Find which files of a folder hold the interactions, the users and the items.

The words of the file names decide. Where they leave it open, the ids in the files decide.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from recall.data.column_names import fallback_id_column, id_column, names_users_and_items, table_of_file
from recall.data.files import uncompressed_name
from recall.data.findings import normalize_ids
from recall.data.scaffold.fields import SAMPLE_ROWS
from recall.data.scaffold.file_format import detect_format
from recall.data.scaffold.id_values import MIN_SHARED, MIN_UNIQUE, SAMPLE_IDS, are_dense, id_candidates, share_in
from recall.data.tables import TABLE_NAMES, Table, read_table
from recall.errors import DataError

_NOT_TABLES = (".toml", ".md", ".pdf", ".html", ".py", ".ipynb", ".log", ".sql", ".png", ".xlsx")
_NOT_DATA = r"(?i)readme|licen[cs]e|.*\.(toml|md)$"  # files of a folder that are not expected to be read
_MAX_SHOWN = 10  # names of files that are not read
_HINT = "Write one row for each interaction, with the id of a user and of an item; or name the file with --interactions"


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files of a folder by what they hold.

    Attributes:
        paths: path of each table; interactions are always there.
        reasons: why a file is a table, for tables that its name alone does not decide.
        unread: names of the other files.
    """

    paths: dict[str, Path]
    reasons: dict[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def comments(self) -> list[str]:
        """Return the reasons and the unread files as TOML comments."""
        lines = [f"# {self.paths[table].name} is assumed to be the {table}: {why}" for table, why in self.reasons.items()]
        if self.unread:
            more = f" and {len(self.unread) - _MAX_SHOWN} more" if len(self.unread) > _MAX_SHOWN else ""
            lines.append(f"# files of the folder that are not read: {', '.join(self.unread[:_MAX_SHOWN])}{more}")
        return lines


def files_in(folder: Path) -> FolderFiles:
    """Return which file of a folder is which table.

    These are interactions.*, users.* and items.*. Without interactions.*, tables are recognised by the words of the file
    names, such as orders.csv or movies.parquet. Where these words leave a table open, the ids in the files decide.

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
    paths: dict[str, Path] = {}
    for name in TABLE_NAMES:
        matches = [path for path in candidates if uncompressed_name(path).stem == name]
        matches.sort(key=lambda path: (path.suffix != ".parquet", path.suffix != ".csv", path.name))
        paths |= {name: matches[0]} if matches else {}
    if "interactions" in paths:
        return FolderFiles(paths, unread=_unread(folder, paths.values()))
    by_table: dict[str, list[Path]] = {name: [] for name in TABLE_NAMES}
    unnamed: list[Path] = []
    for path in candidates:
        by_table.get(table_of_file(uncompressed_name(path).name) or "", unnamed).append(path)
    for table, files in by_table.items():
        pattern = re.sub(r"\d+", "*", files[0].name) if files else ""  # such as sales_2024_01.csv and sales_2024_02.csv
        if len(files) > 1 and sorted(folder.glob(pattern)) == sorted(files):
            by_table[table] = [folder / pattern]
    contents = _Contents()
    reasons: dict[str, str] = {}
    chosen = _choose_interactions(folder, candidates, by_table, contents, reasons)
    paths = {"interactions": chosen}
    for side in ("user", "item"):
        table = f"{side}s"
        named = [path for path in by_table[table] if path != chosen]
        if len(named) == 1 and not names_users_and_items(uncompressed_name(named[0]).name):
            paths[table] = named[0]
            continue
        own_id = contents.id_of(chosen, side)
        others = [path for path in named or unnamed if path != chosen] if own_id is not None else []
        keys = {path: key for path in others if (key := contents.shared_id(chosen, path, own_id))}
        if not keys:
            keys = {path: ("", "") for path in named if not contents.repeats_id(path, side)}
        if len(keys) > 1:
            raise _several(folder, table, list(keys))
        for path, (own, other) in keys.items():
            paths[table] = path
            if own:
                reasons[table] = f"its {other} has the values of {own} of the interactions, each once"
    return FolderFiles({name: paths[name] for name in TABLE_NAMES if name in paths}, reasons, _unread(folder, paths.values()))


def _choose_interactions(
    folder: Path,
    candidates: Sequence[Path],
    by_table: Mapping[str, Sequence[Path]],
    contents: "_Contents",
    reasons: dict[str, str],
) -> Path:
    """Return the file of the interactions.

    Args:
        folder: folder of the files.
        candidates: its files that may be tables.
        by_table: files by table, as far as their names say.
        contents: opens files.
        reasons: reason by table; one is added where the name alone does not decide.
    """
    named, users, items = (by_table[table] for table in TABLE_NAMES)
    if len(named) == 1:
        return named[0]
    with_ids = {path: ids for path in named or candidates if (ids := contents.ids_of_both(path))}
    if not with_ids and len(users) == len(items) == 1:
        others = [path for path in named or candidates if path not in (*users, *items)]
        shared = {path: [contents.shared_id(path, one[0]) for one in (users, items)] for path in others}
        with_ids = {path: (user[0], item[0]) for path, (user, item) in shared.items() if user and item and user[0] != item[0]}
    joining = [path for path in with_ids if names_users_and_items(uncompressed_name(path).name)]
    for found in (list(with_ids), joining):
        if len(found) == 1:
            user, item = with_ids[found[0]]
            besides = ", and its name is of both" if len(with_ids) > 1 else ""
            reasons["interactions"] = f"its rows have the id of a user ({user}) and of an item ({item}){besides}"
            return found[0]
    if len(named) > 1 or with_ids:
        raise _several(folder, "interactions", named or list(with_ids))
    if len(candidates) == 1 and uncompressed_name(candidates[0]).suffix in (".csv", ".tsv", ".parquet", ".jsonl"):
        return candidates[0]
    present = sorted(path.name for path in folder.iterdir() if path.name[0] not in "._")
    shown = f"{', '.join(present[:5])}{', ...' if len(present) > 5 else ''}"
    why = f"the folder holds {shown}" if present else "the folder is empty"
    message = "there is no interactions.parquet or .csv, nor a file named like one, such as ratings, orders or events"
    raise DataError(message, where=str(folder), why=why, hint=_HINT)


def _several(folder: Path, table: str, paths: Sequence[Path]) -> DataError:
    return DataError(
        f"several files may be the {table}: {', '.join(path.name for path in paths)}",
        where=str(folder),
        hint=f"Name the one that is meant with --{table}; or, where each has a part of the columns, join them first, "
        'such as polars.read_csv("orders.csv").join(polars.read_csv("order_items.csv"), on="order_id")'
        '.write_csv("interactions.csv")',
    )


def _unread(folder: Path, read: Iterable[Path]) -> tuple[str, ...]:
    known = {path for one in read for path in ([one] if one.exists() else folder.glob(one.name))}
    others = (path for path in sorted(folder.iterdir()) if path not in known and path.name[0] not in "._")
    return tuple(path.name for path in others if not re.match(_NOT_DATA, path.name))


class _Contents:
    """The ids in the files of a folder; each file is opened at most once."""

    def __init__(self) -> None:
        self._tables: dict[Path, Table | None] = {}

    def ids_of_both(self, path: Path) -> tuple[str, str] | None:
        """Return the columns of users' and items' ids, if the file may be interactions.

        The ids of one side only are not each in one row: that would be a table of this side.
        """
        columns = [] if (table := self._open(path)) is None else table.columns
        user, item = (id_column(columns, side) for side in ("user", "item"))
        if table is None or user is None or item is None or user == item:
            return None
        return (user, item) if self._is_unique(table, user) == self._is_unique(table, item) else None

    def repeats_id(self, path: Path, side: str) -> bool:
        """Return whether ids of a side are in several rows each, by the name of a column."""
        table = self._open(path)
        name = None if table is None else id_column(table.columns, side)
        return table is not None and name is not None and not self._is_unique(table, name)

    def id_of(self, path: Path, side: str) -> str | None:
        """Return the id column of a side by its name, or None."""
        columns = [] if (table := self._open(path)) is None else table.columns
        return id_column(columns, side) or fallback_id_column(columns, side)

    def shared_id(self, interactions: Path, path: Path, own: str | None = None) -> tuple[str, str] | None:
        """Return an id column of the interactions, and the one with its values.

        The other file has each value in one row. None if there is no such column.

        Args:
            interactions: file of the interactions.
            path: the other file.
            own: id column of the interactions; None for any.
        """
        table, other = self._open(interactions), self._open(path)
        if table is None or other is None:
            return None
        values = id_candidates(other, other.columns, unique_ids=True)
        for name, own_ids in id_candidates(table, table.columns if own is None else [own]).items():
            sample = normalize_ids(own_ids.head(SAMPLE_IDS))
            for column, ids in values.items():
                integers = bool(ids.str.contains(r"^(0|[1-9]\d*)$").all())
                sure = column == name or not (integers and are_dense(ids))  # any small integers are among dense ones
                if sure and share_in(sample, normalize_ids(ids)) >= MIN_SHARED:
                    return name, column
        return None

    def _open(self, path: Path) -> Table | None:
        """Open a file; None if it cannot be read as a table."""
        if path not in self._tables:
            try:
                table = read_table(path, file_format=detect_format(path).settings)
                table.head(1).frame.collect()
                self._tables[path] = table
            except (DataError, pl.exceptions.PolarsError, OSError):
                self._tables[path] = None
        return self._tables[path]

    def _is_unique(self, table: Table, name: str) -> bool:
        ids = table.head(SAMPLE_ROWS).frame.select(pl.col(name).drop_nulls()).collect()[name]
        return not ids.dtype.is_nested() and ids.n_unique() >= MIN_UNIQUE * len(ids)
