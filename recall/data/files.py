"""Read files of Parquet, text and JSON lines, as they are written.

Text in UTF-8 with a separator of one character is scanned lazily; other text is decoded in memory.
"""

import ast
import codecs
import csv
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
LIST_NOTATION: Final = r"(?s)^\s*(\[.*\]|\{.*\}|\(.*\))\s*$"
"""Pattern of lists in programming notation, for polars and for Python."""
_UNIT = "\x1f"  # the separator of units in ASCII, which replaces one of several characters
_HEAD = 1 << 16  # bytes in which the ends of lines are recognised
_GROUPS = (
    " '\u2019\u00a0\u2009\u202f"  # between groups of three digits, besides a point or comma; a group never follows a 0: 0.125
)
_CODES = (  # not any three capitals, which begin article numbers, too: SKU001
    "AED ARS AUD BAM BGN BRL BYN CAD CHF CLP CNY COP CZK DKK DZD EGP EUR GBP GEL GHS HKD HRK HUF IDR ILS INR ISK JPY KES KRW "
    "KZT LKR MAD MXN MYR NGN NOK NPR NZD PEN PHP PKR PLN QAR RMB RON RSD RUB SAR SEK SGD THB TND TRY TWD UAH USD UYU UZS VND "
    "XAF XOF ZAR"
)
_MONEY = rf"(?:[$€£¥￥₹₽₩₺₴₫₪฿%円元]|zł|kr\.?|Kč|Ft|lei|руб\.?|р\.|грн\.?|TL|{_CODES.replace(' ', '|')}|Fr\.|R\$)"
NUMBERS: Final = {
    mark: rf"^(?<minus>[-+−]?)\s*{_MONEY}?\s*(?<other>[-+−]?)"
    rf"(?<whole>[1-9]\d{{0,2}}(?:[{group}{_GROUPS}]\d{{2,3}})*[{group}{_GROUPS}]\d{{3}}|\d+)"
    rf"(?<rest>(?:[{mark}]\d+)?(?:[eE][-+]?\d+)?)\s*{_MONEY}?$"
    for mark, group in ((",", "."), (".", ","))
}
"""Patterns of written numbers by the decimal mark, with groups of digits and currencies, for polars."""
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)  # the last for a password
_CLOCK = re.compile(r"%[-_0]?[HIklTRXrcs+]")  # parts of a format that hold a time of day


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


def unreadable_file(path: Path, error: Exception) -> DataError:
    """Return the error of a file that cannot be read.

    Args:
        path: the file.
        error: what the library said that read it.
    """
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    hint = "Rewrite it as Parquet, or as CSV in UTF-8; or correct its section in data.formats"
    if '"' in reason:
        hint += ', such as quote = "" where quotes are ordinary characters'
    if kind_of(path) == "json":
        hint = "Write one JSON object a line, or one array of them, with names and texts in double quotes"
    return DataError("the file cannot be read", where=str(path), why=reason, hint=hint)


def content(path: Path, most: int = -1) -> bytes:
    """Return the bytes of a file, decompressed.

    Args:
        path: the file.
        most: bytes that are read; -1 for all.

    Raises:
        DataError: It cannot be read or decompressed, or a zip archive has another number of members than one.
    """
    try:
        with _open(path) as file:
            return bytes(file.read(most))
    except _damaged() as error:
        raise unreadable_file(path, error) from None


def _damaged() -> tuple[type[Exception], ...]:
    zstandard: Any = sys.modules.get("zstandard")  # imported by now if such a file was read
    return _DAMAGED if zstandard is None else (*_DAMAGED, zstandard.ZstdError)


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path)
        case ".zst":
            try:
                zstandard: Any = import_module("zstandard")  # of 24 MB, which a service that reads no tables does without
            except ModuleNotFoundError:
                hint = "Install it with: pip install 'fm-recall[train]', or decompress the file"
                raise DataError("a .zst file needs the package zstandard", where=str(path), hint=hint) from None
            return cast(IO[bytes], zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True))
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [one for one in archive.namelist() if not one.endswith("/") and not one.startswith("__MACOSX")]
                if len(members) != 1:
                    shown = ", ".join(members[:5]) + (", ..." if len(members) > 5 else "")
                    hint = "Unpack it (unzip), and name the files that are meant"
                    raise DataError(f"the archive has {len(members)} members", where=str(path), why=shown, hint=hint)
                return archive.open(members[0])
        case _:
            return path.open("rb")


def separator_for(path: Path, form: FileFormat) -> str:
    """Return the separator of a text file.

    Args:
        path: the file.
        form: how it is written.
    """
    return form.separator or ("\t" if plain(path).suffix.lower() in (".tsv", ".tab") else ",")


def _json(path: Path) -> pl.LazyFrame:
    raw = content(path).removeprefix(codecs.BOM_UTF8)
    read = (pl.read_json if raw.lstrip()[:1] == b"[" else pl.read_ndjson)(raw, infer_schema_length=None)
    if not read.columns:
        raise DataError("the file has no columns", where=str(path), hint="Write one JSON object a line")
    return read.lazy()


