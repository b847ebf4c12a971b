"""Bag fields: any number of values in each row, with optional weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from recall._arrays import Float64, Int64, Integers
from recall.config.schema import BagField, Norm
from recall.errors import DataError
from recall.features.canonical import BLANKS, TEXT, as_lists, canonical_as, flatten_lists
from recall.features.column import LARGEST, ColumnEncoder, FieldSource, WeightedRows, column_of, norms, refusal
from recall.features.csr import SparseRows
from recall.features.values import empty_to_null, raise_if_any, to_float
from recall.features.vocabulary import MISSING, Vocabulary


@dataclass(frozen=True, eq=False)
class BagEncoder(ColumnEncoder):
    """A bag field with its vocabulary.

    Weights are divided by the number of values in the bag, its square root, or 1; values that are missing inside a bag
    do not count, a value that is there twice counts twice and its weights add up.
    """

    field: BagField
    column: str
    vocabulary: Vocabulary
    type: str = TEXT
    """Canonical type of the values in a bag."""

    @staticmethod
    def fit(field: BagField, source: FieldSource, frame: pl.DataFrame, counts: Integers) -> "BagEncoder":
        """Learn the vocabulary; a row counts for each different value in its bag.

        Args:
            field: the field.
            source: column and type of the field.
            frame: rows of the table.
            counts: integer [n], how often each row counts.
        """
        bags = Bags.of(field, source.column, frame)
        once = pl.DataFrame({"row": bags.row, "value": bags.values}).unique(maintain_order=True)
        vocabulary = Vocabulary.fit(once["value"], counts[once["row"].to_numpy()], field.min_count)
        return BagEncoder(field, source.column, vocabulary, source.type)

    @staticmethod
    def restore(field: BagField, source: FieldSource, _: Mapping[str, Any], vocabulary: Vocabulary) -> "BagEncoder":
        """Return the encoder of a field with a stored vocabulary.

        Args:
            field: the field.
            source: column and type of the field.
            vocabulary: the learnt values.
        """
        return BagEncoder(field, source.column, vocabulary, source.type)

    @override
    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.field.weights is None else (self.column, self.field.weights)

    @override
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        bags = Bags.of(self.field, self.column, frame)
        missing = np.flatnonzero(empty_to_null(column_of(frame, self.column)).is_null().to_numpy())
        divisors = norms(self.field.norm, np.bincount(bags.row, minlength=len(frame)))
        return SparseRows.from_coo(
            np.concatenate([bags.row, missing]),
            np.concatenate([self.vocabulary.rows(bags.values), np.full(len(missing), MISSING)]),
            np.concatenate([bags.weights / divisors[bags.row], np.ones(len(missing))]),
            len(frame),
            self.size,
        )

    @override
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        bag = self._parts(values, self.column)
        if bag is None:
            return [(MISSING, 1.0)]
        if not self._keeps_blanks:
            bag = [value.strip(BLANKS) if isinstance(value, str) else value for value in bag]
        if self.field.weights is None:
            known = [(value, 1.0) for value in bag if value is not None and value != ""]
        else:
            weights = self._weights_of(self.field.weights, values, bag)
            known = [(value, weight) for value, weight in zip(bag, weights, strict=True) if value is not None and value != ""]
        norm, row_of, as_text = _divisor(self.field.norm, len(known)), self.vocabulary.row, self.type == TEXT
        entries: dict[int, float] = {}
        try:
            for value, weight in known:
                row = row_of(value if as_text and type(value) is str else canonical_as(value, self.type) or "")
                entries[row] = entries.get(row, 0.0) + weight / norm
        except (TypeError, ValueError):
            raise refusal(self.column, "the list contains a value that is not a scalar") from None
        return list(entries.items())

    @cached_property
    def _keeps_blanks(self) -> bool:
        """Whether the vocabulary has values with blanks around them (older versions)."""
        learnt = self.vocabulary.values
        return bool((learnt.str.strip_chars(BLANKS) != learnt).any())

    def _parts(self, values: Mapping[str, object], column: str) -> list[object] | None:
        value = values.get(column)
        if value is None or value == "" or (isinstance(value, str) and not value.strip(BLANKS)):
            return None
        if isinstance(value, list | tuple):
            return list(value)
        if isinstance(value, str):
            return list(value.split(self.field.separator))
        raise refusal(column, "the value must be a list or text", f"Give a list, or text cut at {self.field.separator!r}")

    def _weights_of(self, column: str, values: Mapping[str, object], bag: list[object]) -> list[float]:
        parts = self._parts(values, column)
        if parts is None or len(parts) != len(bag):
            raise refusal(column, f"there must be one weight for each of the {len(bag)} values of {self.column!r}")
        try:
            weights = [float(weight) for weight in parts]  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            weights = [float("nan")]
        if not all(abs(weight) <= LARGEST for weight in weights):
            raise refusal(column, "one weight is not a finite number, or too large")
        return weights


@lru_cache(256)
def _divisor(norm: Norm, count: int) -> float:
    """Return `norms` of one bag, cached: numpy takes longer than the other steps."""
    return float(norms(norm, count))


@dataclass(frozen=True, slots=True)
class Bags:
    """The values of all bags of a column, one after another.

    Attributes:
        row: int64 [v], bag of each value.
        values: [v], without nulls.
        weights: float64 [v], weight of each value.
    """

    row: Int64
    values: pl.Series
    weights: Float64

    @staticmethod
    def of(field: BagField, column: str, frame: pl.DataFrame) -> "Bags":
        """Parse the bags of a column.

        Args:
            field: the bag field.
            column: column with the values.
            frame: table with that column, and the column of weights if the field names one.

        Raises:
            DataError: Weights do not match their values.
        """
        lists = _lists(empty_to_null(column_of(frame, column)), field.separator)
        row = np.repeat(np.arange(len(lists)), lists.list.len().fill_null(0).to_numpy())
        values = flatten_lists(lists)
        weights = np.ones(len(values))
        if field.weights is not None:
            where = f"column {field.weights!r}"
            weight_lists = _lists(empty_to_null(column_of(frame, field.weights)), field.separator)
            unequal = lists.is_not_null() & weight_lists.list.len().ne_missing(lists.list.len())
            raise_if_any(lists, unequal, where, f"without one weight for each value of {column!r}")
            weight_values = flatten_lists(weight_lists.filter(lists.is_not_null()))
            parsed = to_float(weight_values, where)
            raise_if_any(weight_values, parsed.is_null(), where, "missing", "Write 1 for a plain value")
            raise_if_any(weight_values, parsed.abs() > LARGEST, where, "too large")
            weights = parsed.to_numpy()
        values = values.fill_nan(None) if values.dtype.is_float() else empty_to_null(values)
        known = values.is_not_null().to_numpy()
        return Bags(row[known], values.filter(known), weights[known])


def _lists(values: pl.Series, separator: str) -> pl.Series:
    lists = as_lists(values, separator)
    if not isinstance(lists.dtype, pl.List):
        raise DataError(
            f"a column of type {values.dtype} holds no bags",
            where=f"column {values.name!r}",
            hint="Store lists, or text with a separator; or make the field categorical or numeric",
        )
    return lists
