"""Context columns that tell the model which item is asked for, or how it turned out."""

from collections.abc import Collection, Iterator

import numpy as np
import polars as pl

from recall.data.dataset import Dataset
from recall.data.dependence import Codes, Relations, codes_of, function_gain
from recall.data.findings import Finding
from recall.data.outcome_names import outcome_word

OF_ITEM = 0.8
"""A column is nearly a function of the item from here on. Titles, years and genres of MovieLens and costs of Frappe reach 1.0,
prices with a spread of a twentieth .97; the contexts of Frappe (hour, weather, city) stay below .08, ratings below .2."""
CHOICE = 0.3
"""A value nearly determines the item from here on: a title reaches .99, genres .25, the contexts of Frappe .001."""
OF_USER = 0.95
"""A column describes the user from here on. Ages and zip codes of MovieLens reach 1.0; the country
that a user of Frappe is in at the time .92."""
_GROUPS = 20
_ROWS = 100_000  # drawn, where there are more


def leaks(dataset: Dataset, outcomes: Collection[str] = ()) -> Iterator[Finding]:
    """Warnings about the context columns of a data set, one for each column at most.

    A request must bring what these columns hold. What is known only after the item was chosen cannot be brought, and an
    evaluation that reads it from the held-out row gives figures that the service cannot reach.

    Args:
        dataset: the interactions.
        outcomes: columns that the configuration itself calls outcomes; nothing is said of them.
    """
    if not dataset.context_columns:
        return
    labelled = list(_of_labels(dataset, outcomes))
    yield from labelled
    outcomes = {*outcomes, *(finding.column for finding in labelled)}
    events = dataset.events
    if len(events) > _ROWS:
        events = events[np.sort(np.random.default_rng(0).choice(len(events), _ROWS, replace=False))]
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    for name in (column for column in dataset.context_columns if column not in outcomes):
        found = Relations.of(user, item, events[name])
        message = ""
        if found.of_item.low > OF_ITEM / 2 and found.of_item.value >= OF_ITEM:
            message = (
                f"this context nearly follows from the item ({found.of_item.value:.0%} of what a guess leaves open), so that "
                "it tells the model what is to be found: name it in data.item_columns and give its field side = 'item'"
            )
        elif found.choice.low > CHOICE / 2 and found.choice.value >= CHOICE:
            message = (
                f"the value of this context nearly determines the item ({found.choice.value:.0%} of what user and popularity "
                "leave open): an evaluation's figures can be had in service only if a request knows it before an item is chosen"
            )
        elif word := outcome_word(name):
            message = (
                f"this context is called {word!r}, as what is known only once the interaction has happened: name it in "
                "data.weight, data.label, data.outcome or data.events, or leave the field out"
            )
        if message:
            yield Finding(
                "warning", "interactions", name, message, int(len(dataset.events) - dataset.events[name].null_count())
            )


def _of_labels(dataset: Dataset, outcomes: Collection[str]) -> Iterator[Finding]:
    """Contexts that nearly say whether the row was taken, such as the seconds that a page stayed open after a click."""
    if dataset.negatives is None or not len(dataset.negatives):
        return
    for name in (column for column in dataset.context_columns if column not in outcomes):
        values = pl.concat([dataset.events[name], dataset.negatives[name]])
        if isinstance(values.dtype, pl.List):
            continue
        taken = np.repeat([1, 0], [len(dataset.events), len(dataset.negatives)])
        if len(values) > _ROWS:
            drawn = np.sort(np.random.default_rng(0).choice(len(values), _ROWS, replace=False))
            values, taken = values.gather(drawn), taken[drawn]
        gain = function_gain(_grouped(values), taken)
        if gain.value >= OF_ITEM and gain.low > OF_ITEM / 2:
            message = (
                f"this context nearly says whether the item was taken ({gain.value:.0%} of what a guess leaves open): unless a "
                "request knows it, it is known only afterwards; leave the field out"
            )
            yield Finding("warning", "interactions", name, message, len(values))


def _grouped(values: pl.Series) -> Codes:
    """A number for each value, of many numbers for each twentieth of them; the missing ones are a group: int [n] >= 0."""
    codes = codes_of(values) + 1
    if codes.max(initial=0) <= _GROUPS:
        return codes
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() > values.null_count():
        return codes
    rank = numbers.rank("average") / max(len(numbers) - numbers.null_count(), 1)
    return np.where(codes == 0, 0, 1 + (rank.fill_null(0).to_numpy() * _GROUPS).astype(np.int64))


def determined(relations: Relations) -> str:
    """Whose property a column is: "item", "user", or "" for neither (or both, which is a column of nearly one value)."""
    of_item, of_user = (
        gain.value >= threshold and gain.low > threshold / 2
        for gain, threshold in ((relations.of_item, OF_ITEM), (relations.of_user, OF_USER))
    )
    return "" if of_item == of_user else "item" if of_item else "user"
