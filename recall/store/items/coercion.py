"""Convert JSON or text values of an item to the types of the catalogue's columns.

A value that does not fit its column's type is rejected: it would otherwise change at the next compaction.
"""

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import polars as pl
from polars.datatypes import DataType

from recall.config.schema import Schema
from recall.errors import RequestError, did_you_mean, pointer
from recall.features.canonical import BLANKS, LIST, TEXT, canonical_as, canonical_text, require_time_text
from recall.features.values import canonical, moment

Parsed = TypeVar("Parsed")
Parser = Callable[[object], object]
"""Converts a value that is not missing. Raises ValueError whose text completes "the value is ..."."""


_DECIMAL = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")  # the syntax accepted in CSV files
_MAX_SECONDS = 2**63 // 1_000_000_000 - 1  # as nanoseconds they fit into 63 bits
_INTEGER = re.compile(r"\s*([+-]?[0-9]+)(?:\.0*)?\s*")


class CatalogColumns:
    """Columns of a catalogue with their parsers; the id column is separate."""

    def __init__(self, types: Mapping[str, DataType], schema: Schema, canonical_types: Mapping[str, str] | None = None) -> None:
        """Choose a parser for each column.

        Args:
            types: data types of the columns of the bundle's items, including the id.
            schema: schema of the fields, with the separators of bags.
            canonical_types: canonical type of the text in a column, by column; text by default.
        """
        self.id_column = schema.item_id
        self._types = pl.Schema(types)
        separators, texts = schema.separators("item"), canonical_types or {}
        self._parsers = {
            name: _parser_for(dtype, separators.get(name), texts.get(name, TEXT).removeprefix(LIST))
            for name, dtype in types.items()
            if name != schema.item_id
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns except the id."""
        return tuple(self._parsers)

    def read(self, item_id: str, features: Mapping[str, object], where: str) -> dict[str, object]:
        """Convert the values of one item; missing values are left out.

        Args:
            item_id: id of the item, for errors.
            features: values by column.
            where: JSON pointer of `features`, for errors.

        Raises:
            RequestError: A column is unknown, or a value has the wrong type. The message omits the value, which may be secret.
        """
        values = {}
        for name, value in features.items():
            parse = self._parsers.get(name)
            if parse is None:
                raise RequestError(
                    f"item {item_id!r}: items have no column {name!r}",
                    where=where + pointer(name),
                    hint=did_you_mean(name, self._parsers),
                )
            if value is None or value == "":
                continue
            try:
                converted = parse(value)
            except (ValueError, TypeError, OverflowError) as error:
                what = f"item {item_id!r}: the value of column {name!r} is {error}"
                raise RequestError(what, where=where + pointer(name)) from None
            if converted != "":  # an empty bag in a text column is missing, as in a CSV file
                values[name] = converted
        return values

    def frame(self, ids: Sequence[str], values: Sequence[Mapping[str, object]]) -> pl.DataFrame:
        """Return items as a table with the columns of the catalogue.

        Args:
            ids: String [m].
            values: results of `read`, [m].
        """
        columns = [
            pl.Series(name, ids, dtype=pl.String)
            if name == self.id_column
            else _series(name, dtype, [one.get(name) for one in values])
            for name, dtype in self._types.items()
        ]
        return pl.DataFrame(columns)


def _series(name: str, dtype: DataType, values: list[object]) -> pl.Series:
    if dtype == pl.List(pl.String):  # polars makes a series of each list: 100 lists take 305 us, as JSON 46 us
        texts = [None if value is None else orjson.dumps(value).decode() for value in values]
        return pl.Series(name, texts, dtype=pl.String).str.json_decode(dtype)
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":  # values are text, as Python's datetime has microseconds
        parts = [None if value is None else moment(str(value)) for value in values]
        numbers = [None if part is None else part[0] * 1_000_000_000 + part[1] for part in parts]
        utc = pl.Series(name, numbers, dtype=pl.Int64).cast(pl.Datetime("ns"))
        return utc if dtype.time_zone is None else utc.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        utc = pl.Series(name, values, dtype=pl.Datetime(dtype.time_unit, "UTC"))
        return utc.dt.convert_time_zone(dtype.time_zone)
    return pl.Series(name, values, dtype=dtype)


def _parser_for(dtype: DataType, separator: str | None, type_: str) -> Parser:
    if isinstance(dtype, pl.List | pl.Array):
        return _list_parser(_parser_for(dtype.inner, None, type_), separator)  # type: ignore[arg-type]
    if dtype == pl.String:
        text = _text_parser(type_)
        return text if separator is None else _bag_parser(separator, text)
    if dtype.is_integer():
        return _integer_parser(dtype)
    if isinstance(dtype, pl.Datetime):
        return _datetime_parser(dtype)
    return _PARSERS.get(dtype.base_type(), _refuse)


def _text_parser(type_: str) -> Callable[[object], str]:
    """Return a parser of text of a column's type; dates and times are strict."""

    def read(value: object) -> str:
        text = canonical_text(_parse_text(value), type_)
        require_time_text(text, type_)
        return text

    return read if type_ != TEXT else _parse_text


def _parse_text(value: object) -> str:
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("not a finite number")
    try:
        text = canonical(value)
    except TypeError:
        raise ValueError("not a scalar") from None
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("not valid Unicode") from None
    return text


def _bag_parser(separator: str, text: Callable[[object], str]) -> Parser:
    def read(value: object) -> str:
        if not isinstance(value, list | tuple):
            value = _parse_text(value).split(separator)
        parts = ["" if part is None or part == "" else text(part) for part in map(_strip, value)]
        if any(separator in part for part in parts):
            raise ValueError(f"a list with {separator!r} inside a part, at which the column's text is cut")
        return separator.join(parts)

    return read


def _list_parser(read: Parser, separator: str | None) -> Parser:
    def read_list(value: object) -> list[object]:
        if isinstance(value, str) and separator is not None:
            value = value.split(separator)
        if not isinstance(value, list | tuple):
            raise ValueError("not a list")
        return [None if part is None else read(part) for part in map(_strip, value)]

    return read_list


def _strip(part: object) -> object:
    """Strip blanks of a value in a list or bag, as in tables."""
    return part.strip(BLANKS) if isinstance(part, str) else part


def _parse_float(value: object) -> float:
    try:
        readable = isinstance(value, int | float) or (isinstance(value, str) and _DECIMAL.fullmatch(value) is not None)
        number = float(value) if readable else float("nan")  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        number = float("nan")
    if not isfinite(number):
        raise ValueError("not a finite number")
    return number


def _parse_float32(value: object) -> float:
    with np.errstate(over="ignore"):
        narrow = np.float32(_parse_float(value))
    return _parse_float(str(narrow))  # via the shortest decimal of 32 bits, as when a table is read


def _integer_parser(dtype: DataType) -> Parser:
    bounds = np.iinfo(str(dtype).lower() if str(dtype) not in ("Int128", "UInt128") else "int64")

    def read(value: object) -> int:
        number: object = value
        if isinstance(value, str) and (found := _INTEGER.fullmatch(value)) is not None:
            number = int(found[1])
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int) or not bounds.min <= number <= bounds.max:
            raise ValueError(f"not an integer from {bounds.min} to {bounds.max}")
        return number

    return read


