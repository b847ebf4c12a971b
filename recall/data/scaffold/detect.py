"""Detect how a file is written: encoding, separator, quotes and header."""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from recall.config import FileFormat
from recall.data.files import content, files_of, kind_of, moment, separator_for
from recall.data.findings import written_lists
from recall.data.times import Times
from recall.errors import DataError

# Thresholds. Chosen, not tuned.
SAMPLE = 64 << 20
"""Bytes of a file that are read."""
_LINES = 500  # lines that are read
_ALIKE = 0.95  # share of the lines that must have the same number of columns
_UNUSUAL = 200_000  # bytes of lines outside ASCII from which the encoding is guessed
_SEPARATORS = ("\t", ";", ",", "|", "::", " ")  # in this order where two give as many columns
_ENCODINGS: Final = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "iso8859_15", "koi8_r"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True, slots=True)
class Written:
    """How a table is written, and why it is read so.

    Attributes:
        form: settings other than the usual.
        reasons: by setting.
    """

    form: FileFormat = FileFormat()  # noqa: RUF009 - immutable
    reasons: Mapping[str, str] = field(default_factory=dict)

    def with_(self, changes: Mapping[str, Any], reasons: Mapping[str, str]) -> "Written":
        """Return a copy with more settings.

        Args:
            changes: by setting.
            reasons: by setting.
        """
        return Written(self.form.model_copy(update=dict(changes)), {**self.reasons, **reasons})


def detect(path: Path) -> Written:
    """Detect how the text files of a table are written.

    Parquet and JSON have nothing to detect.

    Args:
        path: a file or folder.

    Raises:
        DataError: A file is missing, damaged or empty, or its encoding is unknown.
    """
    if not path.exists():
        raise DataError("no such file", where=str(path), hint="Correct the path")
    first = files_of(path)[0]
    if kind_of(first) in ("parquet", "json"):
        return Written()
    raw = content(first, SAMPLE)
    if raw[:4] == b"PAR1":
        raise DataError("a Parquet file has another suffix", where=str(first), hint="Rename it to .parquet")
    encoding, why = encoding_of(raw, first)
    text = _decoded(raw, encoding).removeprefix("\ufeff")
    lines = _lines(text if len(raw) < SAMPLE else text.rpartition("\n")[0])
    if not lines:
        raise DataError("the file is empty", where=str(first), hint="Give at least one row")
    reasons = {"encoding": why} if encoding != "utf-8" else {}
    found: dict[str, Any] = {"encoding": encoding} if encoding != "utf-8" else {}
    separator, quote, rows = _table(lines)
    usual = separator_for(first, FileFormat())
    if len(rows[0]) > 1 and separator != usual:
        found["separator"] = separator
        reasons["separator"] = f"{len(rows[0])} columns in each of {len(rows):,} lines"
    if quote != '"':
        found["quote"] = quote
        reasons["quote"] = "quotes do not come in pairs around cells"
    why = headless(rows)
    if why:
        found["header"] = tuple(f"column_{number}" for number in range(1, len(rows[0]) + 1))
        reasons["header"] = why
    if kind_of(first) is None and not found:  # another name is read only with a format
        found["separator"], reasons["separator"] = separator, "the usual one"
    return Written(FileFormat(**found), reasons)


def encoding_of(raw: bytes, path: Path) -> tuple[str, str]:
    """Return the encoding of a text, and why.

    Args:
        raw: the text, or the first `SAMPLE` bytes of it.
        path: names the file in errors.

    Raises:
        DataError: No encoding fits.
    """
    for mark, encoding in _MARKS.items():
        if raw.startswith(mark):
            return encoding, "its byte order mark says so"
    try:
        _decoded(raw, "utf-8")
        return "utf-8", ""
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    unusual = b"\n".join(line for line in raw.splitlines() if not line.isascii())[:_UNUSUAL]
    matches = from_bytes(unusual, cp_isolation=list(_ENCODINGS))
    best = matches.best()
    hint = "Convert the file to UTF-8, for instance with iconv"
    if best is None:
        raise DataError("the encoding is unknown", where=str(path), hint=hint)
    # of encodings that fit equally well the most frequent one
    usual = [one for one in matches if _ENCODINGS[0] in one.could_be_from_charset]
    tie = any((one.chaos, -one.coherence) <= (best.chaos, -best.coherence) for one in usual)
    encoding = _ENCODINGS[0] if tie else best.encoding
    try:
        _decoded(raw, encoding)
    except UnicodeDecodeError as error:
        what = f"the text seems to be {encoding} and is not"
        raise DataError(what, where=str(path), why=str(error), hint=hint) from None
    word = next((word for word in re.findall(r"\w+", unusual.decode(encoding, "replace")) if not word.isascii()), "")
    return encoding, f"the bytes are not UTF-8, and read so they are text such as {word}"


def _decoded(raw: bytes, encoding: str) -> str:
    """Decode a text; the last character of a part of a text may be cut."""
    return codecs.getincrementaldecoder(encoding)().decode(raw, final=len(raw) < SAMPLE)


def _lines(text: str) -> list[str]:
    """Return the first lines, without empty ones; a quoted cell may hold breaks."""
    return [line for line in text.splitlines()[: _LINES + 1] if line.strip()][:_LINES]


