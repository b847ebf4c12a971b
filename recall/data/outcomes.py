"""Outcome and weight of each row of the interactions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Bool, Float64, Integers
from recall.config import DataConfig, EventsConfig, OutcomeConfig
from recall.data.column_names import BOOLEAN_WORDS, TRUE_WORDS
from recall.data.findings import Finding
from recall.data.tables import Table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import named_values
from recall.features.values import canonical, examples, raise_if_any, to_float

Where = Callable[[str], str]

_COUNTED = " (rows are counted without those that data.outcome and data.events leave out)"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes of the rows of an interactions table.

    Attributes:
        taken: bool [n], False for a row that was shown and not taken; None if the configuration has no negatives.
        weight: float64 [n], weight of the event of each row; None without an event column.
    """

    taken: Bool | None
    weight: Float64 | None

    @staticmethod
    def of(raw: pl.DataFrame, data: DataConfig, where: Where) -> "Outcomes":
        """Evaluate label, outcome and event of each row.

        A row is taken if those of label, threshold and event that are configured all agree.

        Args:
            raw: [n] rows, after `drop_left_out`.
            data: the settings.
            where: returns the location of a column, for errors.

        Raises:
            DataError: A label is neither 1 nor 0, a value is missing or not a number, an event is unknown, or no row is taken.
        """
        taken, weight = np.ones(len(raw), dtype=np.bool_), None
        if data.label is not None:
            taken &= parse_labels(raw[data.label], where(data.label))
        if data.outcome is not None and "not taken" in (data.outcome.below, data.outcome.missing):
            taken &= _classify_outcomes(raw[data.outcome.column], data.outcome, where(data.outcome.column)) != "not taken"
        if data.events is not None:
            weight = _event_weights(raw[data.events.column], data.events, where(data.events.column))
            taken &= weight > 0
            weight = np.where(weight > 0, weight, 1.0)
        if len(taken) and not taken.any():
            raise DataError(
                "no row counts as taken",
                where="data",
                why="data.label, data.outcome and data.events must all say that a row was taken",
                hint="At least one row must be taken",
            )
        return Outcomes(taken if data.has_negatives else None, weight)


def drop_left_out(data: DataConfig, table: Table) -> Table:
    """Drop the rows that `data.outcome` and `data.events` leave out.

    Args:
        data: names the columns.
        table: the interactions.

    Raises:
        DataError: A value is missing or not a number, an event is not listed, or no row is left.
    """
    outcome, events = data.outcome, data.events
    filters: list[tuple[str, Callable[[pl.Series], pl.Series]]] = []
    if outcome is not None and "left out" in (outcome.below, outcome.missing):
        where = table.where(outcome.column)
        filters.append((outcome.column, lambda values: pl.Series(_classify_outcomes(values, outcome, where) != "left out")))
    if events is not None and (events.left_out or events.missing == "left out"):
        place = table.where(events.column)
        filters.append((events.column, lambda values: pl.Series(np.isfinite(_event_weights(values, events, place)))))
    if not filters:
        return table
    raw = table.collect(name for name, _ in filters)  # eagerly first, because polars wraps errors raised in a lazy query
    kept = np.logical_and.reduce([keep(raw[name]).to_numpy() for name, keep in filters])
    if kept.all():
        return table
    if not kept.any():
        message = "every row is left out: there are no interactions"
        raise DataError(message, where=str(table.path), hint="Check data.outcome and data.events")
    conditions = [pl.col(name).map_batches(keep, pl.Boolean()) for name, keep in filters]
    return replace(table, frame=table.frame.filter(conditions), note=_COUNTED)


def parse_labels(values: pl.Series, where: str) -> Bool:
    """Parse a column of 1 and 0, or of words such as true and false; bool [n].

    Args:
        values: [n], the column.
        where: names it in an error.

    Raises:
        DataError: A label is missing or something else, or no row has label 1.
    """
    if values.dtype == pl.String:
        words = {word: str(int(word in TRUE_WORDS)) for pair in BOOLEAN_WORDS for word in pair}
        values = values.str.strip_chars().str.to_lowercase().replace_strict(words, default=values)
    parsed = to_float(values, where)
    if parsed.null_count():
        raise DataError(
            f"{parsed.null_count():,} of {len(parsed):,} rows have no label",
            where=where,
            hint="Write 1 for what was taken and 0 for what was shown and not taken, or leave the rows out",
            row=int(parsed.is_null().arg_max() or 0) + 1,
        )
    raise_if_any(values, ~parsed.is_in([0.0, 1.0]), where, "neither 0 nor 1")
    taken = (parsed == 1.0).to_numpy()
    if not taken.any():
        raise DataError("no row has label 1", where=where, hint="At least one row must be taken")
    return taken


