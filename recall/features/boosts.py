"""Additional coordinates of item vectors that a request may weight.

A coordinate is a number of each item, or 1 for items with a value. A score with boosts is <user_vector, item_vector> + sum of
weight * coordinate: the inner product of longer vectors, so that the exact top-k can be found. The coordinates are not stored
in the vectors: an index is fitted to the users' vectors, and quantizes relative to the largest component, which would be a
price or a year.
"""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from polars.datatypes import DataType

from recall._arrays import Float32, Int64
from recall.config.schema import Schema
from recall.errors import DataError, RequestError, did_you_mean, pointer
from recall.features.canonical import BLANKS, LIST, TEXT, as_lists, canonical_text, flatten_lists
from recall.features.values import canonical_series, to_float

LARGEST_WEIGHT = 1e6
_LARGEST = 1e30  # of a coordinate: with the largest weights, float32 still holds the sum


@dataclass(frozen=True, slots=True, eq=False)
class Boosts:
    """The coordinates of some items.

    Attributes:
        names: names of the coordinates, as in `index.boosts`.
        values: float32 [names, items]; 0 where an item has no value.
    """

    names: tuple[str, ...]
    values: Float32

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        columns: Sequence[str],
        read: Callable[[str], pl.Series],
        size: int,
        schema: Schema,
        types: Mapping[str, str] | None = None,
    ) -> "Boosts":
        """Read coordinates from the columns of items.

        Args:
            names: each a column of numbers or truth values, or `column=value`: 1 where an item holds the value, alone or
                among others, and 0 where it does not.
            columns: names of all columns of the items.
            read: returns a column, [size].
            size: number of items.
            schema: its bag fields have the separators of values in text.
            types: canonical types of the columns, to which the values in `names` are converted.

        Raises:
            DataError: There is no such column, or it holds no numbers.
        """
        values = np.empty((len(names), size), dtype=np.float32)
        for row, name in enumerate(names):
            column, value = column_of(name, columns)
            where = f"index.boosts, {name!r}"
            if column not in columns:
                raise DataError(f"items have no column {column!r}", where=where, hint=did_you_mean(column, columns))
            if value is None:
                values[row] = _numbers(read(column), where)
            else:
                type_ = (types or {}).get(column, TEXT)
                stripped = value.strip(BLANKS) if type_.startswith(LIST) else value
                value = canonical_text(stripped, type_.removeprefix(LIST))
                values[row] = _holds(read(column), value, schema.separator(column), where)
        return cls(tuple(names), values)

    def weights(self, given: Mapping[str, float]) -> Float32:
        """Return the weight of each coordinate, 0 where none is given: float32 [names].

        Raises:
            RequestError: A name is unknown, or a weight is not a number from -1e6 to 1e6.
        """
        weights = np.zeros(len(self.names), dtype=np.float32)
        if not isinstance(given, Mapping):
            raise RequestError("boosts must be an object of weights by name", where="/boosts")
        for name, weight in given.items():
            where = pointer("boosts", name)
            if not self.names:
                raise RequestError(
                    "this bundle has no boosts",
                    where=where,
                    hint="Name the columns in index.boosts of the configuration, and export again",
                )
            if name not in self.names:
                raise RequestError(
                    "unknown boost",
                    where=where,
                    why="index.boosts of the configuration names them",
                    hint=did_you_mean(name, self.names),
                )
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not abs(weight) <= LARGEST_WEIGHT:  # false for NaN
                what = f"the weight must be a number from {-LARGEST_WEIGHT:g} to {LARGEST_WEIGHT:g}, got {reprlib.repr(weight)}"
                raise RequestError(what, where=where)
            weights[self.names.index(name)] = weight
        return weights

    def weighted_sum(self, weights: Float32) -> Float32:
        """Return the sum of weighted coordinates of each item: float32 [items]."""
        total = np.zeros(self.values.shape[1], dtype=np.float32)
        for weight, coordinate in zip(weights, self.values, strict=True):  # always in this order: one sum for one item
            if weight:
                total += weight * coordinate
        return total

    def contributions(self, weights: Float32, row: int) -> dict[str, float]:
        """Return the nonzero contribution of each coordinate to one item's score, by name.

        Args:
            weights: float32 [names], from `weights`.
            row: row of the item.
        """
        products = (weights * self.values[:, row]).tolist()
        return {name: part for name, part in zip(self.names, products, strict=True) if part}


def column_of(name: str, columns: Sequence[str]) -> tuple[str, str | None]:
    """Return the column of a boost, and its value, or None for a numeric boost.

    Args:
        name: name of the boost, `column` or `column=value`.
        columns: names of all columns of the items.
    """
    column, equals, value = name.partition("=")
    return (column, value) if equals and name not in columns else (name, None)


def numeric_text_columns(names: Sequence[str], attributes: Sequence[str], types: Mapping[str, DataType]) -> set[str]:
    """Return the text columns that boosts read as numbers and that no field reads.

    Args:
        names: names of boosts, as in `Boosts.of`.
        attributes: columns of items that no field reads.
        types: type of each column in the file.
    """
    return {name for name in names if name in attributes and types.get(name) == pl.String}


def _numbers(values: pl.Series, where: str) -> Float32:
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        hint = "Let a field of kind 'numeric' read it, or no field but data.attributes; or boost one value: column=value"
        raise DataError(f"a column of type {values.dtype} holds no numbers", where=where, hint=hint)
    numbers = to_float(values, where).fill_null(0.0).to_numpy()
    if np.abs(numbers).max(initial=0.0) > _LARGEST:
        raise DataError(f"a number is larger than {_LARGEST:g}", where=where, hint="Scale the column")
    return numbers.astype(np.float32)


def _holds(values: pl.Series, value: str, separator: str | None, where: str) -> Float32:
    values, mask = as_lists(values, separator), np.zeros(len(values), dtype=np.float32)
    try:
        if isinstance(values.dtype, pl.List):
            lengths = values.list.len().fill_null(0).to_numpy()
            members = canonical_series(flatten_lists(values))
            rows: Int64 = np.repeat(np.arange(len(values)), lengths)
            mask[rows[(members == value).fill_null(False).to_numpy()]] = 1
        else:
            mask[(canonical_series(values) == value).fill_null(False).to_numpy()] = 1
    except DataError as error:
        raise DataError(error.what, where=where, hint=error.hint) from None
    return mask
