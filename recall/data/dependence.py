"""Estimate how far one column is a function of another, robustly on few rows.

Every row is predicted from the *other* rows of its group (leave-one-out), so that a column of noise gains nothing,
regardless of its number of values. The gain is the share of the way from a guess without the group to a perfect prediction.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recall._arrays import Float64, Int32, Integers
from recall.data.column_names import outcome_word
from recall.data.dataset import Dataset
from recall.data.findings import Finding
from recall.features.values import Distinct

Codes = Integers

_FEWEST = 20  # rows in groups of at least two: below, only a rule without exceptions counts. Chosen, not tuned.
_CHANCE = 1e-3  # significance level of a rule without exceptions in few rows
_SIGMAS = 3.0  # standard errors of a lower bound


@dataclass(frozen=True, slots=True)
class Gain:
    """Accuracy with which a group predicts a row.

    Attributes:
        value: 1 where the group determines the row, 0 where it adds nothing to a guess; may be below 0.
        low: lower bound of `value`, three standard errors below.
        rows: number of rows that could be predicted.
    """

    value: float
    low: float
    rows: int

    def exceeds(self, threshold: float) -> bool:
        """Return whether the gain reaches a threshold, and its lower bound half."""
        return self.value >= threshold and self.low > threshold / 2


NO_GAIN = Gain(0.0, 0.0, 0)


def encode_distinct(values: pl.Series) -> Int32:
    """Return a number for each distinct value, int32 [n]; -1 for a missing one."""
    return np.where(values.is_null().to_numpy(), np.int32(-1), Distinct.of(values).codes)


def predict_by_group(groups: Codes, values: Codes) -> Float64:
    """Return whether the mode of the other rows of a group predicts each row.

    Args:
        groups: integer [n] >= 0.
        values: integer [n] >= 0.

    Returns:
        float64 [n]: 1 for a hit, 0 for a miss, 0.5 for a tie; NaN for a row that is alone in its group.
    """
    rows = pl.DataFrame({"group": groups, "value": values})
    count, others = pl.col("count"), pl.col("count") - 1  # rows with the value, and those without the row itself
    largest, second = count.max(), count.top_k(2).sum() - count.max()
    rival = pl.when(count < largest.over("group")).then(largest.over("group")).otherwise(second.over("group"))
    hit = pl.when(others > rival).then(1.0).when((others == rival) & (others > 0)).then(0.5).otherwise(0.0)
    hits = (
        rows.group_by("group", "value").agg(count=pl.len()).with_columns(hit=pl.when(count.sum().over("group") > 1).then(hit))
    )
    return rows.join(hits, on=["group", "value"], how="left", maintain_order="left")["hit"].to_numpy()


def function_gain(groups: Codes, values: Codes) -> Gain:
    """Return how far a value is a function of its group, beyond the mode of all rows.

    Args:
        groups: integer [n] >= 0.
        values: integer [n] >= 0.
    """
    if not len(values):
        return NO_GAIN
    hit = predict_by_group(groups, values)
    predicted = ~np.isnan(hit)
    # rows that could have contradicted the first of their group
    repeats = int(predicted.sum()) - len(np.unique(groups[predicted]))
    if 0 < predicted.sum() < _FEWEST and (hit[predicted] == 1).all():
        chance_of_equal = float(np.square(np.bincount(values) / len(values)).sum())
        return Gain(1.0, 1.0, int(predicted.sum())) if chance_of_equal**repeats < _CHANCE else NO_GAIN
    guess = predict_by_group(np.zeros(len(values), dtype=np.int64), values)[predicted]
    return _gain(hit[predicted] - guess, 1 - float(guess.mean()) if len(guess) else 0.0)


def number_gain(groups: Codes, values: Float64) -> Gain:
    """Return the share of the variance of the ranks that the groups explain.

    Args:
        groups: integer [n] >= 0.
        values: float64 [n] without NaN.
    """
    if len(values) < _FEWEST:
        return NO_GAIN
    rank = pl.Series(values, dtype=pl.Float64).rank("average").to_numpy()
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    predicted = size[group] > 1
    total = np.bincount(group, weights=rank)[group]
    error = (rank - (total - rank) / np.maximum(size[group] - 1, 1))[predicted] ** 2
    spread = (rank - rank.mean())[predicted] ** 2
    return _gain(spread - error, float(spread.mean()) if len(spread) else 0.0)


def choice_gain(values: Codes, items: Codes, users: Codes) -> Gain:
    """Return how far a value determines the item, beyond user and popularity.

    Args:
        values: integer [n] >= 0.
        items: integer [n] >= 0.
        users: integer [n] >= 0.
    """
    if len(values) < _FEWEST:
        return NO_GAIN
    popular = predict_by_group(np.zeros(len(items), dtype=np.int64), items)
    by_value, by_user = (
        np.where(np.isnan(hit), popular, hit) for hit in (predict_by_group(values, items), predict_by_group(users, items))
    )
    guess = popular if popular.mean() >= by_user.mean() else by_user
    return _gain(by_value - guess, 1 - float(guess.mean()))


@dataclass(frozen=True, slots=True)
class Dependence:
    """Dependence of a column of the interactions on users and items.

    Attributes:
        of_item: how far the item determines the value.
        of_user: how far the user determines the value.
        choice: how far the value determines the item.
    """

    of_item: Gain
    of_user: Gain
    choice: Gain

    @staticmethod
    def of(users: Codes, items: Codes, values: pl.Series) -> "Dependence":
        """Estimate the relations of a column over n interactions.

        Rows that repeat user, item and value count once, so that repeated interactions with one item do not count as evidence.

        Args:
            users: integer [n] >= 0.
            items: integer [n] >= 0.
            values: [n]; numbers may also follow from the item approximately, by rank.
        """
        frame = pl.DataFrame({"user": users, "item": items, "value": encode_distinct(values)}).with_row_index("row")
        frame = frame.filter(pl.col("value") >= 0).unique(["user", "item", "value"], keep="first", maintain_order=True)
        user, item, value = (frame[name].to_numpy() for name in ("user", "item", "value"))
        of_item, of_user = function_gain(item, value), function_gain(user, value)
        if values.dtype.is_numeric():  # of users only equal values count: numbers of visits rise with those of new users
            numbers = values.gather(frame["row"]).cast(pl.Float64).to_numpy()
            of_item = max(of_item, number_gain(item, numbers), key=lambda gain: gain.low)
        return Dependence(of_item, of_user, choice_gain(value, item, user))


def _gain(gained: Float64, possible: float) -> Gain:
    """Return the mean of the gained accuracy [n] as a share of what was possible."""
    if len(gained) < _FEWEST or possible <= 0:
        return NO_GAIN
    mean, error = float(gained.mean()), float(gained.std()) / np.sqrt(len(gained))
    return Gain(mean / possible, (mean - _SIGMAS * error) / possible, len(gained))


# Thresholds of leakage: context columns that reveal the item, or the outcome of the interaction.

OF_ITEM = 0.8
"""Gain from which a column is nearly a function of the item. Titles, years and genres of MovieLens and costs of Frappe reach
1.0, prices with a spread of a twentieth .97; contexts of Frappe (hour, weather, city) stay below .08, ratings below .2."""
CHOICE = 0.3
"""Gain from which a value nearly determines the item: titles reach .99, genres .25, contexts of Frappe .001."""
OF_USER = 0.95
"""Gain from which a column describes the user. Ages and zip codes of MovieLens reach 1.0; the country where a user of Frappe
is at the time, which is a context, .92."""
_GROUPS = 20  # quantile groups of a numeric column. Chosen, not tuned.
_ROWS = 100_000  # sample size


def leak_findings(dataset: Dataset, outcomes: Collection[str] = ()) -> Iterator[Finding]:
    """Warn about context columns that leak the answer, at most once a column.

    A request must supply context columns. What is known only after the item was chosen cannot be supplied, and an evaluation
    that reads it from held-out rows reports figures that the service cannot reach.

    Args:
        dataset: the interactions.
        outcomes: columns that the configuration declares as outcomes, which are skipped.
    """
    if not dataset.context_columns:
        return
    labelled = list(_label_leak_findings(dataset, outcomes))
    yield from labelled
    outcomes = {*outcomes, *(finding.column for finding in labelled)}
    events = _sample(dataset.events)
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    for name in (column for column in dataset.context_columns if column not in outcomes):
        relations = Dependence.of(user, item, events[name])
        message = ""
        if relations.of_item.exceeds(OF_ITEM):
            message = (
                f"this context nearly follows from the item ({relations.of_item.value:.0%} of what a guess leaves open) and so "
                "gives the model the answer: name it in data.item_columns and give its field side = 'item'"
            )
        elif relations.choice.exceeds(CHOICE):
            message = (
                f"the value of this context nearly determines the item ({relations.choice.value:.0%} of what user and "
                "popularity leave open): the service reaches an evaluation's figures only if a request knows it before an item "
                "is chosen"
            )
        elif word := outcome_word(name):
            message = (
                f"this context is called {word!r}, as what is known only after the interaction: name it in "
                "data.weight, data.label, data.outcome or data.events, or leave the field out"
            )
        if message:
            yield Finding("warning", message, dataset.events[name].count(), "interactions", name)


def _sample(rows: pl.DataFrame) -> pl.DataFrame:
    return rows if len(rows) <= _ROWS else rows[np.sort(np.random.default_rng(0).choice(len(rows), _ROWS, replace=False))]


def _label_leak_findings(dataset: Dataset, outcomes: Collection[str]) -> Iterator[Finding]:
    """Warn about contexts that nearly determine the label, such as dwell time."""
    if dataset.negatives is None or not len(dataset.negatives):
        return
    taken = pl.Series(np.repeat([1, 0], [len(dataset.events), len(dataset.negatives)]))
    for name in (column for column in dataset.context_columns if column not in outcomes):
        if isinstance(dataset.events.schema[name], pl.List):
            continue
        values, sample = _sample(pl.DataFrame([pl.concat([dataset.events[name], dataset.negatives[name]]), taken]))
        gain = function_gain(_group_values(values), sample.to_numpy())
        if gain.exceeds(OF_ITEM):
            message = (
                f"this context nearly says whether the item was taken ({gain.value:.0%} of what a guess leaves open): unless a "
                "request knows it, it is known only afterwards; leave the field out"
            )
            yield Finding("warning", message, len(values), "interactions", name)


def _group_values(values: pl.Series) -> Codes:
    """Return groups of equal values, or twentieths of many numbers; int [n] >= 0.

    Missing values form a separate group.
    """
    codes = encode_distinct(values) + 1
    if codes.max(initial=0) <= _GROUPS:
        return codes
    values = values.cast(pl.String) if isinstance(values.dtype, pl.Enum) else values
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() > values.null_count():
        return codes
    rank = numbers.rank("average") / max(numbers.count(), 1)
    return np.where(codes == 0, 0, 1 + (rank.fill_null(0).to_numpy() * _GROUPS).astype(np.int64))


def described_side(relations: Dependence) -> str:
    """Return which side a column describes: "item", "user", or "" for neither.

    A column of nearly one value fits both, and counts as neither.
    """
    of_item, of_user = relations.of_item.exceeds(OF_ITEM), relations.of_user.exceeds(OF_USER)
    return "" if of_item == of_user else "item" if of_item else "user"
