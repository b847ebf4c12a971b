"""Read files of Parquet, text and JSON lines, also compressed.

Text in UTF-8 with a separator of one character is scanned lazily; other text is decoded in memory.
"""

import codecs
import gzip
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, Literal, cast
from urllib.parse import unquote

import polars as pl

from recall.config import FileFormat
from recall.data.conversions import convert_columns
from recall.data.text_layout import ALIGNED, double_escaped_quotes, remove_rules, split_lines
from recall.errors import DataError

Kind = Literal["parquet", "json", "text"]

COMPRESSED: Final = (".gz", ".zst", ".zip")
"""Suffixes of compressed files."""
_KINDS: Final[dict[str, Kind]] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt", ".dat"), "text"),
}
_MIN_KEPT = 0.8  # share of the columns of a part that another part must have at least. Chosen, not tuned.
_UNIT = "\x1f"  # the separator of units in ASCII, which replaces one of several characters
_HEAD = 1 << 16  # bytes in which the ends of lines are recognised
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)  # the last for a password


def kind_of(path: Path) -> Kind | None:
    """Return the kind of a file by its name, or None."""
    return _KINDS.get(uncompressed_name(path).suffix.lower())


def uncompressed_name(path: Path) -> Path:
    """Return a path without the suffix of a compression."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def files_of(path: Path) -> list[Path]:
    """Return the files of a table: the path, or those of a pattern or folder.

    Hidden files, empty ones, marks such as _SUCCESS, and files beside the folders of a partition are left out.

    Raises:
        DataError: The folder has none, or files of several kinds.
    """
    if not path.is_dir():
        return sorted(path.parent.glob(path.name)) if set("*?[") & set(path.name) and not path.exists() else [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.name[0] not in "._" and file.stat().st_size)
    found = [file for file in found if _partition_values(path, file)] or found  # a schema may be beside year=2024
    kinds = {kind_of(file) for file in found}
    if len(kinds) != 1:
        raise DataError(
            "the folder has no files" if not found else "the folder has files of several kinds",
            where=str(path),
            hint="A table is a folder of files of one kind, such as part-0.parquet and part-1.parquet",
        )
    return found


def scan_table(path: Path, nulls: Sequence[str] = (), file_format: FileFormat | None = None) -> pl.LazyFrame:
    """Open a table lazily.

    Args:
        path: a file or folder.
        nulls: texts of a text file that mean a missing value.
        file_format: its format; with it, a text file may have any name.

    Raises:
        DataError: The name says nothing of the format, or columns of a text file have one name.
        PolarsError: The file is damaged.
    """
    files = files_of(path)
    form = file_format if file_format is not None else FileFormat()
    kind, where = kind_of(files[0]), f"data.formats, for {path}"
    if kind is None and file_format is None:
        raise DataError(
            "a table must be .parquet, .csv, .tsv, .txt or .jsonl",
            where=str(path),
            hint="Convert it, name it so, or describe it in data.formats",
        )
    if kind == "parquet" and (len(files) == 1 or len({tuple(pl.read_parquet_schema(file).items()) for file in files}) == 1):
        return convert_columns(pl.scan_parquet(files, hive_partitioning=path.is_dir()), form, where)
    if kind != "text" and kind is not None:  # columns and types may differ, as in a log that has changed over time
        read = pl.scan_parquet if kind == "parquet" else _read_json
        files_read = [_add_partition_columns(read(file), path, file) for file in files]
        return convert_columns(pl.concat(files_read, how="diagonal_relaxed"), form, where)
    parts = [_add_partition_columns(_clean_cells(_scan_text(file, nulls, form), nulls, form), path, file) for file in files]
    columns = [part.collect_schema().names() for part in parts]
    first = columns[0]
    for file, names in zip(files[1:], columns[1:], strict=True):
        if names and set(names) != set(first) and not _are_versions(names, first):
            differing = [name for name in [*names, *first] if (name in names) != (name in first)]
            why = f"only one of {files[0].name} and {file.name} has {', '.join(differing[:8])}"
            if min(len(names), len(first)) == 1:
                (header, odd), (_, other) = sorted(((names, file), (first, files[0])), key=lambda one: len(one[0]))
                why = f"{odd.name} is written with another separator than {other.name}: its header is {header[0]!r}"
            raise DataError(
                "the files of the table have different columns",
                where=str(path),
                why=why,
                hint="Give files of one kind; of several, such as views and orders, write one file with the kind in a column",
            )
    return convert_columns(pl.concat(parts, how="diagonal"), form, where)  # columns may be in a different order


def _are_versions(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether one of two headers is the other with few columns more."""
    fewer, more = sorted((set(names), set(others)), key=len)
    return fewer < more and len(fewer) >= _MIN_KEPT * len(more)


