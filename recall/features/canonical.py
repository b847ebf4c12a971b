"""Canonical text of a value, decided by the type of its column.

A CSV file and a request write one value in several ways: `1.0` and `1`, `True` and `true`, `2024-01-01 00:00:00` and
`2024-01-01T00:00:00Z`. A column has one type, found in training and recorded in the bundle. Every value of that column,
from any file or request, is then converted to the one form that the type prescribes.

The type of a text column is that of all its values. One value that does not fit makes it text, which is not changed:
`007`, `1e5`, `+1`, `1_000`, `.5`, `NaN` and digits outside ASCII never become numbers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl
from polars.datatypes import DataType

from recall.errors import DataError
from recall.features.values import (
    CLOCK,
    DATE,
    TIME,
    canonical,
    canonical_series,
    clock_text,
    examples,
    moment,
    moment_text,
    time_of_day,
)

TEXT: Final = "text"
LIST: Final = "list of "
"""Prefix of the type of a column of lists, or of text that is split into values."""
NUMBERS: Final = frozenset({"integer", "float32", "float64"})
TIMES: Final = frozenset({"date", "time", "clock"})
"""Types of which every value must be one: a column of times takes nothing else."""

_WIDER_BLANKS = (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
BLANKS: Final = "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), *_WIDER_BLANKS)))
"""White space by Unicode, which is stripped around the values of a list or bag."""

EXACT: Final = 2.0**53
"""From here on several integers share a float."""
_WHOLE = r"-?(?:0|[1-9][0-9]*)(?:\.0+)?"
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-][0-9]{1,3})?"  # as programs write floats; 1e5 is not written so
_TRUTH = r"true|false|True|False|TRUE|FALSE"
_PATTERNS: Final = {"integer": _WHOLE, "float64": _NUMBER, "boolean": _TRUTH, "date": DATE, "time": TIME, "clock": CLOCK}
_SAMPLE = 1000
"""Values that are tried first: one of these shows that most text columns hold neither numbers nor dates nor booleans."""

_BLANK_AROUND = f"^[{BLANKS}]|[{BLANKS}]$"

_number = re.compile(_NUMBER)

_EXAMPLES: Final = {
    "date": "a date, such as 2026-01-31",
    "time": "a date or time, such as 2026-01-31T18:00:00Z",
    "clock": "a time of day, such as 18:30",
}


@dataclass(frozen=True, slots=True)
class CanonicalTypes:
    """Types of the columns of both sides, by column name; default `TEXT`.

    Attributes:
        users: columns of the users table and context columns, the user id among them.
        items: columns of the items table, the item id among them.
    """

    users: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)

    def state(self) -> dict[str, dict[str, str]]:
        """Return the types ready for JSON."""
        return {"users": dict(self.users), "items": dict(self.items)}

    @staticmethod
    def from_state(state: Mapping[str, Mapping[str, str]] | None) -> "CanonicalTypes":
        """Restore what `state` returned; None, as in older bundles, gives no types."""
        return CanonicalTypes(dict(state["users"]), dict(state["items"])) if state else CanonicalTypes()


UNTYPED: Final = CanonicalTypes()
"""Types in bundles of older formats: values are not converted."""


def type_of(values: pl.Series, separator: str | None = None) -> str:
    """Find the type of a column.

    Args:
        values: [n] of any dtype that a field can read.
        separator: separator of the values of a bag in text; None for single values.

    Returns:
        The type's name, such as "integer" or "list of text".
    """
    lists = as_lists(values, separator)
    if isinstance(lists.dtype, pl.List):
        return LIST + type_of(flatten_lists(strip_values(lists)))
    return infer_type(values) if values.dtype == pl.String else type_of_dtype(values.dtype)


def type_of_dtype(dtype: DataType) -> str:
    """Return the type of a column that has a typed dtype; text has type `TEXT`."""
    if isinstance(dtype, pl.List | pl.Array):
        return LIST + type_of_dtype(dtype.inner)  # type: ignore[arg-type]
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "float32" if dtype == pl.Float32 else "float64"
    names: dict[Any, str] = {pl.Boolean: "boolean", pl.Date: "date", pl.Datetime: "time", pl.Time: "clock"}
    return names.get(dtype.base_type(), TEXT)


def infer_type(values: pl.Series) -> str:
    """Find the type that all values of a text column fit, apart from missing ones.

    A column of numbers stays text if two different texts would become one fractional number: `1.1` and `1.10` may be
    versions.

    Args:
        values: String [n].
    """
    known = values.drop_nulls()
    known = known.filter(known != "")
    sample = known.head(_SAMPLE)
    for name, pattern in _PATTERNS.items():
        whole = f"^(?:{pattern})$"
        if not len(known) or not sample.str.contains(whole).all() or not known.str.contains(whole).all():
            continue
        if name in ("integer", "boolean"):
            return name
        texts = known.unique()
        if name == "float64":
            fractions = texts.filter(~texts.str.contains(f"^(?:{_WHOLE})$"))
            written = [canonical_text(text, name) for text in fractions.to_list()]
            return name if len(set(written)) == len(written) else TEXT
        if all(_written(text, name) is not None for text in texts.to_list()):
            return name
    return TEXT


def is_number(text: str) -> bool:
    """Return whether a text is a plain number; `+1` and `1_000` are not."""
    return _number.fullmatch(text) is not None


def canonical_text(text: str, type_: str) -> str:
    """Return the canonical form of a text; unchanged where it is not of the type.

    Args:
        text: any.
        type_: canonical type of the column.
    """
    if type_ == TEXT:
        return text
    if type_ in NUMBERS:
        if _number.fullmatch(text) is None or (type_ == "integer" and "e" in text and abs(float(text)) >= EXACT):
            return text  # several integers, such as ids, share such a float
        return _number_text(text)
    if type_ == "boolean":
        lower = text.lower()
        return lower if lower in ("true", "false") and text in (lower, lower.upper(), lower.capitalize()) else text
    written = _written(text, type_)
    return text if written is None else written


def canonical_as(value: object, type_: str) -> str | None:
    """Return the canonical form of one value; None if missing or empty text.

    Args:
        value: value in a request.
        type_: canonical type of the column.

    Raises:
        TypeError: The value is not a single value.
        ValueError: It is an integer of thousands of digits.
    """
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else canonical(value)
    return text if type_ == TEXT else canonical_text(text, type_)


def canonical_column(values: pl.Series, type_: str, where: str = "", separator: str | None = None) -> pl.Series:
    """Bring a text column to the canonical form of its type.

    A column of another dtype is returned unchanged. The values of a list or bag lose the blanks around them; a single value
    keeps its own.

    Args:
        values: [n] of any dtype that a field can read.
        type_: canonical type of the column.
        where: names the column in errors.
        separator: separator of the values of a bag in text; None for single values.

    Raises:
        DataError: A column of dates or times holds other text.
    """
    inner = type_.removeprefix(LIST)
    cut = separator if values.dtype == pl.String else None
    if inner != type_:
        values = strip_values(values) if cut is None else _strip_parts(values, cut)
    if inner == TEXT or (
        values.dtype != pl.List(pl.String) and (values.dtype != pl.String or (cut is None) != (inner == type_))
    ):
        return values
    lists = values if cut is None else values.str.split(cut)
    texts = (lists if values.dtype == pl.String and cut is None else flatten_lists(lists)).drop_nulls()
    if inner in NUMBERS:
        texts = texts.filter(texts.str.contains("[.e]|^-0"))  # other integers are written in one way
    texts = texts.unique()
    if inner in TIMES:
        _refuse_other_texts(texts, inner, where)
    pairs = {text: written for text in texts.to_list() if (written := canonical_text(text, inner)) != text}
    if not pairs:
        return values
    old, new = pl.Series(list(pairs), dtype=pl.String), pl.Series(list(pairs.values()), dtype=pl.String)
    if lists.dtype == pl.String:
        return lists.replace(old, new)
    mapped = lists.list.eval(pl.element().replace(old, new))
    return mapped if cut is None else mapped.list.join(cut)


def strip_values(lists: pl.Series) -> pl.Series:
    """Strip the values of lists of text; a column of another dtype is unchanged."""
    lists = as_lists(lists)
    if lists.dtype != pl.List(pl.String) or not flatten_lists(lists).str.contains(_BLANK_AROUND).any():
        return lists
    return lists.list.eval(pl.element().str.strip_chars(BLANKS))


def _strip_parts(values: pl.Series, separator: str) -> pl.Series:
    """Strip the values between separators."""
    lists = values.str.split(separator)
    clean = strip_values(lists)
    return values if clean is lists else clean.list.join(separator)


def _refuse_other_texts(texts: pl.Series, type_: str, where: str) -> None:
    """Raise DataError if a text of a column of dates or times is neither."""
    wrong = [text for text in texts.to_list() if text and _written(text, type_) is None]
    if wrong:
        raise DataError(
            f"{len(wrong):,} different values are not {_EXAMPLES[type_]}: {examples(pl.Series(sorted(wrong)))}",
            where=where,
            why="every value of the column was one when the model was trained",
            hint="Correct the values, or train again",
        )


def require_time_text(text: str, type_: str) -> None:
    """Check that a column of dates or times can hold a text.

    Args:
        text: any.
        type_: canonical type of the column.

    Raises:
        ValueError: It cannot; the message says what is expected.
    """
    if type_ in TIMES and _written(text, type_) is None:
        raise ValueError(f"not {_EXAMPLES[type_]}")


def _number_text(text: str) -> str:
    mantissa, _, fraction = text.partition(".")
    if "e" not in text and not fraction.strip("0"):  # whole: never through a float, which would round it
        return "0" if mantissa == "-0" else mantissa
    return canonical(float(text))


def _written(text: str, type_: str) -> str | None:
    """Return a date or time in canonical form, or None if it is not of that type."""
    try:
        if type_ == "clock":
            return clock_text(*time_of_day(text))
        written = moment_text(*moment(text))
    except (ValueError, OverflowError):
        return None
    if type_ == "time":
        return written
    return written.removesuffix("T00:00:00") if type_ == "date" and written.endswith("T00:00:00") else None


@dataclass(frozen=True, slots=True)
class ColumnForms:
    """Canonical forms of the columns of one side.

    Attributes:
        types: canonical type by column.
        separators: separator of the values of a bag in text, by column.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    separators: Mapping[str, str] = field(default_factory=dict)

    def canonical(self, values: pl.Series, where: str) -> pl.Series:
        """Bring a column, identified by its name, to canonical form.

        Args:
            values: [n].
            where: names it in errors.

        Raises:
            DataError: As `canonical_column`.
        """
        return canonical_column(values, self.types.get(values.name, TEXT), where, self.separators.get(values.name))


