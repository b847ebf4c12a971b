"""Bags in a draft: the separator that cuts a column of text, and how many of its values are worth a row of their own."""

import polars as pl

from recall.data.bag_text import separator_of, written_lists
from recall.data.scaffold.toml import text
from recall.features.canonical import BLANKS

_MANY = 1_000  # values that need no min_count
_MOST = 10_000
_COUNTS = (2, 3, 5, 10, 20, 50)
_LISTS = 0.05  # share of cells


def drafted_bag(known: pl.Series) -> tuple[str, str] | None:
    """The keys of a bag field and the reason for it, empty keys for text that must be rewritten; None when it is no bag.

    Args:
        known: text [n] or lists [n], none missing.
    """
    if isinstance(known.dtype, pl.List | pl.Array):
        parts = known.cast(pl.List(known.dtype.inner)).explode(empty_as_null=False, keep_nulls=False)
        return f'kind = "bag"{rare(parts)}', "lists"
    if written_lists(known) > _LISTS * len(known):
        return "", "lists written as text, which no field reads: store them as lists in Parquet, or as text with a separator"
    separator = separator_of(known)
    if not separator:
        return None
    parts = known.str.split(separator).explode().str.strip_chars(BLANKS)
    keys = "" if separator == "|" else f", separator = {text(separator)}"
    return f'kind = "bag"{keys}{rare(parts)}', f"{parts.n_unique():,} values between {text(separator)}"


def rare(values: pl.Series) -> str:
    """The key `min_count` for a column with many different values; empty for few.

    A value seen once or twice teaches nothing of its own, and thousands of such rows take the fit from the others. So of
    more than 1,000 values those seen once go; if more than 10,000 are left, the smallest of 3, 5, 10, 20 and 50 is taken
    that leaves no more, or 50.
    """
    counts = values.drop_nulls().value_counts()["count"]
    if len(counts) <= _MANY:
        return ""
    chosen = next((least for least in _COUNTS if int((counts >= least).sum()) <= _MOST), _COUNTS[-1])
    return f", min_count = {chosen}"
