"""Detect the format of text files: encoding, separator, quotes, header, totals."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from recall.config import FileFormat
from recall.data.files import files_of, kind_of, read_content, separator_for
from recall.data.scaffold.encoding import CONVERT_HINT, SAMPLE_BYTES, decode_sample, detect_common_encoding
from recall.data.scaffold.text_values import NULL_SPELLINGS, NULL_SPELLINGS_OF_NUMBERS
from recall.data.text_layout import ALIGNED, RULE, double_escaped_quotes, remove_rules, split_lines
from recall.errors import DataError

# Thresholds. Chosen, not tuned.
_MAX_NUL_SHARE = 0.1  # share of NUL characters; a file with more is binary
_SAMPLE_LINES = 500  # lines from which the separator and the header are detected
_MIN_CONSISTENT = 0.95  # share of the lines that must have the same number of cells
# bytes of other files of the table, and how many of these, whose encoding is compared
_OTHER_FILE_BYTES, _OTHER_FILES = 1 << 20, 100
_SEPARATORS = ("\t", ";", ",", "|", "::", "\x01")  # the first wins among those that give equally many columns
_FALLBACK_SEPARATORS = ((ALIGNED,), ("^", "~"), (" ",))  # tried if no other separator fits, as text contains blanks
_RULED_SEPARATORS = ("|", "\t", ALIGNED, " ")  # of tables with lines of dashes
_MAX_PREAMBLE = 20  # lines above the header
_COMMENT = r"^\s*(#|//|--|%)"
_TOTALS = (
    "total|sum|summe|gesamt|gesamtsumme|insgesamt|somme|totale|suma|razem|ogółem|celkem|totaal|totalt|összesen|toplam|итого|всего|"
    "σύνολο|合計|总计|총계"
)
_TOTAL = rf"(?i)^(grand |sub)?({_TOTALS})s?:?$"
_TYPED_NAME = r":(token|float)(_seq)?$"  # of atomic files of RecBole
_TYPE_NAME = (
    r"^(Nullable\(|LowCardinality\(|Array\()*(U?Int\d+|Float\d+|(Fixed)?String|Date(Time)?\d*|Bool|UUID|Decimal|Enum\d*)"
    r"(\(.*\))?\)*$|^:?-{2,}:?$"
)


@dataclass(frozen=True, slots=True)
class DetectedFormat:
    """Detected format of a table, for `[data.formats]`.

    Attributes:
        settings: the format.
        reasons: reason for each setting that is not the default.
    """

    settings: FileFormat = FileFormat()  # noqa: RUF009 - immutable
    reasons: Mapping[str, str] = field(default_factory=dict)

    def with_settings(self, changes: Mapping[str, Any], reasons: Mapping[str, str]) -> "DetectedFormat":
        """Return a copy with more settings.

        Args:
            changes: value of each further setting.
            reasons: reason for each.
        """
        return DetectedFormat(self.settings.model_copy(update=dict(changes)), {**self.reasons, **reasons})


def detect_format(path: Path) -> DetectedFormat:
    """Detect the format of the text files of a table.

    Parquet and JSON get the default format.

    Args:
        path: file, folder or pattern.

    Raises:
        DataError: A file is missing, damaged or empty, or its encoding is unknown.
    """
    if not path.exists() and files_of(path) in ([], [path]):
        raise DataError("no such file", where=str(path), hint="Correct the path")
    first, *others = files_of(path)
    _refuse_unsupported(first)
    if kind_of(first) in ("parquet", "json"):
        return DetectedFormat()
    raw = read_content(first, SAMPLE_BYTES)
    if raw[:4] == b"PAR1":
        raise DataError("a Parquet file has another suffix", where=str(first), hint="Rename it to .parquet")
    encoding, encoding_reason = detect_common_encoding(
        {first: raw, **{one: read_content(one, _OTHER_FILE_BYTES).rpartition(b"\n")[0] for one in others[:_OTHER_FILES]}}
    )
    try:
        text = decode_sample(raw, encoding).removeprefix("\ufeff").rstrip("\x1a")  # the end of a file of DOS
    except UnicodeDecodeError as error:
        what = f"the text seems to be {encoding} and is not"
        raise DataError(what, where=str(first), why=str(error), hint=CONVERT_HINT) from None
    if text.count("\0") > _MAX_NUL_SHARE * len(text):
        raise DataError("the file is binary", where=str(first), hint="Save it as CSV in UTF-8 or as Parquet")
    escaped_quote = _find_escaped_quote(text)
    text = double_escaped_quotes(text) if escaped_quote else text
    text = text if len(raw) < SAMPLE_BYTES else text.rpartition("\n")[0]
    ruled = _has_rules(text)
    text = remove_rules(text) if ruled else text
    lines = _first_lines(text)
    if not lines:
        raise DataError("the file is empty", where=str(first), hint="Give at least one row")
    reasons = {"encoding": encoding_reason} if encoding != "utf-8" else {}
    changes: dict[str, Any] = {"encoding": encoding} if encoding != "utf-8" else {}

    def assume(setting: str, value: object, reason: str) -> None:
        changes[setting], reasons[setting] = value, reason

    if ruled:
        assume("rules", True, "lines of dashes")
    if escaped_quote:
        assume("backslashes", True, f"such as {escaped_quote!r}")
    preamble, separator, quote, rows = _find_table(lines)
    if len(rows[0]) % 2 and len(rows[0]) > 2 and not any(cell for row in rows for cell in row[1::2]):
        separator, rows = 2 * separator, [row[::2] for row in rows]
    _refuse_sections(first, [*lines[:preamble], *(row[0] for row in rows if len(row) == 1 < len(rows[0]))])
    if quote and (_quotes_inside(lines, separator) or _quotes_unpaired(text, separator, len(rows[0]), lines[:preamble])):
        quote, rows = "", _complete_header(_split_cells(lines, separator, "")[preamble:], len(rows[0]))
    skip = split_lines(text, _SAMPLE_LINES + 1).index(lines[preamble])  # empty lines count
    if skip:
        above = f"lines above the header, such as {lines[0][:40]!r}" if preamble else "empty lines above the header"
        assume("skip", skip, above)
    default_separator = separator_for(first, FileFormat())
    if len(rows[0]) > 1 and separator != default_separator:
        assume("separator", separator, f"{len(rows[0])} columns in each of {len(rows):,} lines")
    if quote != '"':
        assume("quote", quote, "quotes do not come in pairs around cells")
    if separator != ALIGNED and any(cell != cell.strip() for cell in rows[0]):
        padded = next(cell for cell in rows[0] if cell != cell.strip())
        assume("strip", True, f"blanks around {padded!r} in the header")
        rows = [[cell.strip() for cell in row] for row in rows]
    width = len(rows[0])
    header_width = len(_split_cells(lines, separator, quote)[preamble])  # before `_complete_header`
    if header_width < width and not rows[0][-1]:
        assume("ragged", True, "each row ends in a separator, and the header does not")
        rows, width = [row[:header_width] for row in rows], header_width
    elif width > 1 and (longer := next((row for row in rows if len(row) > width), None)) is not None:
        assume("ragged", True, f"the row of {longer[0]!r} ends in empty cells beyond the header")
    body = rows[2:] if len(rows) > _MAX_PREAMBLE else rows[1:]  # the second line may belong to the header
    headless = missing_header_reason([rows[0], *(row for row in body if row != rows[0])])
    if headless:
        assume("header", tuple(f"column_{number}" for number in range(1, width + 1)), headless)
    elif "" in rows[0]:
        names = [name or ("row" if number == 1 else f"column_{number}") for number, name in enumerate(rows[0], 1)]
        assume("header", _deduplicated(names), f"{names[rows[0].index('')]} has no name in the file")
        assume("skip", skip + 1, "with the header of the file")
    elif all(re.search(_TYPED_NAME, name) for name in rows[0]):
        assume("header", _deduplicated([re.sub(r":(token|float)$", "", name) for name in rows[0]]), "names with their types")
        assume("skip", skip + 1, "with the header of the file")
    elif header_width < width or (repeated := next((name for name, count in Counter(rows[0]).items() if count > 1), "")):
        unnamed = "the rows begin with a name for which the header has none"
        assume("header", _deduplicated(rows[0]), unnamed if header_width < width else f"{repeated!r} names several columns")
        assume("skip", skip + 1, "with the header of the file")
    if len(raw) < SAMPLE_BYTES and width > 1 and (last := _total_label(text, separator, quote)):
        again = bool(not headless and split_lines(text).count(lines[preamble]) > 1)
        assume("totals", (last, *rows[0][:again]), "the last row begins so" + ", and the header is repeated" * again)
    elif not headless and len(rows) > 1 and all(re.match(_TYPE_NAME, cell) for cell in rows[1]):
        assume("totals", (rows[1][0],), "the line below the header has the types of the columns, or marks its end")
    elif not headless and (column := _second_header_column(rows)):
        second = split_lines(text, _SAMPLE_LINES + 1).index(lines[preamble + 1])
        assume("header", changes.get("header", tuple(rows[0])), "of the first of two lines")
        assume("skip", second + 1, f"the line below the header has no number in {column}, and all others have")
    elif not headless and width > 1 and len(re.findall(rf"(?m)^{re.escape(lines[preamble])}\r?$", text)) > 1:
        assume("totals", (rows[0][0],), "the header is repeated, as in files that were concatenated")
    if kind_of(first) is None and not changes:  # a file with an unknown suffix is read only if a format is configured
        assume("separator", separator, "the usual one")
    return DetectedFormat(FileFormat(**changes), reasons)


_UNSUPPORTED = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"), "a spreadsheet (Excel)"),
    **dict.fromkeys((".feather", ".arrow", ".ipc", ".avro", ".orc", ".h5", ".hdf5"), "a binary table"),
    **dict.fromkeys((".pkl", ".pickle", ".rds", ".rdata", ".sav", ".dta", ".sas7bdat"), "a file of a statistics program"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".mdb", ".accdb"), "a database"),
    **dict.fromkeys((".7z", ".rar", ".tar", ".tgz", ".bz2", ".xz"), "an archive of another kind"),
    **dict.fromkeys((".xml", ".html", ".pdf", ".docx"), "a document"),
}
_NULLS = {spelling.lower() for spelling in (*NULL_SPELLINGS, *NULL_SPELLINGS_OF_NUMBERS)}
_SECTION_LINE = r"^\s*\w*\d\w*:\s*$"
_EXPORT_HINTS = {
    "a spreadsheet (Excel)": 'Save the sheet as "CSV UTF-8", or with pandas.read_excel("a.xlsx").to_csv("a.csv", index=False)',
    "an archive of another kind": "Unpack it and name the file; .gz, .zst and .zip with one file are read as they are",
}


def _refuse_unsupported(path: Path) -> None:
    """Raise DataError for a file type that is not supported."""
    kind = _UNSUPPORTED.get(path.suffix.lower())
    if kind is not None:
        hint = _EXPORT_HINTS.get(kind, "Save it as CSV in UTF-8 or as Parquet with the program that wrote it")
        raise DataError(f"{kind} is not read", where=str(path), hint=hint)


def _refuse_sections(path: Path, single_cells: Sequence[str]) -> None:
    """Raise DataError if a line such as "123:" has the id of the rows below it."""
    section = next((line.strip() for line in single_cells if re.match(_SECTION_LINE, line)), "")
    if section:
        what = f"each line must be a row, and {section!r} seems to hold an id of the rows below it"
        awk = """awk '/:\\r?$/ { sub(":.*", ""); id = $0; next } { print id "," $0 }'"""
        raise DataError(what, where=str(path), hint=f"Write the id into each row: {awk} FILE > NEW")


def _deduplicated(names: Sequence[str]) -> tuple[str, ...]:
    """Make column names unique, such as price and price_2."""
    used: dict[str, None] = {}
    for name in names:
        used[next(one for one in chain([name], (f"{name}_{number}" for number in count(2))) if one not in used)] = None
    return tuple(used)


def _total_label(text: str, separator: str, quote: str) -> str:
    """Return the first cell of the last line if it is a row of totals, or ""."""
    line = next((line for line in reversed(split_lines(text[-10_000:])) if line.strip()), "")
    row = (_split_cells([line], separator, quote) or [[""]])[0] or [""]
    is_total = re.match(rf"(?i)({_TOTALS})\b", row[0].strip()) and sum(map(bool, row)) <= len(row) / 2
    return row[0].strip() if is_total or re.match(_TOTAL, row[0].strip()) else ""


def _first_lines(text: str) -> list[str]:
    """Return the first non-empty lines."""
    return [line for line in split_lines(text, _SAMPLE_LINES + 1) if line.strip()][:_SAMPLE_LINES]


def _has_rules(text: str) -> bool:
    """Return whether a table has lines of dashes outside of quoted cells."""
    plain = remove_rules(text)
    lines = _first_lines(plain)
    if plain == text or not lines:
        return False
    _, separator, quote, _ = _find_table(lines)
    quoted = quote and not _quotes_inside(lines, separator)
    inside = quoted and any(text.count('"', 0, rule.start()) % 2 for rule in RULE.finditer(text))
    return separator in _RULED_SEPARATORS and not inside


def _find_table(lines: Sequence[str]) -> tuple[int, str, str, list[list[str]]]:
    """Return the length of the preamble, the separator, the quote and the cells.

    Of all combinations in which nearly all lines have the same number of cells, the one with the most columns is chosen.
    Empty cells beyond the header do not count.
    """
    best = (0, ",", '"', [[line] for line in lines])
    for separators in (_SEPARATORS, *_FALLBACK_SEPARATORS):
        for quote in ('"', ""):
            for separator in separators:
                rows = _split_cells(lines, separator, quote)
                width = _usual_width(rows)
                preamble = _preamble_length(rows, width)
                rows = _complete_header(rows[preamble:], width)
                consistent = sum(len(row) == width or (len(row) > width and not any(row[width:])) for row in rows)
                header = len(rows[0]) == width  # a separator in prose does not cut the header as well
                if header and consistent >= _MIN_CONSISTENT * len(rows) and width > len(best[3][0]):
                    best = (preamble, separator, quote, rows)
            if len(best[3][0]) > 1 and all(len(row) == len(best[3][0]) for row in best[3]):
                return best
        if len(best[3][0]) > 1:
            return best
    return best


def _complete_header(rows: list[list[str]], width: int) -> list[list[str]]:
    """Add the cell that a header lacks if all other rows have one cell more.

    R writes row names without a column name; other programs end each row, but not the header, with a separator.
    """
    if not len(rows[0]) == width - 1 > 1 or len(rows) < 3 or any(len(row) != width for row in rows[1:]):
        return rows
    header = ["row", *rows[0]] if any(row[-1] for row in rows[1:]) else [*rows[0], ""]
    return [header, *rows[1:]]


def _second_header_column(rows: Sequence[Sequence[str]]) -> str:
    """Return a numeric column if the second line is a header, or "".

    It is a header if it has words in all numeric columns.
    """
    width = len(rows[0])
    if len(rows) < _MAX_PREAMBLE or len(rows[1]) != width:
        return ""
    others = list(zip(*(row for row in rows[2:] if len(row) == width), strict=True))
    if any(cell and (cell.strip().lower() in _NULLS or cell in cells) for cell, cells in zip(rows[1], others, strict=True)):
        return ""
    numeric = [place for place, cells in enumerate(others) if all(map(_is_number, filter(None, cells)))]
    with_word_above = [
        place for place in numeric if re.search(r"[^\W\d]{2}", rows[1][place]) and not _is_number(rows[1][place])
    ]
    return rows[0][numeric[0]] if len(numeric) > 1 and with_word_above == numeric else ""


def _find_escaped_quote(text: str) -> str:
    """Return an example of a quote that is escaped by a backslash, or ""."""
    cell = r'(?m)(?:^|[,;|\t])"(?:[^"\\\r\n]|\\[^"\r\n])*\\"[^,;|\t\r\n"][^"\r\n]{0,20}'  # a backslash may follow another
    found = '\\"' in text and re.search(cell, text)
    return found[0][:40].lstrip(",;|\t") if found else ""


def _quotes_inside(lines: Sequence[str], separator: str) -> bool:
    """Return whether quotes occur inside of cells only, as ordinary characters."""
    with_quote = [cell.strip() for line in lines if '"' in line for cell in line.split(separator) if '"' in cell]
    return bool(with_quote) and not any(cell.startswith('"') for cell in with_quote)


def _quotes_unpaired(text: str, separator: str, width: int, above: Sequence[str]) -> bool:
    """Return whether cells begin with quoted words, as in "Al" Yan.

    Args:
        text: the file, or its start.
        separator: the separator of its cells.
        width: number of cells of a row.
        above: lines above the header, which may have any number of cells.
    """
    mark = re.escape(separator)
    if separator == ALIGNED or not re.search(rf'(?m)(?:^|{mark})"(?:[^"\r\n]|"")*"(?!"|{mark}|\r?$)', text):
        return False
    return all(line.count(separator) == width - 1 for line in split_lines(text) if line and line not in above)


def _usual_width(rows: Sequence[Sequence[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def _preamble_length(rows: Sequence[Sequence[str]], width: int) -> int:
    """Return the number of lines above the header: comments and titles."""
    # spreadsheets pad the titles above a table with empty cells to its width, and may write a date beside a title
    filled = sorted(sum(map(bool, row)) for row in rows if len(row) == width)
    min_filled = max(2, filled[len(filled) // 2] // 2) if width > 2 else 1
    first = next(
        (n for n, row in enumerate(rows[: _MAX_PREAMBLE + 1]) if len(row) == width and sum(map(bool, row)) >= min_filled), 0
    )
    # without a header, a line with few cells is a row
    header_missing = bool(first and missing_header_reason(rows[first : first + 1]))
    fits = all(
        re.match(_COMMENT, row[0]) or sum(map(bool, row)) < (2 if header_missing and len(row) == width else max(min_filled, 2))
        for row in rows[:first]
    )
    return first if fits and width > 1 else 0


def _split_cells(lines: Sequence[str], separator: str, quote: str) -> list[list[str]]:
    if separator == ALIGNED:
        return [re.split(r" {2,}", line.strip(" ")) for line in lines]
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    ended = (f"{line}\n" for line in lines)
    try:
        return list(csv.reader(ended, delimiter=separator, quotechar=quote or None, quoting=quoting))
    except csv.Error:  # a cell of 128 kB: unpaired quotes, or the wrong separator
        return [[line] for line in lines]


def missing_header_reason(rows: Sequence[Sequence[str]]) -> str:
    """Return the reason why the first row is not a header, or "" if it is.

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
