"""Interaction weights, in units of their mean: a constant factor changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float64
from recall.data.findings import Finding
from recall.errors import DataError
from recall.features.values import raise_if_any, to_float

_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)
_WIDE = 1e6  # largest over smallest weight; float32 has 7 digits, so the smallest vanish in sums beyond this
_HEAVY = 0.1  # share of all training weight in one row of at least _ROWS. Chosen, not tuned.
_ROWS = 50
_UNUSUAL = 1e9  # a mean beyond this, or below its inverse, is probably an id or a time


@dataclass(frozen=True, slots=True)
class WeightRange:
    """How the weights of the training rows are spread, as they were written.

    Attributes:
        where: the file and the column.
        smallest: smallest weight of a training row, before any decay.
        largest: largest weight of a training row, before any decay.
        mean: of the training rows.
        smallest_row: row of `smallest` in the file, from 1.
        largest_row: row of `largest` in the file, from 1.
        rows: number of training rows.
        share: share of all training weight that the largest row has.
    """

    where: str
    smallest: float
    largest: float
    mean: float
    smallest_row: int
    largest_row: int
    rows: int
    share: float

    @property
    def extreme(self) -> bool:
        """Whether float32 cannot add up the weights, or one row outweighs the others."""
        return self.largest / self.smallest > _WIDE or (self.rows >= _ROWS and self.share > _HEAVY)

    def __str__(self) -> str:
        return (
            f"weights of training rows go from {self.smallest:.6g} (row {self.smallest_row:,}) to {self.largest:.6g} "
            f"(row {self.largest_row:,}, {self.share:.1%} of all training weight), mean {self.mean:.6g}"
        )


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of all rows of a file, before scaling.

    Attributes:
        values: float64 [n], positive and finite.
        where: the file and the column; empty where no column is named.
    """

    values: Float64
    where: str

    @staticmethod
    def of(raw: pl.DataFrame, column: str | None, where: str, factors: Float64 | None = None) -> "Weights":
        """Read a weight column; without one, every row weighs 1.

        Args:
            raw: the columns that were read, [n].
            column: the column with the weights.
            where: names the column in an error; empty where there is neither a column nor factors.
            factors: float64 [n], positive; the weight of each row's event.

        Raises:
            DataError: A weight is missing, not a number, not positive, or infinite.
        """
        if column is None:
            return Weights(np.ones(len(raw)), "") if factors is None else Weights(factors, where)
        weights = to_float(raw[column], where)
        missing = weights.is_null()
        if missing.any():
            raise DataError(
                f"{int(missing.sum()):,} of {len(raw):,} rows have no weight",
                where=where,
                hint="Write 1 for a plain interaction",
                row=int(missing.arg_max() or 0) + 1,
            )
        hint = "Leave out rows that should not count, or name another weight column"
        raise_if_any(raw[column], weights <= 0, where, "not positive", hint)
        values = weights.to_numpy()
        return Weights(values if factors is None else values * factors, where)

    def scaled(self, training: npt.NDArray[np.integer]) -> pl.Series:
        """Divide the weights by the mean of the training rows.

        Only ratios of weights carry meaning: the objectives count unobserved pairs and regularisation for each unit of
        observed weight, and float32 sums of weights around 1 neither overflow nor vanish. A power of two as a common
        factor gives the same bits.

        Args:
            training: int64 [m], rows that train.

        Returns:
            Float32 [n].

        Raises:
            DataError: A weight is so far from the mean that single precision cannot hold it.
        """
        if not self.where:
            return pl.Series(self.values, dtype=pl.Float32)
        largest = int(training[self.values[training].argmax()])
        exponent = int(np.frexp(self.values[largest])[1])
        halved = np.ldexp(self.values, -exponent)  # exact, and its sum cannot overflow
        relative = pl.Series(halved / halved[training].mean())
        raise_if_any(
            pl.Series(self.values),
            (relative < _SMALLEST) | (relative > _LARGEST),
            self.where,
            "too far from the mean weight of the training rows to be added to it",
            f"The mean is {self.mean(training):.6g}, and the largest is {self.values[largest]:.6g}, in row {largest + 1}: "
            "correct or leave out the rows at the ends of the range",
        )
        return relative.cast(pl.Float32)

    def mean(self, training: npt.NDArray[np.integer]) -> float:
        """Return the mean weight of the training rows, int64 [m]."""
        values = self.values[training]
        largest = float(values.max())
        return float((values / largest).mean()) * largest

    def range(self, training: npt.NDArray[np.integer]) -> WeightRange | None:
        """Return how the weights of the training rows are spread.

        Args:
            training: int64 [m], rows in the file.

        Returns:
            None without a weight column.
        """
        if not self.where:
            return None
        training = np.sort(training)  # of equal weights, the first in the file is reported
        values = self.values[training]
        low, high = int(values.argmin()), int(values.argmax())
        share = 1 / float((values / values[high]).sum())
        return WeightRange(
            self.where,
            float(values[low]),
            float(values[high]),
            self.mean(training),
            int(training[low]) + 1,
            int(training[high]) + 1,
            len(values),
            share,
        )


def weight_findings(found: WeightRange | None, column: str | None) -> Iterator[Finding]:
    """Report the range of the weights, as a warning where few rows dominate.

    Args:
        found: the range; None without a weight column.
        column: the weight column.
    """
    if found is None or column is None:
        return
    if found.extreme:
        message = f"{found}: a few rows decide what is learned; correct or cap them"
    elif not 1 / _UNUSUAL < found.mean < _UNUSUAL:
        message = f"{found}: is this a strength? Only ratios matter, weights are divided by their mean"
    else:
        yield Finding("note", "interactions", column, str(found), found.rows)
        return
    yield Finding("warning", "interactions", column, message, found.rows)