def _classify_outcomes(values: pl.Series, rule: OutcomeConfig, where: str) -> npt.NDArray[np.str_]:
    """Return "taken", "left out" or "not taken" for each row, [n]."""
    parsed = to_float(values, where)
    missing = parsed.null_count()
    if missing and rule.missing == "error":
        raise DataError(
            f"{missing:,} of {len(parsed):,} rows have no value, and nothing says what they count as",
            where=where,
            hint='Set data.outcome.missing to "taken", "left out" or "not taken"',
        )
    words = np.where((parsed >= rule.at_least).fill_null(value=False).to_numpy(), "taken", rule.below)
    return np.where(parsed.is_null().to_numpy(), rule.missing, words)


def _event_weights(values: pl.Series, rule: EventsConfig, where: str) -> Float64:
    """Return the weight of each row's event, [n]: 0 if not taken, NaN if left out."""
    known = {canonical(name): weight for name, weight in rule.weights.items()}
    known |= dict.fromkeys(map(canonical, rule.not_taken), 0.0) | dict.fromkeys(map(canonical, rule.left_out), float("nan"))
    texts, names = named_values(values, known)
    known = {names[name]: weight for name, weight in known.items()}
    if texts.null_count() and rule.missing == "error":
        raise DataError(
            f"{texts.null_count():,} of {len(texts):,} rows name no event, and nothing says what they count as",
            where=where,
            hint='Set data.events.missing to "taken", "left out" or "not taken"',
        )
    weights = texts.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Float64)
    unknown = texts.filter(weights.is_null() & texts.is_not_null())
    if len(unknown):
        distinct = unknown.unique().sort()
        raise DataError(
            f"{len(unknown):,} rows name events that are not listed: {examples(distinct)}",
            where=where,
            why="data.events says what each event counts as",
            hint=f"Add them to data.events.weights, .left_out or .not_taken. {did_you_mean(distinct[0], known)}",
        )
    return weights.fill_null(_MISSING[rule.missing]).to_numpy()


_MISSING = {"error": float("nan"), "taken": 1.0, "left out": float("nan"), "not taken": 0.0}
_WIDE = 1e6  # largest over smallest weight; float32 has 7 digits, so the smallest vanish in sums beyond this
_HEAVY = 0.1  # share of all training weight in one row of at least _ROWS. Chosen, not tuned.
_ROWS = 50
_UNUSUAL = 1e9  # a mean beyond this, or below its inverse, is probably an id or a time


@dataclass(frozen=True, slots=True)
class WeightRange:
    """Range of the weights of the training rows, as they were written.

    Attributes:
        where: the file and the column.
        smallest: smallest weight of a training row, before any decay.
        largest: largest weight of a training row, before any decay.
        mean: mean weight of the training rows, before any decay.
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
class RowWeights:
    """Weights of all rows of a file, before scaling.

    Attributes:
        values: float64 [n], positive and finite.
        where: the file and the column; empty where no column is named.
    """

    values: Float64
    where: str

    @staticmethod
    def of(raw: pl.DataFrame, column: str | None, where: str, factors: Float64 | None = None) -> "RowWeights":
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
            return RowWeights(np.ones(len(raw)), "") if factors is None else RowWeights(factors, where)
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
        return RowWeights(values if factors is None else values * factors, where)

    def scaled(self, training: Integers) -> pl.Series:
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
            return pl.Series(self.values.astype(np.float32))
        largest = int(training[self.values[training].argmax()])
        scaled = np.ldexp(self.values, -int(np.frexp(self.values[largest])[1]))  # exact, and its sum cannot overflow
        relative = pl.Series(scaled / scaled[training].mean())
        raise_if_any(
            pl.Series(self.values),
            ~relative.is_between(float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)),
            self.where,
            "too far from the mean weight of the training rows to be added to it",
            f"The mean is {self.mean(training):.6g}, and the largest is {self.values[largest]:.6g}, in row {largest + 1}: "
            "correct or leave out the rows at the ends of the range",
        )
        return relative.cast(pl.Float32)

    def mean(self, training: Integers) -> float:
        """Return the mean weight of the training rows, int64 [m]."""
        values = self.values[training]
        largest = float(values.max())
        return float((values / largest).mean()) * largest

    def range(self, training: Integers) -> WeightRange | None:
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
    report = partial(Finding, count=found.rows, table="interactions", column=column)
    if found.extreme:
        yield report("warning", f"{found}: a few rows decide what is learned; correct or cap them")
    elif not 1 / _UNUSUAL < found.mean < _UNUSUAL:
        yield report("warning", f"{found}: is this a strength? Only ratios matter, weights are divided by their mean")
    else:
        yield report("note", str(found))