def _table(lines: Sequence[str]) -> tuple[str, str, list[list[str]]]:
    """Return separator, quote and cells of the likeliest table.

    That is the one with most columns among those in which nearly all lines have the same number.
    """
    best = (",", '"', [[line] for line in lines])
    for quote in ('"', ""):
        for separator in _SEPARATORS:
            rows = _cells(lines, separator, quote)
            width, count = Counter(map(len, rows)).most_common(1)[0]
            header = len(rows[0]) == width  # a separator in prose does not cut the header as well
            if header and count >= _ALIKE * len(rows) and width > len(best[2][0]):
                best = (separator, quote, rows)
        if len(best[2][0]) > 1 and all(len(row) == len(best[2][0]) for row in best[2]):
            break
    return best


def _cells(lines: Sequence[str], separator: str, quote: str) -> list[list[str]]:
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    if not quote:
        return list(csv.reader(lines, delimiter=separator, quotechar=None, quoting=csv.QUOTE_NONE))
    return list(csv.reader(lines, delimiter=separator, quotechar=quote))


def headless(rows: Sequence[Sequence[str]]) -> str:
    """Return why the first row is not a header; empty if it is one.

    Args:
        rows: cells of the first lines.
    """
    first, rest = rows[0], rows[1:]
    number = next((cell for cell in first if _is_number(cell)), None)
    if number is not None:
        return f"the first line holds the number {number}, and names are not numbers"
    repeated = next(
        (cell for place, cell in enumerate(first) if cell and any(row[place : place + 1] == [cell] for row in rest)), None
    )
    if repeated is not None:
        return f"the first line holds {repeated!r}, which is a value of the same column below"
    return ""


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().replace(",", "."))
    except ValueError:
        return False
    return cell.strip().lower() not in ("nan", "inf", "infinity")


# Detect what the text of columns means: missing values, numbers, times, lists.

_ALWAYS: Final = ("\\N", "NULL", "null", "(null)", "NaN", "nan", "<NA>", "#N/A", "N/A", "n/a", "None")
"""Spellings of missing values that are hardly anything else."""
_AMONG_NUMBERS: Final = ("NA", "na", "-", "--", "?", ".", "unknown", "missing", "-inf", "inf")
"""Spellings of missing values where all other values are numbers."""
_LISTS = 0.05  # share of cells that are written lists. Chosen, not tuned.
_PLAIN = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_COMMA = r"^\d{1,3}([. '\u00a0\u202f]\d{3})*(,\d+)?$|^\d+(,\d+)?$"
_POINT = r"^\d{1,3}([, '\u00a0\u202f]\d{3})*(\.\d+)?$|^\d+(\.\d+)?$"
_AROUND = r"^[-+]?\s*[$€£¥]?\s*[-+]?|\s*[$€£¥%]?$"  # signs and currencies
_DAYS = ("%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y.%m.%d", "%m %d, %Y")
_WORDS = ("%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%d %B %Y")
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
_PATTERNS: Final = (
    *(day + clock for day in (*_DAYS, *_WORDS) for clock in _CLOCKS),
    *("%Y%m%d%H%M%S", "%Y%m%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z"),
)
"""Formats of times, tried in this order."""


def nulls_of(values: pl.Series) -> Iterator[tuple[str, str]]:
    """Yield spellings of missing values in a column of text, and why.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().unique()
    written = [one for one in (*_ALWAYS, *_AMONG_NUMBERS) if (texts == one).any()]
    others = texts.filter(~texts.is_in(written)) if written else texts
    numbers = len(others) > 0 and (bool(others.str.contains(_PLAIN).all()) or number_mark(others) != "")
    for one in written:
        if numbers:
            yield one, f"among the numbers of {values.name}"
        elif one in _ALWAYS and len(others) > 0:
            yield one, f"in {values.name}"


def number_mark(values: pl.Series) -> Literal["", ".", ","]:
    """Return the decimal mark of written numbers; empty for plain numbers and text.

    Args:
        values: String [n], none missing.
    """
    texts = values.drop_nulls().unique().str.strip_chars()
    if texts.is_empty() or texts.str.contains(_PLAIN).all() or not texts.str.contains(r"\d").all():
        return ""
    bare = texts.str.replace_all(_AROUND, "")
    by_comma, by_point = bool(bare.str.contains(_COMMA).all()), bool(bare.str.contains(_POINT).all())
    if by_comma and by_point:  # only groups of three, such as 1,234: a group rather than three decimals
        return "." if bare.str.contains(",", literal=True).any() else ","
    return "," if by_comma else "." if by_point else ""


def time_pattern(values: pl.Series) -> str:
    """Return the format of times that are neither numbers nor ISO 8601; else empty.

    Args:
        values: String [n].
    """
    texts = values.drop_nulls().unique()
    if texts.is_empty() or not texts.str.contains(r"\d").all() or texts.str.contains(_PLAIN).all():
        return ""
    try:
        Times.of(texts, "")
    except DataError:
        pass
    else:
        return ""
    for pattern in _PATTERNS:
        try:
            pl.select(moment(pl.lit(texts), pattern))
        except pl.exceptions.PolarsError:
            continue
        return pattern
    return ""


def swapped_pattern(values: pl.Series, pattern: str) -> str:
    """Return the format with day and month exchanged if the times fit that too.

    Args:
        values: String [n].
        pattern: from `time_pattern`.
    """
    if "%d" not in pattern or "%m" not in pattern:
        return ""
    other = pattern.translate({ord("d"): "m", ord("m"): "d"})
    try:
        pl.select(moment(pl.lit(values.drop_nulls().unique()), other))
    except pl.exceptions.PolarsError:
        return ""
    return other


def is_list(values: pl.Series) -> bool:
    """Return whether a column of text holds lists in programming notation."""
    known = values.drop_nulls()
    return len(known) > 0 and written_lists(known) > _LISTS * len(known)