def _add_partition_columns(frame: pl.LazyFrame, folder: Path, file: Path) -> pl.LazyFrame:
    """Add the columns that the folders of a partition name, such as day=2024-01-31."""
    values = _partition_values(folder, file)
    return frame.with_columns(pl.lit(value, dtype=pl.String).alias(name) for name, value in values.items())


def _partition_values(folder: Path, file: Path) -> dict[str, str | None]:
    """Return the columns that the folders above a file name."""
    parts = file.relative_to(folder).parent.parts if folder.is_dir() else ()
    named = [part.partition("=") for part in parts if "=" in part]
    return {name: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for name, _, value in named}


def unreadable_file(path: Path, error: Exception) -> DataError:
    """Return the error of a file that cannot be read.

    Args:
        path: the file.
        error: error of the library that read it.
    """
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    quotes = ', such as quote = "" where quotes are ordinary characters' if '"' in reason else ""
    hint = f"Rewrite it as Parquet, or as CSV in UTF-8; or correct its section in data.formats{quotes}"
    if kind_of(path) == "json":
        hint = "Write one JSON object a line, or one array of them, with names and texts in double quotes"
    return DataError("the file cannot be read", where=str(path), why=reason, hint=hint)


def read_content(path: Path, max_bytes: int = -1) -> bytes:
    """Return the bytes of a file, decompressed.

    Args:
        path: the file.
        max_bytes: number of bytes to read; -1 for all.

    Raises:
        DataError: It cannot be read or decompressed, or a zip archive has another number of members than one.
    """
    try:
        with _open_decompressed(path) as file:
            return bytes(file.read(max_bytes))
    except _decompression_errors() as error:
        raise unreadable_file(path, error) from None


def _decompression_errors() -> tuple[type[Exception], ...]:
    zstandard: Any = sys.modules.get("zstandard")  # imported by now if such a file was read
    return _DAMAGED if zstandard is None else (*_DAMAGED, zstandard.ZstdError)


def _open_decompressed(path: Path) -> IO[bytes] | gzip.GzipFile:
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path)
        case ".zst":
            try:
                zstandard: Any = import_module("zstandard")  # of 24 MB, which a service that reads no tables does without
            except ModuleNotFoundError:
                raise DataError(
                    "a .zst file needs the package zstandard",
                    where=str(path),
                    hint="Install it with: pip install 'fm-recall[train]', or decompress the file",
                ) from None
            return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True))
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
                if len(members) != 1:
                    shown = ", ".join(members[:5]) + (", ..." if len(members) > 5 else "")
                    raise DataError(
                        f"the archive has {len(members)} members",
                        where=str(path),
                        why=shown,
                        hint="Unpack it (unzip), and name the files that are meant",
                    )
                return archive.open(members[0])
        case _:
            return path.open("rb")


def separator_for(path: Path, form: FileFormat) -> str:
    """Return the separator of a text file.

    Args:
        path: the file.
        form: how it is written.
    """
    return form.separator or ("\t" if uncompressed_name(path).suffix.lower() in (".tsv", ".tab") else ",")


