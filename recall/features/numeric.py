"""Numeric fields: standardized, or in quantile buckets."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import copysign, expm1, isfinite
from numbers import Real
from typing import Any

import numpy as np
import polars as pl
from typing_extensions import override

from recall._arrays import Float64, Int32, Integers
from recall.config.schema import NumericField
from recall.errors import DataError
from recall.features.column import LARGEST, ColumnEncoder, FieldSource, SingleEncoder, WeightedRows, column_of, refusal
from recall.features.csr import SparseRows
from recall.features.values import to_float
from recall.features.vocabulary import FIRST, MISSING, Vocabulary


class NumericEncoder:
    """Choose the encoder of a numeric field by its scale."""

    @staticmethod
    def fit(field: NumericField, source: FieldSource, frame: pl.DataFrame, counts: Integers) -> "BucketEncoder | ScaledEncoder":
        """Learn the scale or the buckets.

        Args:
            field: the field.
            source: column of the field.
            frame: rows of the table.
            counts: integer [n], how often each row counts.
        """
        encoder = BucketEncoder if field.scale == "buckets" else ScaledEncoder
        return encoder.fit(field, source.column, frame, counts)

    @staticmethod
    def restore(
        field: NumericField, source: FieldSource, state: Mapping[str, Any], _: Vocabulary
    ) -> "BucketEncoder | ScaledEncoder":
        """Return the encoder with a stored state.

        Args:
            field: the field.
            source: column of the field.
            state: result of `ColumnEncoder.state`.
        """
        if field.scale == "buckets":
            return BucketEncoder(source.column, np.array(state["edges"], dtype=np.float64))
        return ScaledEncoder(source.column, field.scale == "log", float(state["mean"]), float(state["deviation"]))


@dataclass(frozen=True, eq=False)
class ScaledEncoder(ColumnEncoder):
    """A number as one row with its standardized value as weight.

    The weight of x is (t(x) - mean) / deviation; t is the identity or sign(x) log(1 + |x|). A constant column has deviation 0,
    and every weight is 0.
    """

    column: str
    log: bool
    mean: float
    deviation: float
    vocabulary: None = None

    @staticmethod
    def fit(field: NumericField, column: str, frame: pl.DataFrame, counts: Integers) -> "ScaledEncoder":
        """Learn mean and population standard deviation.

        Args:
            field: the field.
            column: column with the numbers.
            frame: rows of the table.
            counts: integer [n], how often each row counts.

        Raises:
            DataError: The column has no numbers, or they are too large.
        """
        log = field.scale == "log"
        values, weights = _known(column, frame, counts)
        if not len(values):
            return ScaledEncoder(column, log, 0.0, 0.0)
        values = _signed_log(values) if log else values
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(np.average(values, weights=weights))
            deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
        if not isfinite(deviation):
            raise DataError(
                "the numbers are too large to be scaled", where=f"column {column!r}", hint='Use scale = "log" or "buckets"'
            )
        return ScaledEncoder(column, log, mean, deviation if (values != values[0]).any() else 0.0)

    @override
    @property
    def size(self) -> int:
        """Rows for unknown, missing, and the number."""
        return FIRST + 1

    @override
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        """One row for each number, or the row for missing with weight 1."""
        values = to_float(column_of(frame, self.column), f"column {self.column!r}").to_numpy()
        missing = np.isnan(values)
        scaled = self._scaled(values)
        if (np.abs(scaled) > LARGEST).any():
            raise DataError("a number is too large beside those trained on", where=f"column {self.column!r}")
        rows = SparseRows.one_hot(np.where(missing, MISSING, FIRST).astype(np.int32), self.size)
        rows.weights[~missing] = scaled[~missing]
        return rows

    @override
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        value = number_of(values, self.column)
        if value is None:
            return [(MISSING, 1.0)]
        scaled = self._scaled_one(value)
        if abs(scaled) > LARGEST:
            raise refusal(self.column, "the value is too large beside the numbers trained on")
        return [(FIRST, scaled)]

    @override
    def state(self) -> dict[str, object]:
        return {"mean": self.mean, "deviation": self.deviation}

    @override
    def describe(self, row: int, weight: float) -> str:
        scaled = self.mean + self.deviation * weight
        return f"{copysign(expm1(abs(scaled)), scaled) if self.log else scaled:.6g}"

    def _scaled_one(self, value: float) -> float:
        """Scale one number, bit for bit as `_scaled`.

        Plain Python takes a tenth of the time that numpy takes for an array of one.
        """
        if self.deviation == 0.0:
            return 0.0
        if self.log:
            logarithm = float(np.log1p(abs(value)))  # one call of numpy, not four; `math.log1p` may round differently
            value = -logarithm if value < 0 else logarithm
        return (value - self.mean) / self.deviation

    def _scaled(self, values: Float64) -> Float64:
        if self.deviation == 0.0:
            return np.where(np.isnan(values), np.nan, 0.0)
        with np.errstate(over="ignore"):
            return ((_signed_log(values) if self.log else values) - self.mean) / self.deviation


@dataclass(frozen=True, eq=False)
class BucketEncoder(SingleEncoder):
    """A number as the row of its bucket.

    Bucket b holds x with edges[b - 1] <= x < edges[b].
    """

    column: str
    edges: Float64
    vocabulary: None = None

    @staticmethod
    def fit(field: NumericField, column: str, frame: pl.DataFrame, counts: Integers) -> "BucketEncoder":
        """Compute quantiles as edges; equal ones are merged, which gives fewer buckets.

        Args:
            field: the field.
            column: column with the numbers.
            frame: rows of the table.
            counts: integer [n], how often each row counts.
        """
        values, weights = _known(column, frame, counts)
        if not len(values):
            return BucketEncoder(column, np.empty(0))
        values = np.sort(np.repeat(values, weights))
        places = len(values) * np.arange(1, field.buckets) // field.buckets
        edges = np.unique(values[places])
        return BucketEncoder(column, edges[edges > values[0]])

    @override
    @property
    def size(self) -> int:
        """Number of the field's rows."""
        return FIRST + len(self.edges) + 1

    @override
    def encode(self, frame: pl.DataFrame) -> SparseRows:
        """One row with weight 1 for each number."""
        return SparseRows.one_hot(self._rows(frame), self.size)

    @override
    def encode_one(self, values: Mapping[str, object]) -> WeightedRows:
        bucket = self.text(values)
        return [(MISSING if bucket is None else FIRST + int(bucket), 1.0)]

    @override
    def texts(self, frame: pl.DataFrame) -> pl.Series:
        """Numbers of the buckets, from 0."""
        rows = pl.Series(self.column, self._rows(frame))
        return (rows - FIRST).set(rows == MISSING, None).cast(pl.String)

    @override
    def text(self, values: Mapping[str, object]) -> str | None:
        value = number_of(values, self.column)
        return None if value is None else str(int(np.searchsorted(self.edges, value, side="right")))

    @override
    def describe_text(self, text: str) -> str:
        """Return the interval of a bucket, given its number."""
        edges = [float("-inf"), *self.edges.tolist(), float("inf")]
        return f"[{edges[int(text)]:g}, {edges[int(text) + 1]:g})"

    @override
    def describe(self, row: int, weight: float) -> str:
        return self.describe_text(str(row - FIRST))

    @override
    def state(self) -> dict[str, object]:
        return {"edges": self.edges.tolist()}

    def _rows(self, frame: pl.DataFrame) -> Int32:
        values = to_float(column_of(frame, self.column), f"column {self.column!r}").to_numpy()
        buckets = FIRST + np.searchsorted(self.edges, values, side="right")
        return np.where(np.isnan(values), MISSING, buckets).astype(np.int32)


def number_of(values: Mapping[str, object], column: str) -> float | None:
    """Return the number of one column of a request, or None when it is missing.

    Args:
        values: values of the request by column.
        column: column to read.

    Raises:
        RequestError: The value is not a finite number.
    """
    value = values.get(column)
    if value is None:
        return None
    if type(value) is float and isfinite(value):  # the usual case
        return value
    if isinstance(value, Real):
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if isfinite(number):
            return number
    raise refusal(column, "the value is not a finite number", "Give a number, or leave it out when it is not known")


def _known(column: str, frame: pl.DataFrame, counts: Integers) -> tuple[Float64, Integers]:
    values = to_float(frame[column], f"column {column!r}").to_numpy()
    known = ~np.isnan(values) & (counts > 0)
    return values[known], counts[known]


def _signed_log(values: Float64) -> Float64:
    return np.sign(values) * np.log1p(np.abs(values))
