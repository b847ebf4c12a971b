"""Detect how a file is written: separator, quotes and header."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from recall.config import FileFormat
from recall.data.files import ALIGNED, RULE, content, files_of, kind_of, lines_of, separator_for, unescaped, unruled
from recall.data.scaffold.encoding import CONVERT, SAMPLE, common_encoding, decoded
from recall.data.scaffold.meaning import ALWAYS, AMONG_NUMBERS
from recall.errors import DataError

# Thresholds. Chosen, not tuned.
_NULS = 0.1  # share of NUL characters that text does not have
_LINES = 500  # lines that are read
_ALIKE = 0.95  # share of the lines that must have the same number of columns
_PART, _PARTS = 1 << 20, 100  # bytes of other files of the table, and how many of these, whose encoding is compared
_SEPARATORS = ("\t", ";", ",", "|", "::", "\x01")  # in this order where two give as many columns
_LAST = ((ALIGNED,), ("^", "~"), (" ",))  # where no other separator fits: texts contain blanks, too
_DRAWN = ("|", ALIGNED, " ")  # separators of tables with lines of dashes
_ABOVE = 20  # lines above the header, at most
_COMMENT = r"^\s*(#|//|--|%)"
_TOTALS = "total|sum|summe|gesamt|gesamtsumme|insgesamt|somme|totale|suma|итого|toplam|σύνολο|合計|总计|총계"
_TOTAL = rf"(?i)^(grand |sub)?({_TOTALS})s?:?$"
_TYPE = (
    r"^(Nullable\(|LowCardinality\(|Array\()*(U?Int\d+|Float\d+|(Fixed)?String|Date(Time)?\d*|Bool|UUID|Decimal|Enum\d*)"
    r"(\(.*\))?\)*$|^:?-{2,}:?$"
)


@dataclass(frozen=True, slots=True)
class Written:
    """Format of a table, and the reasons for reading it so.

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
    if not path.exists() and files_of(path) in ([], [path]):
        raise DataError("no such file", where=str(path), hint="Correct the path")
    first, *others = files_of(path)
    _refuse_foreign(first)
    if kind_of(first) in ("parquet", "json"):
        return Written()
    raw = content(first, SAMPLE)
    if raw[:4] == b"PAR1":
        raise DataError("a Parquet file has another suffix", where=str(first), hint="Rename it to .parquet")
    encoding, why = common_encoding({first: raw, **{one: content(one, _PART).rpartition(b"\n")[0] for one in others[:_PARTS]}})
    try:
        text = decoded(raw, encoding).removeprefix("\ufeff").rstrip("\x1a")  # the end of a file of DOS
    except UnicodeDecodeError as error:
        what = f"the text seems to be {encoding} and is not"
        raise DataError(what, where=str(first), why=str(error), hint=CONVERT) from None
    if text.count("\0") > _NULS * len(text):
        raise DataError("the file is binary", where=str(first), hint="Save it as CSV in UTF-8 or as Parquet")
    backslashes = _backslashes(text)
    text = unescaped(text) if backslashes else text
    text = text if len(raw) < SAMPLE else text.rpartition("\n")[0]
    drawn = _is_drawn(text)
    text = unruled(text) if drawn else text
    lines = _lines(text)
    if not lines:
        raise DataError("the file is empty", where=str(first), hint="Give at least one row")
    reasons = {"encoding": why} if encoding != "utf-8" else {}
    found: dict[str, Any] = {"encoding": encoding} if encoding != "utf-8" else {}

    def assume(setting: str, value: object, reason: str) -> None:
        found[setting], reasons[setting] = value, reason

    if drawn:
        assume("rules", True, "lines of dashes")
    if backslashes:
        assume("backslashes", True, f"such as {backslashes!r}")
    above, separator, quote, rows = _table(lines)
    if len(rows[0]) % 2 and len(rows[0]) > 2 and not any(cell for row in rows for cell in row[1::2]):
        separator, rows = 2 * separator, [row[::2] for row in rows]
    _refuse_sections(first, [*lines[:above], *(row[0] for row in rows if len(row) == 1 < len(rows[0]))])
    if quote and (_quotes_inside(lines, separator) or _quotes_unpaired(text, separator, len(rows[0]))):
        quote, rows = "", _completed(_cells(lines, separator, "")[above:], len(rows[0]))
    skip = lines_of(text, _LINES + 1).index(lines[above])  # empty lines count
    if skip:
        assume("skip", skip, f"lines above the header, such as {lines[0][:40]!r}" if above else "empty lines above the header")
    usual = separator_for(first, FileFormat())
    if len(rows[0]) > 1 and separator != usual:
        assume("separator", separator, f"{len(rows[0])} columns in each of {len(rows):,} lines")
    if quote != '"':
        assume("quote", quote, "quotes do not come in pairs around cells")
    if separator != ALIGNED and any(cell != cell.strip() for cell in rows[0]):
        padded = next(cell for cell in rows[0] if cell != cell.strip())
        assume("strip", True, f"blanks around {padded!r} in the header")
        rows = [[cell.strip() for cell in row] for row in rows]
    width = len(rows[0])
    bare = len(_cells(lines, separator, quote)[above])  # names in the file
    if bare < width and not rows[0][-1]:
        assume("ragged", True, "each row ends in a separator, and the header does not")
        rows, width = [row[:bare] for row in rows], bare
    elif width > 1 and (longer := next((row for row in rows if len(row) > width), None)) is not None:
        assume("ragged", True, f"the row of {longer[0]!r} ends in empty cells beyond the header")
    below = rows[2:] if len(rows) > _ABOVE else rows[1:]  # the second line may be one of a header
    why = headless([rows[0], *(row for row in below if row != rows[0])])
    if why:
        assume("header", tuple(f"column_{number}" for number in range(1, width + 1)), why)
    elif "" in rows[0]:
        names = [name or ("row" if number == 1 else f"column_{number}") for number, name in enumerate(rows[0], 1)]
        assume("header", _numbered(names), f"{names[rows[0].index('')]} has no name in the file")
        assume("skip", skip + 1, "with the header of the file")
    elif bare < width or (repeated := next((name for name, count in Counter(rows[0]).items() if count > 1), "")):
        named = (
            "the rows begin with a name for which the header has none"
            if bare < width
            else f"{repeated!r} names several columns"
        )
        assume("header", _numbered(rows[0]), named)
        assume("skip", skip + 1, "with the header of the file")
    if len(raw) < SAMPLE and width > 1 and (last := _last_total(text, separator, quote)):
        assume("totals", (last,), "the last row begins so")
    elif not why and len(rows) > 1 and all(re.match(_TYPE, cell) for cell in rows[1]):
        assume("totals", (rows[1][0],), "the line below the header has the types of the columns, or marks its end")
    elif not why and (column := _second_header(rows)):
        second = lines_of(text, _LINES + 1).index(lines[above + 1])
        assume("header", found.get("header", tuple(rows[0])), "of the first of two lines")
        assume("skip", second + 1, f"the line below the header has no number in {column}, and all others have")
    elif not why and width > 1 and len(re.findall(rf"(?m)^{re.escape(lines[above])}\r?$", text)) > 1:
        assume("totals", (rows[0][0],), "the header is repeated, as in files that were concatenated")
    if kind_of(first) is None and not found:  # another name is read only with a format
        assume("separator", separator, "the usual one")
    return Written(FileFormat(**found), reasons)


_FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"), "a spreadsheet (Excel)"),
    **dict.fromkeys((".feather", ".arrow", ".ipc", ".avro", ".orc", ".h5", ".hdf5"), "a binary table"),
    **dict.fromkeys((".pkl", ".pickle", ".rds", ".rdata", ".sav", ".dta", ".sas7bdat"), "a file of a statistics program"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3", ".mdb", ".accdb"), "a database"),
    **dict.fromkeys((".7z", ".rar", ".tar", ".tgz", ".bz2", ".xz"), "an archive of another kind"),
    **dict.fromkeys((".xml", ".html", ".pdf", ".docx"), "a document"),
}
_MISSING = {spelling.lower() for spelling in (*ALWAYS, *AMONG_NUMBERS)}
_SECTION = r"^\s*\w*\d\w*:\s*$"
_HINTS = {
    "a spreadsheet (Excel)": 'Save the sheet as "CSV UTF-8", or with pandas.read_excel("a.xlsx").to_csv("a.csv", index=False)',
    "an archive of another kind": "Unpack it and name the file; .gz, .zst and .zip with one file are read as they are",
}


def _refuse_foreign(path: Path) -> None:
    """Raise DataError for a file of a kind that is not read."""
    kind = _FOREIGN.get(path.suffix.lower())
    if kind is not None:
        hint = _HINTS.get(kind, "Save it as CSV in UTF-8 or as Parquet with the program that wrote it")
        raise DataError(f"{kind} is not read", where=str(path), hint=hint)


