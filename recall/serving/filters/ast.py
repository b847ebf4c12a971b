"""Abstract syntax of filters: what `parse` returns and `compile_filter` reads.

Every form keeps in `where` the JSON pointer that it was written at, so that whatever turns out wrong with it later can be
named; two predicates that say the same are equal wherever they stood.
"""

import datetime
from dataclasses import dataclass, field
from typing import Literal

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
    """The column's value lies within all of these bounds."""

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
    """Whatever `of` does not match, items without a value among them."""

    of: "Predicate"


@dataclass(frozen=True, slots=True)
class AllOf:
    """What every part matches: everything when there is none."""

    of: "tuple[Predicate, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """What at least one part matches: nothing when there is none."""

    of: "tuple[Predicate, ...]"


Predicate = Equals | In | Range | Missing | Holds | Available | Not | AllOf | AnyOf
