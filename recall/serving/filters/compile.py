"""Compile a predicate over the columns of a segment to a plan, and evaluate plans.

Compilation looks up columns, converts values to the kinds of their columns, and replaces them by codes. A plan has set
operations on ranges of codes. Equal plans select equal rows, so bitmaps are cached by plan.
"""

import datetime
import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import and_, or_
from typing import assert_never

from recall.errors import DataError, RequestError
from recall.features.canonical import BLANKS, NUMBERS, canonical_text, is_number
from recall.features.values import canonical
from recall.index.bitmap import RowBitmap
from recall.index.query import CodeRanges, Complement, Intersection, Kind, Plan, Union
from recall.serving.filters.column import (
    Column,
    Form,
    Operand,
    merged,
    microseconds,
    microseconds_of,
    nanoseconds,
    nanoseconds_of,
)
from recall.serving.filters.parse import (
    AllOf,
    AnyOf,
    Available,
    Bound,
    Equals,
    Holds,
    In,
    Missing,
    Not,
    Predicate,
    Range,
    Scalar,
    kind_of,
)


def evaluate(plan: Plan, size: int, rows: Callable[[CodeRanges], RowBitmap]) -> RowBitmap:
    """Return the rows that a plan selects.

    Args:
        plan: over the columns of a segment.
        size: rows of the segment.
        rows: returns the rows of a condition.
    """
    match plan:
        case CodeRanges():
            return rows(plan)
        case Complement(of):
            return ~evaluate(of, size, rows)
        case Intersection(parts):
            found = [evaluate(one, size, rows) for one in parts]
            return reduce(and_, found) if found else RowBitmap.everything(size)
        case Union(parts):
            found = [evaluate(one, size, rows) for one in parts]
            return reduce(or_, found) if found else ~RowBitmap.everything(size)


_INTEGER = re.compile("-?[0-9]+")

_HOLDS = {
    "text": "text",
    "number": "numbers",
    "truth": "true and false",
    "time": "dates or times",
    "clock": "times of day",
}
_WRITTEN = {
    "text": 'as text, such as "red"',
    "number": "as a number, such as 9.5",
    "truth": "as true or false",
    "time": 'as ISO 8601, such as "2026-01-31" or "2026-01-31T18:00:00Z"',
    "clock": 'as ISO 8601, such as "18:30"',
}


FormOf = Callable[[str, str], Form]
"""Takes the name of a column, and a JSON pointer for the RequestError; returns the form of the column."""
ColumnOf = Callable[[str, Kind], Column]
"""Takes the name of a column and the kind of its values; returns the column, or raises DataError."""


def compile_filter(predicate: Predicate, form_of: FormOf, column_of: ColumnOf, now: datetime.datetime) -> Plan:
    """Compile a predicate.

    Args:
        predicate: from `parse`.
        form_of: returns the form of a column.
        column_of: returns a column.
        now: the present, with a zone.

    Raises:
        RequestError: A column is unknown, or is compared with a value of another kind.
    """
    return _Compiler(form_of, column_of, now).plan(predicate)