def _text(path: Path, nulls: Sequence[str], form: FileFormat) -> pl.LazyFrame:
    separator = separator_for(path, form)
    source: Path | bytes = path
    plain_mark = len(separator.encode()) == 1
    if path.suffix.lower() == ".zip" or not plain_mark or codecs.lookup(form.encoding).name != "utf-8":
        try:
            text = content(path).decode(form.encoding)
        except UnicodeError as error:
            hint = "Correct the encoding in data.formats"
            raise DataError(f"the text is not {form.encoding}", where=str(path), why=str(error), hint=hint) from None
        source = (text if plain_mark else _one_mark(text, separator)).removeprefix("\ufeff").encode()
    header = list(form.header) if form.header is not None else None
    mark, quote = separator if plain_mark else _UNIT, form.quote or None
    head = source[:_HEAD] if isinstance(source, bytes) else content(path, _HEAD)
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


def _same_order(parts: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Order the columns of files that have the same ones as the first file does."""
    if len(parts) == 1:
        return list(parts)
    first = parts[0].collect_schema().names()
    return [part.select(first) if set(part.collect_schema().names()) == set(first) else part for part in parts]


def lines_of(text: str, most: int = 0) -> list[str]:
    """Split a text at the ends of its lines.

    `str.splitlines` also splits at characters that may be inside of a cell, such as U+2028.

    Args:
        text: any.
        most: lines, after which all others are left out; 0 for all.
    """
    return re.split(r"\r\n?|\n", text, maxsplit=most)[: most or None]


def _one_mark(text: str, separator: str) -> str:
    """Replace a separator that polars does not know by one."""
    if separator != ALIGNED:
        return text.replace(separator, _UNIT)
    return "\n".join(re.sub(r" {2,}", _UNIT, line.strip(" ")) for line in lines_of(text))


def _cells(frame: pl.LazyFrame, nulls: Sequence[str], form: FileFormat) -> pl.LazyFrame:
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
        if form.explode in form.lists and frame.collect_schema().get(form.explode) == pl.String:
            frame = frame.with_columns(pl.col(form.explode).map_batches(listed, return_dtype=pl.List(pl.String)))
        frame = frame.explode(form.explode, empty_as_null=False, keep_nulls=False)
    if form.unnest:
        frame = _unnested(frame)
    frame = frame.with_columns(pl.col(name).forward_fill().over(pl.col(group).rle_id()) for name, group in form.carry.items())
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
    lists = [name for name in form.lists if name in texts and name != form.explode]
    changes += [pl.col(name).map_batches(listed, return_dtype=pl.List(pl.String)) for name in lists]
    changes += [truth(pl.col(name), *words).alias(name) for name, words in form.booleans.items() if name in texts]
    return frame.with_columns(changes).drop(name for name in form.clocks.values() if name in types)


def _unnested(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Replace objects by a column for each member, such as `user.id`."""
    while nested := [name for name, dtype in frame.collect_schema().items() if isinstance(dtype, pl.Struct)]:
        frame = frame.unnest(nested, separator=".")
    return frame


def number(text: pl.Expr, mark: str) -> pl.Expr:
    """Rewrite numbers with a decimal point, and without anything else.

    A text that is not such a number stays as it is, so that reading it as a number tells where it is.

    Args:
        text: such as "1.234,50 €".
        mark: the decimal mark.
    """
    stripped = text.str.strip_chars()
    digits = stripped.str.replace(NUMBERS[mark], "${minus}${other}${whole}${rest}")
    plain = digits.str.replace_all(rf"[+{_GROUPS}{'.' if mark == ',' else ','}]", "").str.replace_many(["−", ","], ["-", "."])
    return pl.when(stripped.str.contains(NUMBERS[mark])).then(plain).otherwise(text)


def moment(text: pl.Expr, pattern: str) -> pl.Expr:
    """Parse times; one that does not fit is an error.

    Args:
        text: the column.
        pattern: as of `strftime`.
    """
    stripped, pattern = text.str.strip_chars(), pattern.replace(".%f", "%.f")  # which polars reads as strftime does .%f
    if _CLOCK.search(pattern) is None:
        return stripped.str.to_date(pattern)
    parsed = stripped.str.to_datetime(pattern, time_unit="us")
    return parsed.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "%z" in pattern else parsed


def truth(text: pl.Expr, yes: str, no: str) -> pl.Expr:
    """Read two words as truth values, in any case; any other is an error.

    Args:
        text: the column.
        yes: the word for true.
        no: the word for false.
    """
    return text.str.strip_chars().str.to_lowercase().cast(pl.Enum([no.lower(), yes.lower()])).to_physical().cast(pl.Boolean)


def listed(texts: pl.Series) -> pl.Series:
    """Parse lists in programming notation, List(String) [n].

    A text that is not a list is its only member.

    Args:
        texts: such as "['a', 'b']", "{a,b}" or '[{"name": "a"}]'.
    """
    known = {text: _list(text) for text in texts.unique().drop_nulls()}
    return pl.Series(texts.name, [None if text is None else known[text] for text in texts], dtype=pl.List(pl.String))


def _list(text: str) -> list[str]:
    stripped = text.strip()
    if re.match(LIST_NOTATION, stripped) is None:
        return [stripped]
    for parse in (json.loads, ast.literal_eval, _bare):
        try:
            read = parse(stripped)
            break
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, csv.Error):
            continue
    else:
        return [stripped]
    members = list(read) if isinstance(read, list | tuple | set | frozenset | dict) else [read]
    names = (one.get("name", next(iter(one.values()), None)) if isinstance(one, dict) else one for one in members)
    return [str(one).strip() for one in names if one is not None]


def _bare(text: str) -> list[str]:
    """Parse a list without quotes, such as "{a,b}"."""
    return next(csv.reader([text[1:-1]], skipinitialspace=True), [])
