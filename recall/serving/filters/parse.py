"""Parse the filter of a request into a predicate.

A filter is an object; an item must match all of its keys. A key is a column, with a condition:

    "shoes"                                      the column has this value
    {"equals": "shoes"}  {"in": ["a", "b"]}      the same; one of several values
    {"gte": 10, "lt": 50}                        within bounds: gt, gte, lt, lte
    {"missing": true}  {"exists": true}          the value is missing, or not
    {"any": ["a", "b"]}  {"all": ["a", "b"]}     a bag has at least one of the values, all of them

An item must match all operators of a condition. Five keys are keywords:

    "all": [filter, ...]   "any": [filter, ...]   "not": filter
    "available": {"from": column, "until": column, "at": "now"}    from <= at < until; a missing value sets no bound
    "columns": {column: condition, ...}                            columns with the name of a keyword
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
    """The value is missing; an empty bag is not missing."""

    column: str
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Holds:
    """The column's bag has any, or all, of these values."""

    column: str
    how: Literal["any", "all"]
    values: tuple[Scalar, ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Available:
    """start <= at < until; an `at` of None is the present.

    A column of None, or a missing value, sets no bound.
    """

    start: str | None
    until: str | None
    at: Scalar | None = None
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """Items that do not match `of`, including those with a missing value."""

    of: "Predicate"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Intersection of the parts; all items if there are no parts."""

    of: "tuple[Predicate, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Union of the parts; no items if there are no parts."""

    of: "tuple[Predicate, ...]"


Predicate = Equals | In | Range | Missing | Holds | Available | Not | AllOf | AnyOf


DEPTH = 16
"""Maximum depth of nested filters."""
CONDITIONS = 1_000
"""Maximum number of conditions in a filter."""
VALUES = 10_000
"""Maximum number of values in a filter."""

_ORDERS = ("gt", "gte", "lt", "lte")
_OPERATORS = ("equals", "in", *_ORDERS, "missing", "exists", "any", "all")
_PARTS = ("from", "until", "at")
_CONDITION = 'such as "shoes", {"in": ["a", "b"]}, {"gte": 10, "lt": 50}, {"any": ["red"]} or {"missing": true}'


def parse(value: object) -> Predicate:
    """Parse a filter; whether its columns exist is checked by `compile_filter`.

    Args:
        value: a filter as parsed JSON, or the same in Python, which may have dates and times instead of text.

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
                f"a filter must be an object, got {kind_of(value)}", where=where, hint='Write it as {"column": condition, ...}'
            )
        if depth > DEPTH:
            raise RequestError(f"filters must be nested at most {DEPTH} deep", where=where)
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
                    raise RequestError(f"columns must be an object, got {kind_of(given)}", where=here, hint=_or_column(key))
                for column, condition in given.items():
                    yield self._condition(_key(column, here), condition, here + pointer(column))
            case _:
                yield self._condition(key, given, here)

    def _filters(self, key: str, given: object, where: str, depth: int) -> Iterator[Predicate]:
        if not _is_list(given):
            raise RequestError(f"{key} must be a list of filters, got {kind_of(given)}", where=where, hint=_or_column(key))
        for position, one in enumerate(given):
            yield self.filter(one, f"{where}/{position}", depth + 1)

    def _available(self, given: object, where: str) -> Predicate:
        self._count(where)
        if not isinstance(given, Mapping) or not given.keys() & {"from", "until"}:
            raise RequestError(
                "an availability window must name the column of its start or of its end",
                where=where,
                hint='Write it as {"from": "column", "until": "column"}. ' + _or_column("available"),
            )
        for key in given:
            if key not in _PARTS:
                what = f"the keys of an availability window are {', '.join(_PARTS)}"
                raise RequestError(what, where=where + pointer(key), hint=_near(key, _PARTS))
        for key in ("from", "until"):
            if not isinstance(given.get(key, ""), str):
                raise RequestError(f"the name of a column must be text, got {kind_of(given[key])}", where=f"{where}/{key}")
        at = given.get("at", "now")
        return Available(given.get("from"), given.get("until"), None if at == "now" else self._scalar(at, f"{where}/at"), where)

    def _condition(self, column: str, given: object, where: str) -> Predicate:
        self._count(where)
        if not isinstance(given, Mapping):
            if given is None:
                hint = 'Write {"missing": true} for items without a value'
                raise RequestError("a condition must be an object or a value, got null", where=where, hint=hint)
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
                    raise RequestError(f"{operator} must be true or false, got {kind_of(operand)}", where=where)
                missing = Missing(column, where)
                return missing if operand == (operator == "missing") else Not(missing)
        raise RequestError("the operator of a condition is unknown", where=where, hint=_near(operator, _OPERATORS))

    def _scalars(self, operator: str, given: object, where: str) -> tuple[Scalar, ...]:
        if not _is_list(given):
            raise RequestError(f"{operator} must be a list of values, got {kind_of(given)}", where=where)
        return tuple(self._scalar(one, f"{where}/{position}") for position, one in enumerate(given))

    def _scalar(self, given: object, where: str) -> Scalar:
        self.values += 1
        if self.values > VALUES:
            raise RequestError(
                f"a filter must have at most {VALUES:,} values", where=where, hint="Use `allow` for the ids of items"
            )
        if isinstance(given, np.generic):
            given = given.item()
        if isinstance(given, Decimal):
            given = float(given)
        if isinstance(given, float) and not math.isfinite(given):
            raise RequestError("the value must be a finite number", where=where)
        if isinstance(given, str | int | float | datetime.date | datetime.time):
            return given
        raise RequestError(f"a value must be text, a number, true or false, got {kind_of(given)}", where=where)

    def _count(self, where: str) -> None:
        self.conditions += 1
        if self.conditions > CONDITIONS:
            raise RequestError(f"a filter must have at most {CONDITIONS:,} conditions", where=where, hint="Use in, any or all")


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise RequestError(f"the keys of a filter must be text, got {kind_of(key)}", where=where)
    return key


def _near(key: object, known: Sequence[str]) -> str:
    return did_you_mean(str(key)[:256], known)


def _or_column(word: str) -> str:
    return f'For a column with the name "{word}", write {{"columns": {{"{word}": condition}}}}'


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