class _Compiler:
    def __init__(self, form_of: FormOf, column_of: ColumnOf, now: datetime.datetime) -> None:
        self._form_of, self._column_of, self._now = form_of, column_of, now

    def plan(self, predicate: Predicate) -> Plan:
        match predicate:
            case Equals(column, value, where):
                return self._one_of(column, [(value, where)], where)
            case In(column, values, where):
                return self._one_of(column, _numbered(values, where), where)
            case Range(column, bounds, where):
                return self._within(column, bounds, where)
            case Missing(column, where):
                return CodeRanges(column, self._form_of(column, where).kind, ((0, 1),))
            case Holds(column, how, values, where):
                return self._holds(column, how, _numbered(values, where), where)
            case Available():
                return self._available(predicate)
            case Not(of):
                return Complement(self.plan(of))
            case AllOf(of):
                return _only(Intersection, map(self.plan, of))
            case AnyOf(of):
                return _only(Union, map(self.plan, of))
            case _:
                assert_never(predicate)

    def _one_of(self, name: str, values: Sequence[tuple[Scalar, str]], where: str) -> Plan:
        form = self._single(name, where)
        places = [self._place(name, form.kind, value, at) for value, at in values]
        return CodeRanges(name, form.kind, merged(places))

    def _within(self, name: str, bounds: Sequence[Bound], where: str) -> Plan:
        form = self._single(name, where)
        parts: dict[Kind, tuple[int, int]] = {}
        for one in bounds:
            kind = _ordered_as(form, one.value)
            if kind == "truth":
                what = "true and false cannot be compared with gt, gte, lt and lte"
                raise RequestError(what, where=one.where, hint=f"Use equals for column {name!r}")
            low, high = self._place(name, kind, one.value, one.where)
            first, last = parts.get(kind, (1, len(self._column(name, kind, one.where).values) + 1))
            match one.order:
                case "gt":
                    first = max(first, high)
                case "gte":
                    first = max(first, low)
                case "lt":
                    last = min(last, low)
                case "lte":
                    last = min(last, high)
            parts[kind] = (first, last)
        return _only(Intersection, (CodeRanges(name, kind, merged([codes])) for kind, codes in parts.items()))

    def _holds(self, name: str, how: str, values: Sequence[tuple[Scalar, str]], where: str) -> Plan:
        form = self._form_of(name, where)
        if not form.bag:
            raise RequestError(
                f"column {name!r} has one value for each item, and {how} is for columns of lists",
                where=where,
                hint='Write {"in": [...]} for one of these values',
            )
        places = [self._place(name, form.kind, value, at) for value, at in values]
        if how == "any":
            return CodeRanges(name, form.kind, merged(places))
        if not places:  # every bag has all of no values, but a missing value is not a bag
            return Complement(CodeRanges(name, form.kind, ((0, 1),)))
        return _only(Intersection, (CodeRanges(name, form.kind, merged([place])) for place in places))

    def _available(self, window: Available) -> Plan:
        at: Scalar = self._now if window.at is None else window.at
        parts = []
        for name, key in ((window.start, "from"), (window.until, "until")):
            if name is None:
                continue
            where = f"{window.where}/{key}"
            kind = self._single(name, where).kind
            if kind == "text":
                kind = "time"
            if kind == "number" and window.at is None:
                raise RequestError(
                    f"column {name!r} holds numbers, which cannot be compared with the present",
                    where=where,
                    hint='Give "at" as a number in the unit of the column',
                )
            _, after = self._place(name, kind, at, where if window.at is None else f"{window.where}/at")
            last = len(self._column(name, kind, where).values) + 1
            parts.append(CodeRanges(name, kind, merged([(0, after)] if key == "from" else [(0, 1), (after, last)])))
        return _only(Intersection, parts)

    def _single(self, name: str, where: str) -> Form:
        form = self._form_of(name, where)
        if form.bag:
            raise RequestError(
                f"column {name!r} holds a list for each item", where=where, hint='Write {"any": [...]} or {"all": [...]}'
            )
        return form

    def _place(self, name: str, kind: Kind, value: Scalar, where: str) -> tuple[int, int]:
        form = self._form_of(name, where)
        bare = value.strip(BLANKS) if form.bag and isinstance(value, str) else value
        operand = _operand(name, kind, bare, where, form.type)
        return self._column(name, kind, where).values.place(operand)

    def _column(self, name: str, kind: Kind, where: str) -> Column:
        try:
            return self._column_of(name, kind)
        except DataError as error:
            raise RequestError(
                f"column {name!r} cannot be read as {_HOLDS[kind]}", where=where, why=error.what, hint=error.hint
            ) from None


_TRUTHS = {"false": 0, "true": 1}  # texts of the canonical type boolean


def _ordered_as(form: Form, value: Scalar) -> Kind:
    """Return the kind as which a column is compared with a value.

    A column of text, which may come from a file without types, is compared as the kind of the value.
    """
    if form.kind != "text":
        return form.kind
    if isinstance(value, str):
        return "number" if form.type in NUMBERS and _number_of(value) is not None else "text"
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else "clock" if isinstance(value, datetime.time) else "time"


def _number_of(text: str) -> int | float | None:
    """Return a text as a number of a column of numbers; None if it is not a number."""
    if not is_number(text):
        return None
    written = canonical_text(text, "float64")
    try:
        number = int(written) if _INTEGER.fullmatch(written) else float(written)
        return number if isinstance(number, int) or math.isfinite(number) else None
    except ValueError:  # an integer with thousands of digits
        return None


def _operand(name: str, kind: Kind, value: Scalar, where: str, type_: str) -> Operand:
    """Convert a value to a kind. Raises RequestError."""
    match kind, value:
        case "text", _:
            return canonical_text(canonical(value), type_)
        case "number", str() if (number := _number_of(value)) is not None:
            return number
        case "truth", str() if (written := canonical_text(value, "boolean")) in _TRUTHS:
            return _TRUTHS[written]
        case "truth", bool():
            return int(value)
        case "number", int() | float() if not isinstance(value, bool):
            return value
        case "time", datetime.date():
            return microseconds(value)
        case "clock", datetime.time(tzinfo=None):
            return nanoseconds(value)
        case "time" | "clock", str():
            try:
                return microseconds_of(value) if kind == "time" else nanoseconds_of(value)
            except ValueError:
                raise _refusal(name, kind, "other text", where) from None
    raise _refusal(name, kind, kind_of(value), where)


def _refusal(name: str, kind: Kind, found: str, where: str) -> RequestError:
    hint = f"Write the value {_WRITTEN[kind]}"
    return RequestError(f"column {name!r} holds {_HOLDS[kind]}, not {found}", where=where, hint=hint)


def _numbered(values: Sequence[Scalar], where: str) -> list[tuple[Scalar, str]]:
    return [(value, f"{where}/{position}") for position, value in enumerate(values)]


def _only(join: type[Intersection] | type[Union], parts: Iterable[Plan]) -> Plan:
    """Join distinct plans; a single plan is returned itself."""
    different = frozenset(parts)
    return next(iter(different)) if len(different) == 1 else join(different)