def canonical_ids(values: pl.Series) -> pl.Series:
    """Return the ids of one table as canonical text, String [n].

    The type is inferred from this table only.
    """
    return canonical_column(canonical_series(values), id_type([values]))


def named_values(values: pl.Series, names: Iterable[str]) -> tuple[pl.Series, dict[str, str]]:
    """Bring a column and the values that a configuration names of it to one form.

    Args:
        values: [n] of any single-valued dtype.
        names: values of the column, as the configuration writes them.

    Returns:
        String [n], null where a value is missing, and each name in the same form, by name.
    """
    texts = canonical_series(values)
    type_ = infer_type(texts)
    return canonical_column(texts, type_), {name: canonical_text(name, type_) for name in names}


def id_type(columns: Iterable[pl.Series]) -> str:
    """Find the type of an id column of several tables.

    It is "integer" if every table holds whole numbers, else text.
    """
    types = {
        "integer" if column.dtype.is_numeric() else infer_type(canonical_series(column)) for column in columns if len(column)
    }
    return "integer" if types == {"integer"} else TEXT


def as_lists(values: pl.Series, separator: str | None = None) -> pl.Series:
    """Return the lists of a column as List; a column of single values is unchanged.

    Args:
        values: [n].
        separator: separator of the values in text; None if text is a single value.
    """
    if values.dtype == pl.String and separator is not None:
        return values.str.split(separator)
    return values.cast(pl.List(values.dtype.inner)) if isinstance(values.dtype, pl.Array) else values


def flatten_lists(lists: pl.Series) -> pl.Series:
    """Return the values of all lists; missing lists have none."""
    return lists.explode(empty_as_null=False, keep_nulls=False)
