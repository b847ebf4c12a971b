"""Read files of Parquet, text and JSON lines, as they are written.

Text in UTF-8 with a separator of one character is scanned lazily; other text is decoded in memory.
"""

import ast
import csv
import gzip
import json
import re
import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from recall.config import FileFormat
from recall.errors import DataError

Kind = Literal["parquet", "json", "text"]

PACKED: Final = (".gz", ".zst", ".zip")
"""Suffixes of compressed files."""
_KINDS: Final[dict[str, Kind]] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".dat"), "text"),
}
ALIGNED: Final = "  "
"""The separator of aligned columns, which means two or more blanks."""
_UNIT = "\x1f"  # the separator of units in ASCII, which replaces one of several characters


def kind_of(path: Path) -> Kind | None:
    """Return the kind of a file by its name, or None."""
    return _KINDS.get(plain(path).suffix.lower())


def plain(path: Path) -> Path:
    """Return a path without the suffix of a compression."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def files_of(path: Path) -> list[Path]:
    """Return the files of a table: the path itself, or those in a folder by name.

    Hidden files, empty ones, and marks such as _SUCCESS, are left out.

    Raises:
        DataError: The folder has none, or files of several kinds.
    """
    if not path.is_dir():
        return [path]
    found = sorted(one for one in path.rglob("*") if one.is_file() and one.name[0] not in "._" and one.stat().st_size)
    kinds = {kind_of(one) for one in found}
    if len(kinds) != 1:
        what = "the folder has no files" if not found else "the folder has files of several kinds"
        hint = "A table is a folder of files of one kind, such as part-0.parquet and part-1.parquet"
        raise DataError(what, where=str(path), hint=hint)
    return found


def scan(path: Path, nulls: Sequence[str] = (), written: FileFormat | None = None) -> pl.LazyFrame:
    """Open a table lazily.

    Args:
        path: a file or folder.
        nulls: texts of a text file that mean a missing value.
        written: how it is written; with it, a text file may have any name.

    Raises:
        DataError: The name says nothing of the format, or columns of a text file have one name.
        PolarsError: The file is damaged.
    """
    files = files_of(path)
    form = written if written is not None else FileFormat()
    kind = kind_of(files[0])
    if kind is None and written is None:
        hint = "Convert it, name it so, or describe it in data.formats"
        raise DataError("a table must be .parquet, .csv, .tsv, .txt or .jsonl", where=str(path), hint=hint)
    if kind == "parquet":
        return converted(pl.scan_parquet(files, hive_partitioning=path.is_dir()), form)
    if kind == "json":
        return converted(pl.concat([_json(one) for one in files], how="diagonal_relaxed"), form)
    return converted(pl.concat(_same_order([_cells(_text(one, nulls, form), nulls, form) for one in files])), form)


def content(path: Path, most: int = -1) -> bytes:
    """Return the bytes of a file, decompressed.

    Args:
        path: the file.
        most: bytes that are read; -1 for all.

    Raises:
        DataError: A zip archive has another number of members than one.
    """
    match path.suffix.lower():
        case ".gz":
            with gzip.open(path) as packed:
                return packed.read(most)
        case ".zst":
            zstandard: Any = import_module("zstandard")
            with zstandard.open(path, "rb") as packed:
                return bytes(packed.read(most))
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [one for one in archive.namelist() if not one.endswith("/") and not one.startswith("__MACOSX")]
                if len(members) != 1:
                    shown = ", ".join(members[:5]) + (", ..." if len(members) > 5 else "")
                    hint = "Unpack it (unzip), and name the files that are meant"
                    raise DataError(f"the archive has {len(members)} members", where=str(path), why=shown, hint=hint)
                with archive.open(members[0]) as member:
                    return member.read(most)
        case _:
            with path.open("rb") as file:
                return file.read(most)


def separator_for(path: Path, form: FileFormat) -> str:
    """Return the separator of a text file.

    Args:
        path: the file.
        form: how it is written.
    """
    return form.separator or ("\t" if plain(path).suffix.lower() in (".tsv", ".tab") else ",")


def _json(path: Path) -> pl.LazyFrame:
    raw = content(path)
    read = (
        pl.read_json(raw, infer_schema_length=None)
        if raw.lstrip()[:1] == b"["
        else pl.read_ndjson(raw, infer_schema_length=None)
    )
    if not read.columns:
        raise DataError("the file has no columns", where=str(path), hint="Write one JSON object a line")
    return read.lazy()


def _text(path: Path, nulls: Sequence[str], form: FileFormat) -> pl.LazyFrame:
    separator = separator_for(path, form)
    source: Path | bytes = path
    if path.suffix.lower() == ".zip" or len(separator) > 1 or form.encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        try:
            text = content(path).decode(form.encoding)
        except (UnicodeDecodeError, LookupError) as error:
            hint = "Correct the encoding in data.formats"
            raise DataError(f"the text is not {form.encoding}", where=str(path), why=str(error), hint=hint) from None
        source = _one_mark(text, separator).removeprefix("\ufeff").encode()
    header = list(form.header) if form.header is not None else None
    mark, quote = separator if len(separator) == 1 else _UNIT, form.quote or None
    if header is None:
        _refuse_repeated(path, source, mark, quote, form.skip)
    return pl.scan_csv(
        source,
        separator=mark,
        quote_char=quote,
        infer_schema=False,
        null_values=["", *nulls],  # quoted "" is missing, too
        has_header=header is None,
        new_columns=header,
        skip_lines=form.skip,
        truncate_ragged_lines=form.ragged,
    )


def _same_order(parts: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Order the columns of files that have the same ones as the first file does."""
    if len(parts) == 1:
        return list(parts)
    first = parts[0].collect_schema().names()
    return [part.select(first) if set(part.collect_schema().names()) == set(first) else part for part in parts]


