"""Check bags written as text: the separator, and the values between."""

from collections.abc import Iterator

import polars as pl

from recall.data.findings import Finding, Report, spelling
from recall.features.canonical import BLANKS, stripped
from recall.features.values import examples

_SEPARATORS = ("|", ",", ";", "/", "、", "，", "；", "؛", "،", "・")
_BLANKS = ("\t", " ")  # suggested by checks only: a draft would cut ordinary text
_MANY = 0.05  # of the cells; fewer contain a separator by chance. Chosen, not tuned.
_MOST = 0.95
_LIST = r"^\s*(\[.*\]|\{.*\}|\(.*\))\s*$"


def written_lists(texts: pl.Series) -> int:
    """Count the texts that are lists in programming notation, such as "['a', 'b']"."""
    return int(texts.str.contains(_LIST).sum())


def separator_of(texts: pl.Series, known: tuple[str, ...] = _SEPARATORS) -> str:
    """Return the most probable separator of the texts; empty when none fits.

    A separator is in more than one text of twenty, and the parts that it cuts recur more often than whole texts do.

    Args:
        texts: String [n], none missing.
        known: candidate characters, the likeliest first.
    """
    for mark in known:
        holding = texts.filter(texts.str.contains(mark, literal=True))
        if len(holding) > _MANY * len(texts) and (mark == "|" or _recombines(holding, mark)):
            return mark
    return ""


def _recombines(texts: pl.Series, mark: str) -> bool:
    """Return whether the parts between marks recur more often than whole texts do."""
    parts = texts.str.split(mark).explode().str.strip_chars(BLANKS)
    most = texts.n_unique() - 1 if mark == " " else 2 * texts.n_unique()  # names of two words have more words than names
    return parts.n_unique() <= min(0.5 * len(parts), most)


def bag_findings(values: pl.Series, separator: str, report: Report) -> Iterator[Finding]:
    """Report wrong separators, and values that are probably spelled in several ways.

    Args:
        values: [n], the column: lists, or text with a separator.
        separator: that cuts text into values.
        report: makes the findings.
    """
    if isinstance(values.dtype, pl.List | pl.Array):
        lists = stripped(values.cast(pl.List(values.dtype.inner)))
    elif values.dtype == pl.String:
        texts = values.drop_nulls()
        yield from _cuts(texts.filter(texts != ""), separator, report)
        lists = stripped(values.str.split(separator))
    else:
        return
    parts = lists.explode(empty_as_null=False, keep_nulls=False)
    if parts.dtype != pl.String:
        return
    yield from spelling(parts, report)
    empty = lists.filter((lists.list.len() > 1) & (lists.list.eval(pl.element() == "").list.any()).fill_null(value=False))
    if len(empty):
        yield report("note", f"{len(empty):,} bags have an empty value between separators; it does not count", len(empty))
    counted = lists.list.eval(pl.element().filter(pl.element() != ""))
    twice = counted.filter((counted.list.len() > counted.list.n_unique()).fill_null(value=False))
    if len(twice):
        message = f"{len(twice):,} bags hold a value twice, such as {examples(twice.list.join('|'))}: it counts twice"
        yield report("note", message, len(twice))


def _cuts(texts: pl.Series, separator: str, report: Report) -> Iterator[Finding]:
    """Report a separator that cuts nothing, and lists in another notation."""
    if texts.is_empty():
        return
    lists = written_lists(texts)
    if lists > _MANY * len(texts):
        shown = examples(texts.filter(texts.str.contains(_LIST)))
        message = f"{lists:,} of {len(texts):,} cells look like lists written as text, such as {shown}: "
        yield report("warning", message + "store them as lists in Parquet, or as text with a separator", lists)
        return
    cut = int(texts.str.contains(separator, literal=True).sum())
    if cut > _MANY * len(texts):
        return
    for mark in (one for one in (*_SEPARATORS, *_BLANKS) if one != separator):
        holding = texts.filter(texts.str.contains(mark, literal=True))
        if len(holding) > max(_MANY * len(texts), cut) and (mark != " " or _recombines(holding, mark)):
            few = (
                f"no cell holds the separator {separator!r}"
                if not cut
                else f"only {cut:,} cells hold the separator {separator!r}"
            )
            message = f"{few}, while {len(holding):,} of {len(texts):,} hold {mark!r}: is separator = {mark!r} meant?"
            yield report("warning", message, len(holding))
            return