def _refuse_sections(path: Path, alone: Sequence[str]) -> None:
    """Raise DataError where a line of its own holds the id of the rows below it."""
    section = next((line.strip() for line in alone if re.match(_SECTION, line)), "")
    if section:
        what = f"each line must be a row, and {section!r} seems to hold an id of the rows below it"
        awk = """awk '/:\\r?$/ { sub(":.*", ""); id = $0; next } { print id "," $0 }'"""
        raise DataError(what, where=str(path), hint=f"Write the id into each row: {awk} FILE > NEW")


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Add numbers to repeated names, such as price and price_2."""
    used: dict[str, None] = {}
    for name in names:
        used[next(one for one in chain([name], (f"{name}_{number}" for number in count(2))) if one not in used)] = None
    return tuple(used)


def _last_total(text: str, separator: str, quote: str) -> str:
    """Return the first cell of the last line, if that is a total; else empty."""
    line = next((line for line in reversed(lines_of(text[-10_000:])) if line.strip()), "")
    row = (_cells([line], separator, quote) or [[""]])[0] or [""]
    most = re.match(rf"(?i)({_TOTALS})\b", row[0].strip()) and sum(map(bool, row)) <= len(row) / 2
    return row[0].strip() if most or re.match(_TOTAL, row[0].strip()) else ""


def _lines(text: str) -> list[str]:
    """Return the first lines, without empty ones; a quoted cell may hold breaks."""
    return [line for line in lines_of(text, _LINES + 1) if line.strip()][:_LINES]


def _is_drawn(text: str) -> bool:
    """Return whether a table has lines of dashes outside of its cells."""
    plain = unruled(text)
    lines = _lines(plain)
    if plain == text or not lines:
        return False
    _, separator, quote, _ = _table(lines)
    quoted = quote and not _quotes_inside(lines, separator)
    inside = quoted and any(text.count('"', 0, rule.start()) % 2 for rule in RULE.finditer(text))
    return separator in _DRAWN and not inside


def _table(lines: Sequence[str]) -> tuple[int, str, str, list[list[str]]]:
    """Return lines above the header, separator, quote and cells of a table.

    The likeliest table is the one with most columns among those in which nearly all lines have the same number, empty
    cells beyond the header aside.
    """
    best = (0, ",", '"', [[line] for line in lines])
    for separators in (_SEPARATORS, *_LAST):
        for quote in ('"', ""):
            for separator in separators:
                rows = _cells(lines, separator, quote)
                width = _width(rows)
                above = _above(rows, width)
                rows = _completed(rows[above:], width)
                alike = sum(len(row) == width or (len(row) > width and not any(row[width:])) for row in rows)
                header = len(rows[0]) == width  # a separator in prose does not cut the header as well
                if header and alike >= _ALIKE * len(rows) and width > len(best[3][0]):
                    best = (above, separator, quote, rows)
            if len(best[3][0]) > 1 and all(len(row) == len(best[3][0]) for row in best[3]):
                return best
        if len(best[3][0]) > 1:
            return best
    return best


def _completed(rows: list[list[str]], width: int) -> list[list[str]]:
    """Return rows whose header has as many cells as they, where it lacks one.

    R gives no name to the names of rows; other programs end each row, but not the header, in a separator.
    """
    if not len(rows[0]) == width - 1 > 1 or len(rows) < 3 or any(len(row) != width for row in rows[1:]):
        return rows
    header = ["row", *rows[0]] if any(row[-1] for row in rows[1:]) else [*rows[0], ""]
    return [header, *rows[1:]]


def _second_header(rows: Sequence[Sequence[str]]) -> str:
    """Return a column of numbers, where all such have words in the second line."""
    width = len(rows[0])
    if len(rows) < _ABOVE or len(rows[1]) != width:
        return ""
    others = list(zip(*(row for row in rows[2:] if len(row) == width), strict=True))
    if any(cell and (cell.strip().lower() in _MISSING or cell in cells) for cell, cells in zip(rows[1], others, strict=True)):
        return ""
    numbers = [place for place, cells in enumerate(others) if all(map(_is_number, filter(None, cells)))]
    words = [place for place in numbers if re.search(r"[^\W\d]{2}", rows[1][place]) and not _is_number(rows[1][place])]
    return rows[0][numbers[0]] if len(numbers) > 1 and words == numbers else ""


def _backslashes(text: str) -> str:
    """Return an example of a quote after a backslash in a quoted cell, or ""."""
    cell = r'(?m)(?:^|[,;|\t])"(?:[^"\\\r\n]|\\[^"\r\n])+\\"[^,;|\t\r\n"][^"\r\n]{0,20}'  # a backslash may follow another
    found = '\\"' in text and re.search(cell, text)
    return found[0][:40].lstrip(",;|\t") if found else ""


def _quotes_inside(lines: Sequence[str], separator: str) -> bool:
    """Return whether quotes are ordinary characters: inside of cells, and around none."""
    quoted = [cell.strip() for line in lines if '"' in line for cell in line.split(separator) if '"' in cell]
    return bool(quoted) and not any(cell.startswith('"') for cell in quoted)


def _quotes_unpaired(text: str, separator: str, width: int) -> bool:
    """Return whether quotes begin cells as in "Al" Yan, and cut no line."""
    mark = re.escape(separator)
    if separator == ALIGNED or not re.search(rf'(?m)(?:^|{mark})"(?:[^"\r\n]|"")*"(?!"|{mark}|\r?$)', text):
        return False
    return all(line.count(separator) == width - 1 for line in lines_of(text) if line)


def _width(rows: Sequence[Sequence[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def _above(rows: Sequence[Sequence[str]], width: int) -> int:
    """Return how many lines are above the header: comments, and titles of one cell."""
    # spreadsheets write the titles above a table with empty cells up to its width, and perhaps a date beside one
    filled = sorted(sum(map(bool, row)) for row in rows if len(row) == width)
    least = max(2, filled[len(filled) // 2] // 2) if width > 2 else 1
    first = next((n for n, row in enumerate(rows[: _ABOVE + 1]) if len(row) == width and sum(map(bool, row)) >= least), 0)
    data = bool(first and headless(rows[first : first + 1]))  # without a header, a line with few cells is a row
    fits = all(
        re.match(_COMMENT, row[0]) or sum(map(bool, row)) < (2 if data and len(row) == width else max(least, 2))
        for row in rows[:first]
    )
    return first if fits and width > 1 else 0


def _cells(lines: Sequence[str], separator: str, quote: str) -> list[list[str]]:
    if separator == ALIGNED:
        return [re.split(r" {2,}", line.strip(" ")) for line in lines]
    if len(separator) > 1:
        return [line.split(separator) for line in lines]
    try:
        return list(
            csv.reader(
                (f"{line}\n" for line in lines),
                delimiter=separator,
                quotechar=quote or None,
                quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            )
        )
    except csv.Error:  # a cell of 128 kB: quotes that do not come in pairs, or another separator
        return [[line] for line in lines]


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