def _parse(value: object, kind: type[Parsed], read: Callable[[str], object], expected: str) -> Parsed:
    """Return a value of a type; text is read first. Raises ValueError."""
    try:
        found = read(value) if isinstance(value, str) else value
    except ValueError:
        found = None
    if not isinstance(found, kind):
        raise ValueError(expected)
    return found


def _parse_boolean(value: object) -> bool:
    return _parse(value, bool, lambda text: {"true": True, "false": False}.get(text.strip().lower()), "neither true nor false")


def _parse_date(value: object) -> datetime.date:
    def read(text: str) -> datetime.date:  # a time at midnight is a date, as in text columns
        return datetime.date.fromisoformat(canonical_text(text, "date"))

    date = None if isinstance(value, datetime.datetime) else value
    return _parse(date, datetime.date, read, "not a date such as 2026-01-31")


def _datetime_parser(dtype: pl.Datetime) -> Parser:
    if dtype.time_unit == "ns":
        return _parse_nanoseconds
    zone = None if dtype.time_zone is None else ZoneInfo(dtype.time_zone)
    coarse = dtype.time_unit == "ms"

    def read(value: object) -> datetime.datetime:
        text = value.strip() if isinstance(value, str) else value
        expected = "not a time such as 2026-01-31T18:00:00Z"
        found = _parse(text, datetime.datetime, datetime.datetime.fromisoformat, expected)
        found = found.replace(tzinfo=datetime.UTC) if found.tzinfo is None else found.astimezone(datetime.UTC)
        if coarse:
            found = found.replace(microsecond=found.microsecond // 1000 * 1000)
        return found.replace(tzinfo=None) if zone is None else found.astimezone(zone)

    return read


def _parse_nanoseconds(value: object) -> str:
    """Convert a time to canonical text in UTC, with nanoseconds."""
    text = canonical_as(value, "time") if isinstance(value, str | datetime.datetime) else None
    try:
        seconds, _ = moment(text or "")
    except ValueError:
        seconds = _MAX_SECONDS
    if text is None or abs(seconds) >= _MAX_SECONDS:
        raise ValueError("not a time from 1678 to 2262 such as 2026-01-31T18:00:00Z")
    return text


def _parse_time(value: object) -> datetime.time:
    expected = "not a time of day such as 18:30"
    clock = _parse(value, datetime.time, datetime.time.fromisoformat, expected)
    if clock.tzinfo is not None:
        raise ValueError(expected)
    return clock


def _refuse(_value: object) -> object:
    raise ValueError("in a column whose type does not support changes")


_PARSERS: Mapping[type[DataType], Parser] = {
    pl.Float16: _parse_float,
    pl.Float32: _parse_float32,
    pl.Float64: _parse_float,
    pl.Boolean: _parse_boolean,
    pl.Date: _parse_date,
    pl.Time: _parse_time,
}
"""Parsers of types without parameters; those of text, lists, integers and times depend on the column."""
