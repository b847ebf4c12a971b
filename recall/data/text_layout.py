"""Rewrite text tables with dashes, bars or fixed widths as separated text."""

import re
from collections.abc import Sequence
from typing import Final

ALIGNED: Final = "  "
"""The separator of aligned columns, which means two or more blanks."""
RULE: Final = re.compile(r"(?m)^[ |+:=-]*[-=]{3}[ |+:=-]*\r?\n")
"""A line of dashes, as below a header."""
_WIDTHS = re.compile(r"(?m)^(-+(?: -+)+) *\r?$")  # a line of dashes for each column
_MIN_FITTING = 0.9  # share of the lines that must fit the columns; cells may be longer. Chosen, not tuned.


def split_lines(text: str, max_lines: int = 0) -> list[str]:
    """Split a text at the ends of its lines.

    `str.splitlines` also splits at characters that may be inside of a cell, such as U+2028.

    Args:
        text: any.
        max_lines: number of lines to return; 0 for all.
    """
    return re.split(r"\r\n?|\n", text, maxsplit=max_lines)[: max_lines or None]


def double_escaped_quotes(text: str) -> str:
    """Return a text with doubled quotes for those after a backslash."""
    return re.sub(r'\\(["\\])', lambda found: '""' if found[1] == '"' else "\\", text)


def remove_rules(text: str) -> str:
    """Return a text without lines of dashes, and without bars around all lines.

    Columns of fixed width get tabs between them.
    """
    text = _separate_fixed_columns(text)
    unruled = RULE.sub("", text)
    barred = [line for line in split_lines(unruled) if "|" in line]
    outer = unruled != text and all(re.match(r" *\|.*\| *$", line) for line in barred)  # an empty cell may be the first or last
    return re.sub(r"(?m)^ *\||\| *(?=\r?$)", "", unruled) if outer else unruled


def _separate_fixed_columns(text: str) -> str:
    """Put tabs between columns that are as wide as the dashes below the header.

    SQL*Plus and others write such tables. Rows end at an empty line, unless further lines fit the columns. Other text remains
    unchanged.
    """
    ruler = _WIDTHS.search(text)
    if ruler is None or "\t" in text:
        return text
    spans = [(dashes.start(), dashes.end()) for dashes in re.finditer("-+", ruler[1])]
    header = split_lines(text[: ruler.start()].rstrip("\r\n"))[-1]
    rows, *pages = re.split(r"\n\s*\n", text[ruler.end() :].replace("\r\n", "\n"))
    lines = [header, *rows.strip("\n").split("\n")]
    if sum(_fits(line, spans) for line in lines) < _MIN_FITTING * len(lines):
        return text
    more = [line for page in pages for line in page.split("\n") if line.strip() and line not in (header, ruler[1])]
    lines += [line for line in more if _fits(line, spans)]
    return "\n".join("\t".join(_cells(line, spans)) for line in lines)


def _fits(line: str, spans: Sequence[tuple[int, int]]) -> bool:
    return all(line[end : end + 1] in ("", " ") for _, end in spans[:-1])


def _cells(line: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return the cells of a line; a cell longer than its column moves the next ones."""
    cells, moved = [], 0
    for start, end in spans:
        beyond = re.compile(r"\S*").match(line, end + moved) if line[end + moved - 1 : end + moved].strip() else None
        stop = end + moved if beyond is None else beyond.end()
        cells.append(line[start + moved : stop].strip())
        moved = stop - end
    return cells
