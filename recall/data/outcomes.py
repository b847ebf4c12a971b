"""What each row of the interactions counts: by label, threshold, or event."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Bool
from recall.config import DataConfig, EventsConfig, OutcomeConfig
from recall.data.tables import Table
from recall.errors import DataError, did_you_mean
from recall.features.canonical import named_values
from recall.features.values import canonical, examples, raise_if_any, to_float

Where = Callable[[str], str]

_COUNTED = " (rows are counted without those that data.outcome and data.events leave out)"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the rows of an interactions table count as.

    Attributes:
        taken: bool [n], False for a row that was shown and not taken; None when the configuration has no negatives.
        weight: float64 [n], the weight of each row's event; None when no column names events.
    """

    taken: Bool | None
    weight: npt.NDArray[np.float64] | None

    @staticmethod
    def of(raw: pl.DataFrame, data: DataConfig, where: Where) -> "Outcomes":
        """Read the columns that say how interactions turned out.

        A row counts as taken when the label, the threshold and the event all say so, as far as they are configured.

        Args:
            raw: [n] rows without those that are left out.
            data: names the columns.
            where: names a column in an error.

        Raises:
            DataError: A label is neither 1 nor 0, a value is missing or not a number, an event is unknown, or no row is taken.
        """
        taken: Bool | None = np.ones(len(raw), dtype=np.bool_) if data.has_negatives else None
        if taken is not None and data.label is not None:
            taken &= labels(raw[data.label], where(data.label))
        if taken is not None and data.outcome is not None and "not taken" in (data.outcome.below, data.outcome.missing):
            column = data.outcome.column
            taken &= _outcome_words(raw[column], data.outcome, where(column)) != "not taken"
        weight = None
        if data.events is not None:
            name = data.events.column
            weight = _event_weights(raw[name], data.events, where(name))
            if taken is not None:
                taken &= weight > 0
        if taken is not None and not taken.any():
            raise DataError(
                "no row counts as taken",
                where="data",
                why="data.label, data.outcome and data.events must all say that a row was taken",
                hint="At least one row must be taken",
            )
        return Outcomes(taken, None if weight is None else np.where(weight > 0, weight, 1.0))


def without_left_out(data: DataConfig, table: Table) -> Table:
    """Drop the rows that `data.outcome` and `data.events` leave out.

    Args:
        data: names the columns.
        table: the interactions.

    Raises:
        DataError: A value is missing or not a number, an event is not listed, or no row is left.
    """
    outcome, events = data.outcome, data.events
    tests: dict[str, list[Callable[[pl.Series], pl.Series]]] = {}
    if outcome is not None and "left out" in (outcome.below, outcome.missing):
        tests.setdefault(outcome.column, []).append(
            lambda values: pl.Series(_outcome_words(values, outcome, table.where(outcome.column)) != "left out")
        )
    if events is not None and events.left_out:
        tests.setdefault(events.column, []).append(
            lambda values: pl.Series(np.isfinite(_event_weights(values, events, table.where(events.column))))
        )
    if not tests:
        return table
    raw = table.collect(tests)  # eagerly first, because polars wraps errors raised in a lazy query
    kept = np.logical_and.reduce([test(raw[name]).to_numpy() for name, these in tests.items() for test in these])
    if kept.all():
        return table
    if not kept.any():
        message = "every row is left out, so that there are no interactions"
        raise DataError(message, where=str(table.path), hint="Look at data.outcome and data.events")
    conditions = [pl.col(name).map_batches(test, pl.Boolean()) for name, these in tests.items() for test in these]
    return replace(table, frame=table.frame.filter(conditions), note=_COUNTED)


def labels(values: pl.Series, where: str) -> Bool:
    """Parse a column of 1 and 0, or true and false; bool [n].

    Args:
        values: [n], the column.
        where: names it in an error.

    Raises:
        DataError: A label is missing or something else, or no row has label 1.
    """
    if values.dtype == pl.String:
        words = {"true": "1", "false": "0"}
        lower = values.str.strip_chars().str.to_lowercase()
        values = pl.select(pl.when(lower.is_in(list(words))).then(lower.replace(words)).otherwise(values)).to_series()
    parsed = to_float(values, where)
    if parsed.null_count():
        raise DataError(
            f"{parsed.null_count():,} of {len(parsed):,} rows have no label",
            where=where,
            hint="Write 1 for what was taken and 0 for what was shown and not taken, or leave the rows out",
            row=int(parsed.is_null().arg_max() or 0) + 1,
        )
    raise_if_any(values, ~parsed.is_in([0.0, 1.0]), where, "neither 0 nor 1")
    if not (parsed == 1.0).any():
        raise DataError("no row has label 1", where=where, hint="At least one row must be taken")
    return (parsed == 1.0).to_numpy()


def _outcome_words(values: pl.Series, rule: OutcomeConfig, where: str) -> npt.NDArray[np.str_]:
    """Return "taken", "left out" or "not taken" for each row, [n]."""
    parsed = to_float(values, where)
    absent = parsed.null_count()
    if absent and rule.missing == "error":
        raise DataError(
            f"{absent:,} of {len(parsed):,} rows have no value, and nothing says what they count as",
            where=where,
            hint='Set data.outcome.missing to "taken", "left out" or "not taken"',
        )
    words = np.where((parsed >= rule.at_least).fill_null(value=False).to_numpy(), "taken", rule.below)
    return np.where(parsed.is_null().to_numpy(), rule.missing, words)


def _event_weights(values: pl.Series, rule: EventsConfig, where: str) -> npt.NDArray[np.float64]:
    """Return the weight of each row's event, [n]: 0 if not taken, NaN if left out."""
    known = {canonical(name): weight for name, weight in rule.weights.items()}
    known |= dict.fromkeys(map(canonical, rule.not_taken), 0.0) | dict.fromkeys(map(canonical, rule.left_out), float("nan"))
    texts, names = named_values(values, known)
    known = {names[name]: weight for name, weight in known.items()}
    if texts.null_count():
        raise DataError(
            f"{texts.null_count():,} of {len(texts):,} rows name no event", where=where, hint="Name one, or leave the rows out"
        )
    found = texts.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.Float64)
    strange = texts.filter(found.is_null())
    if len(strange):
        different = strange.unique().sort()
        raise DataError(
            f"{len(strange):,} rows name events that are not listed: {examples(different)}",
            where=where,
            why="data.events says what each event counts as",
            hint=f"Add them to data.events.weights, .left_out or .not_taken. {did_you_mean(different[0], known)}",
        )
    return found.to_numpy()
