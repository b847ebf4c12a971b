"""A reference implementation of filters: item by item in plain Python."""

import datetime
from collections.abc import Mapping

import numpy as np
import polars as pl

from recall.config.schema import Schema
from recall.features.values import canonical
from recall.serving.filters.columns import FilterColumns, forms_of

UTC = datetime.UTC


def columns_of(frame: pl.DataFrame, schema: Schema | None = None) -> FilterColumns:
    """The columns of a table."""
    return FilterColumns(len(frame), forms_of(frame.schema, schema), frame.get_column)


def matches(filter_: Mapping, item: Mapping, now: datetime.datetime) -> bool:
    """Whether an item, as values by column, matches a valid filter."""
    for key, given in filter_.items():
        match key:
            case "all":
                found = all(matches(one, item, now) for one in given)
            case "any":
                found = any(matches(one, item, now) for one in given)
            case "not":
                found = not matches(given, item, now)
            case "columns":
                found = all(condition(one, item[column]) for column, one in given.items())
            case "available":
                at = given.get("at", "now")
                at = now if at == "now" else datetime.datetime.fromisoformat(at)
                start, until = (item[given[end]] if end in given else None for end in ("from", "until"))
                found = (start is None or instant(start) <= instant(at)) and (until is None or instant(at) < instant(until))
            case _:
                found = condition(given, item[key])
        if not found:
            return False
    return True


def condition(given: object, value: object) -> bool:
    if not isinstance(given, Mapping):
        return same(value, given)
    return all(operation(operator, operand, value) for operator, operand in given.items())


def operation(operator: str, operand: object, value: object) -> bool:
    match operator:
        case "missing":
            return operand == (value is None)
        case "exists":
            return operand == (value is not None)
        case _ if value is None:
            return False
        case "equals":
            return same(value, operand)
        case "in":
            return any(same(value, one) for one in operand)
        case "any":
            return any(same(held, one) for one in operand for held in value)
        case "all":
            return all(any(same(held, one) for held in value) for one in operand)
    value, operand = comparable(value, operand)
    return {"gt": value > operand, "gte": value >= operand, "lt": value < operand, "lte": value <= operand}[operator]


def same(value: object, operand: object) -> bool:
    if value is None:
        return False
    if isinstance(value, str):
        return value == canonical(operand)
    value, operand = comparable(value, operand)
    return value == operand


def comparable(value: object, operand: object) -> tuple:
    if isinstance(value, datetime.date):
        return instant(value), instant(operand)
    if isinstance(value, datetime.time) and isinstance(operand, str):
        return value, datetime.time.fromisoformat(operand)
    if isinstance(value, str) and not isinstance(operand, str):
        return float(value), operand
    return value, operand


def instant(value: object) -> datetime.datetime:
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    if not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def selected(filter_: Mapping, frame: pl.DataFrame, now: datetime.datetime) -> np.ndarray:
    """Return bool [n]: the matching rows of a table."""
    return np.array([matches(filter_, item, now) for item in frame.iter_rows(named=True)], dtype=bool)