def _one_mark(text: str, separator: str) -> str:
    """Replace a separator of several characters by one."""
    if len(separator) == 1:
        return text
    if separator != ALIGNED:
        return text.replace(separator, _UNIT)
    return "\n".join(re.sub(r" {2,}", _UNIT, line.strip(" ")) for line in text.splitlines())


def _cells(frame: pl.LazyFrame, nulls: Sequence[str], form: FileFormat) -> pl.LazyFrame:
    """Remove blanks around cells, and rows of totals."""
    if form.strip:
        frame = frame.rename(str.strip).with_columns(pl.all().str.strip_chars().replace(["", *nulls], None))
    if form.totals:
        first = pl.col(frame.collect_schema().names()[0])
        frame = frame.filter(~first.str.strip_chars().is_in(form.totals).fill_null(value=False))
    return frame


def _refuse_repeated(path: Path, source: Path | bytes, separator: str, quote: str | None, skip: int) -> None:
    """Raise DataError when a text file repeats a column name."""
    # polars would rename the second column
    head = pl.read_csv(
        source,
        separator=separator,
        quote_char=quote,
        has_header=False,
        n_rows=1,
        infer_schema=False,
        raise_if_empty=False,
        skip_lines=skip,
        truncate_ragged_lines=True,
    )
    names = [name for name in head.row(0) if name is not None] if len(head) else []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"two columns have one name: {', '.join(map(repr, twice))}",
            where=str(path),
            why=f"the header is {', '.join(map(str, names[:20]))}{', ...' if len(names) > 20 else ''}",
            hint="Rename or remove one of the two",
        )


def converted(frame: pl.LazyFrame, form: FileFormat) -> pl.LazyFrame:
    """Convert the written numbers, times and lists of a table.

    Args:
        frame: as it was read.
        form: names the columns; those that are not text are left as they are.
    """
    if form.explode is not None:
        frame = frame.explode(form.explode, empty_as_null=False, keep_nulls=False)
    if form.unnest:
        frame = _unnested(frame)
    frame = frame.with_columns(pl.col(name).forward_fill().over(group) for name, group in form.carry.items())
    if not (form.numbers or form.times or form.lists or form.booleans):
        return frame
    types = frame.collect_schema()
    texts = {name for name, dtype in types.items() if dtype == pl.String}
    changes = [number(pl.col(name), mark).alias(name) for name, mark in form.numbers.items() if name in texts]
    for name, pattern in form.times.items():
        if name in form.clocks and form.clocks[name] in types:
            both = pl.concat_str(
                [pl.col(one).cast(pl.String).str.strip_chars() for one in (name, form.clocks[name])], separator=" "
            )
            changes.append(moment(both, pattern).alias(name))
        elif name in texts:
            changes.append(moment(pl.col(name), pattern).alias(name))
    changes += [pl.col(name).map_batches(listed, return_dtype=pl.List(pl.String)) for name in form.lists if name in texts]
    changes += [truth(pl.col(name), *words).alias(name) for name, words in form.booleans.items() if name in texts]
    return frame.with_columns(changes).drop(name for name in form.clocks.values() if name in types)


def _unnested(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Replace each column of objects by one for each member, named such as `user.id`."""
    while nested := [name for name, dtype in frame.collect_schema().items() if isinstance(dtype, pl.Struct)]:
        frame = frame.unnest(nested, separator=".")
    return frame


def number(text: pl.Expr, mark: str) -> pl.Expr:
    """Rewrite numbers with a decimal point, and without anything else.

    Args:
        text: such as "1.234,50 €".
        mark: the decimal mark.
    """
    kept = text.str.replace_all(rf"[^0-9+\-eE{mark}]", "")
    return kept.str.replace(",", ".", literal=True) if mark == "," else kept


def moment(text: pl.Expr, pattern: str) -> pl.Expr:
    """Parse times; one that does not fit is an error.

    Args:
        text: the column.
        pattern: as of `strftime`.
    """
    stripped = text.str.strip_chars()
    if not any(part in pattern for part in ("%H", "%I", "%T")):
        return stripped.str.to_date(pattern)
    parsed = stripped.str.to_datetime(pattern, time_unit="us")
    return parsed.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "%z" in pattern else parsed


def truth(text: pl.Expr, yes: str, no: str) -> pl.Expr:
    """Read two words as truth values; any other is an error.

    Args:
        text: the column.
        yes: the word for true.
        no: the word for false.
    """
    return text.str.strip_chars().replace_strict([yes, no], [True, False], return_dtype=pl.Boolean)


def listed(texts: pl.Series) -> pl.Series:
    """Parse lists in programming notation, List(String) [n].

    Args:
        texts: such as "['a', 'b']", "{a,b}" or '[{"name": "a"}]'.
    """
    known = {text: _list(text) for text in texts.unique().drop_nulls()}
    return pl.Series(texts.name, [None if text is None else known[text] for text in texts], dtype=pl.List(pl.String))


def _list(text: str) -> list[str]:
    for parse in (json.loads, ast.literal_eval):
        try:
            read = parse(text)
            break
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    else:
        inner = text.strip()[1:-1]
        read = next(csv.reader([inner], skipinitialspace=True), []) if inner.strip() else []
    members = list(read) if isinstance(read, list | tuple | set | frozenset | dict) else [read]
    names = (one.get("name", next(iter(one.values()), None)) if isinstance(one, dict) else one for one in members)
    return [str(one).strip() for one in names if one is not None]
