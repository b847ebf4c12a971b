"""Parse the filter of a request into a predicate.

A filter is an object; an item must match every key of it. A key is a column, with a condition:

    "shoes"                                      the column has this value
    {"equals": "shoes"}  {"in": ["a", "b"]}      the same, and one of several
    {"gte": 10, "lt": 50}                        within bounds: gt, gte, lt, lte
    {"missing": true}  {"exists": true}          has no value, has one
    {"any": ["a", "b"]}  {"all": ["a", "b"]}     a bag holds at least one of them, all of them

A condition with several operators must match in all of them. Five keys are words of the language:

    "all": [filter, ...]   "any": [filter, ...]   "not": filter
    "available": {"from": column, "until": column, "at": "now"}    from <= at < until; no value sets no bound
    "columns": {column: condition, ...}                            the way to a column that is called like one of the five
"""

import datetime
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeGuard

import numpy as np

from recall.errors import RequestError, did_you_mean, pointer

Scalar = str | int | float | bool | datetime.date | datetime.time
"""One value in a filter; a datetime is a date."""
Order = Literal["gt", "gte", "lt", "lte"]


@dataclass(frozen=True, slots=True)
class Equals:
    """The column has this value."""

    column: str
    value: Scalar
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class In:
    """The column has one of these values."""

    column: str
    values: tuple[Scalar, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range."""

    order: Order
    value: Scalar
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Range:
    """The column's value is within all of these bounds."""

    column: str
    bounds: tuple[Bound, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Missing:
    """The column has no value; an empty bag is one."""

    column: str
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Holds:
    """The column's bag holds any, or all, of these values."""

    column: str
    how: Literal["any", "all"]
    values: tuple[Scalar, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Available:
    """start <= at < until; `at` of None is the present.

    A column that is not named, or has no value, sets no bound.
    """

    start: str | None
    until: str | None
    at: Scalar | None = None
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Items that `of` does not match, including those without a value."""

    of: "Predicate"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Intersection of the parts: everything when there is none."""

    of: "tuple[Predicate, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Union of the parts: nothing when there is none."""

    of: "tuple[Predicate, ...]"


Predicate = Equals | In | Range | Missing | Holds | Available | Not | AllOf | AnyOf


DEPTH = 16
"""Filters within filters, at most."""
CONDITIONS = 1_000
"""Conditions in one filter, at most."""
VALUES = 10_000
"""Values in one filter, at most."""

_ORDERS = ("gt", "gte", "lt", "lte")
_OPERATORS = ("equals", "in", *_ORDERS, "missing", "exists", "any", "all")
_PARTS = ("from", "until", "at")
_CONDITION = 'such as "shoes", {"in": ["a", "b"]}, {"gte": 10, "lt": 50}, {"any": ["red"]} or {"missing": true}'


def parse(value: object) -> Predicate:
    """Parse a filter; whether its columns exist is checked by `compile_filter`.

    Args:
        value: what JSON gives for a filter, or the same in Python, where dates and times need no text form.

    Raises:
        RequestError: The filter is malformed, or larger than `DEPTH`, `CONDITIONS` and `VALUES` allow.
    """
    return _Parser().filter(value, "/filter", 1)


@dataclass(slots=True)
class _Parser:
    """Counts the conditions and values that it has parsed."""

    conditions: int = 0
    values: int = 0

    def filter(self, value: object, where: str, depth: int) -> Predicate:
        if not isinstance(value, Mapping):
            raise RequestError(
                f"a filter is an object, not {kind_of(value)}", where=where, hint='Write it as {"column": condition, ...}'
            )
        if depth > DEPTH:
            raise RequestError(f"filters are nested more than {DEPTH} deep", where=where, hint="Write it flatter")
        parts = tuple(part for key, given in value.items() for part in self._entry(_key(key, where), given, where, depth))
        return parts[0] if len(parts) == 1 else AllOf(parts)

    def _entry(self, key: str, given: object, where: str, depth: int) -> Iterator[Predicate]:
        here = where + pointer(key)
        match key:
            case "all":
                yield AllOf(tuple(self._filters(key, given, here, depth)))
            case "any":
                yield AnyOf(tuple(self._filters(key, given, here, depth)))
            case "not":
                yield Not(self.filter(given, here, depth + 1))
            case "available":
                yield self._available(given, here)
            case "columns":
                if not isinstance(given, Mapping):
                    raise RequestError(f"columns takes an object, not {kind_of(given)}", where=here, hint=_or_column(key))
                for column, condition in given.items():
                    yield self._condition(_key(column, here), condition, here + pointer(column))
            case _:
                yield self._condition(key, given, here)

    def _filters(self, key: str, given: object, where: str, depth: int) -> Iterator[Predicate]:
        if not _is_list(given):
            raise RequestError(f"{key} takes a list of filters, not {kind_of(given)}", where=where, hint=_or_column(key))
        for position, one in enumerate(given):
            yield self.filter(one, f"{where}/{position}", depth + 1)

    def _available(self, given: object, where: str) -> Predicate:
        self._count(where)
        if not isinstance(given, Mapping) or not given.keys() & {"from", "until"}:
            raise RequestError(
                "an availability window names a column that it begins at, or one that it ends at",
                where=where,
                hint='Write it as {"from": "column", "until": "column"}. ' + _or_column("available"),
            )
        for key in given:
            if key not in _PARTS:
                raise RequestError("no part of an availability window", where=where + pointer(key), hint=_near(key, _PARTS))
        for key in ("from", "until"):
            if not isinstance(given.get(key, ""), str):
                raise RequestError("a column is named by text", where=f"{where}/{key}")
        at = given.get("at", "now")
        return Available(given.get("from"), given.get("until"), None if at == "now" else self._scalar(at, f"{where}/at"), where)

    def _condition(self, column: str, given: object, where: str) -> Predicate:
        self._count(where)
        if not isinstance(given, Mapping):
            if given is None:
                raise RequestError(
                    "no value to compare with", where=where, hint='Write {"missing": true} for items without one'
                )
            if _is_list(given):
                hint = 'Write {"in": [...]} for one of these values, {"any": [...]} or {"all": [...]} of a column of lists'
                raise RequestError("a condition must be an object or a value, got a list", where=where, hint=hint)
            return Equals(column, self._scalar(given, where), where)
        if not given:
            raise RequestError("the condition is empty", where=where, hint=f"Give one, {_CONDITION}")
        parts = []
        bounds = []
        for operator, operand in given.items():
            here = where + pointer(operator)
            if operator in _ORDERS:
                bounds.append(Bound(operator, self._scalar(operand, here), here))
            else:
                parts.append(self._operation(column, operator, operand, here))
        parts += [Range(column, tuple(bounds), where)] if bounds else []
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _operation(self, column: str, operator: object, operand: object, where: str) -> Predicate:
        match operator:
            case "equals":
                return Equals(column, self._scalar(operand, where), where)
            case "in":
                return In(column, self._scalars(operator, operand, where), where)
            case "any":
                return Holds(column, "any", self._scalars(operator, operand, where), where)
            case "all":
                return Holds(column, "all", self._scalars(operator, operand, where), where)
            case "missing" | "exists":
                if not isinstance(operand, bool):
                    raise RequestError(f"{operator} takes true or false, not {kind_of(operand)}", where=where)
                missing = Missing(column, where)
                return missing if operand == (operator == "missing") else Not(missing)
        raise RequestError("no operator of a condition", where=where, hint=_near(operator, _OPERATORS))

    def _scalars(self, operator: str, given: object, where: str) -> tuple[Scalar, ...]:
        if not _is_list(given):
            raise RequestError(f"{operator} takes a list of values, not {kind_of(given)}", where=where)
        return tuple(self._scalar(one, f"{where}/{position}") for position, one in enumerate(given))

    def _scalar(self, given: object, where: str) -> Scalar:
        self.values += 1
        if self.values > VALUES:
            raise RequestError(
                f"a filter holds at most {VALUES:,} values", where=where, hint="Ids of items to choose from belong to `allow`"
            )
        if isinstance(given, np.generic):
            given = given.item()
        if isinstance(given, Decimal):
            given = float(given)
        if isinstance(given, float) and not math.isfinite(given):
            raise RequestError("the value must be a finite number", where=where)
        if isinstance(given, str | int | float | datetime.date | datetime.time):
            return given
        raise RequestError(f"a value is a text, a number, true or false, not {kind_of(given)}", where=where)

    def _count(self, where: str) -> None:
        self.conditions += 1
        if self.conditions > CONDITIONS:
            raise RequestError(f"a filter has at most {CONDITIONS:,} conditions", where=where, hint="Use in, any or all")


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise RequestError("a key of a filter is text", where=where)
    return key


def _near(key: object, known: Sequence[str]) -> str:
    return did_you_mean(str(key)[:256], known)


def _or_column(word: str) -> str:
    return f'A column called "{word}" is written as {{"columns": {{"{word}": condition}}}}'


def _is_list(value: object) -> TypeGuard[Collection[object]]:
    return isinstance(value, list | tuple | set | frozenset)


def kind_of(value: object) -> str:
    """Describe the kind of a value in a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case datetime.date() | datetime.time():
            return "a date or time"
    return f"a {type(value).__name__}"