def _read_json(path: Path) -> pl.LazyFrame:
    raw = read_content(path).removeprefix(codecs.BOM_UTF8)
    first, _, more = raw.lstrip().partition(b"\n")
    one_value = first[:1] == b"[" or (more and first.strip() == b"{")  # an array, or an object over several lines
    try:
        read = (pl.read_json if one_value else pl.read_ndjson)(raw, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        _refuse_cut_line(path, raw)
        raise
    if not read.columns:
        raise DataError("the file has no columns", where=str(path), hint="Write one JSON object a line")
    return (_rows_of_columns(read) if len(read) == 1 else read).lazy()


def _refuse_cut_line(path: Path, raw: bytes) -> None:
    """Raise DataError if the last line cannot be parsed, and all others can."""
    *lines, last = raw.rstrip().split(b"\n")
    try:
        for line in filter(bytes.strip, lines):
            json.loads(line)
    except ValueError:
        return
    if lines:
        shown = last[:40].decode(errors="replace")
        hint = "Remove the line (head -n -1), or write the file again to its end"
        where = f"{path}, line {len(lines) + 1:,}"
        raise DataError("the file ends inside a line", where=where, why=f"the last line begins {shown!r}", hint=hint)


def _rows_of_columns(read: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of an object of columns: lists, or as pandas writes them.

    Of an object with one list of objects, these are the rows.
    """
    types = read.dtypes
    rows = [values for values in read if isinstance(values.dtype, pl.List) and isinstance(values.dtype.inner, pl.Struct)]
    if len(rows) == 1:
        return rows[0].explode().struct.unnest()
    if all(isinstance(dtype, pl.List) and not dtype.inner.is_nested() for dtype in types):
        are_rows = len({len(values[0]) for values in read}) == 1
        return read.explode(read.columns, empty_as_null=False, keep_nulls=False) if are_rows else read
    members = {tuple(field.name for field in dtype.fields) if isinstance(dtype, pl.Struct) else () for dtype in types}
    if len(members) == 1 and all(name.isdecimal() for name in next(iter(members))) and members != {()}:
        return pl.DataFrame({values.name: list(values[0].values()) for values in read}, strict=False)
    return read


def _scan_text(path: Path, nulls: Sequence[str], form: FileFormat) -> pl.LazyFrame:
    separator = separator_for(path, form)
    source: Path | bytes = path
    is_one_byte = len(separator.encode()) == 1
    decode = not is_one_byte or form.backslashes or form.rules or codecs.lookup(form.encoding).name != "utf-8"
    if decode or path.suffix.lower() == ".zip":
        try:
            text = read_content(path).decode(form.encoding)
        except UnicodeError as error:
            raise DataError(
                f"the text is not {form.encoding}", where=str(path), why=str(error), hint="Correct the encoding in data.formats"
            ) from None
        text = double_escaped_quotes(text) if form.backslashes else text.rstrip("\x1a")  # the end of a file of DOS
        text = remove_rules(text) if form.rules else text
        source = (text if is_one_byte else _replace_separator(text, separator)).removeprefix("\ufeff").encode()
    header = list(form.header) if form.header is not None else None
    mark, quote = separator if is_one_byte else _UNIT, form.quote or None
    head = source[:_HEAD] if isinstance(source, bytes) else read_content(path, _HEAD)
    end = "\r" if b"\r" in head and b"\n" not in head else "\n"
    if header is None:
        _refuse_repeated(path, source, mark, quote, form.skip, end)
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
        eol_char=end,
    )


def _replace_separator(text: str, separator: str) -> str:
    """Replace a separator that polars does not know by one."""
    if separator != ALIGNED:
        return text.replace(separator, _UNIT)
    return "\n".join(re.sub(r" {2,}", _UNIT, line.strip(" ")) for line in split_lines(text))


def _clean_cells(frame: pl.LazyFrame, nulls: Sequence[str], form: FileFormat) -> pl.LazyFrame:
    """Remove blanks around cells, and rows of totals."""
    if form.strip:
        frame = frame.rename(str.strip).with_columns(pl.all().str.strip_chars().replace(["", *nulls], None))
    if form.totals:
        first = pl.col(frame.collect_schema().names()[0])
        frame = frame.filter(~first.str.strip_chars().is_in(form.totals).fill_null(value=False))
    return frame


def _refuse_repeated(path: Path, source: Path | bytes, separator: str, quote: str | None, skip: int, end: str) -> None:
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
        eol_char=end,
    )
    names = [name for name in head.row(0) if name is not None] if len(head) else []
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"two columns have one name: {', '.join(map(repr, repeated))}",
            where=str(path),
            why=f"the header is {', '.join(map(str, names[:20]))}{', ...' if len(names) > 20 else ''}",
            hint="Rename or remove one of the two",
        )
