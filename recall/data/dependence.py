"""How far one column of a table is a function of another, estimated so that few rows do not look like a rule.

Every row is predicted from the *other* rows of its group (leave-one-out), so that a column of noise gains nothing however many
values it has, and what is reported is the share of the way from a guess without the group to a sure prediction.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float64
from recall.features.values import Distinct

Codes = npt.NDArray[np.integer]

_FEWEST = 20  # rows in groups of at least two: below, only a rule without exception counts
_CHANCE = 1e-3  # that a column of noise keeps a rule without exception in so few rows
_SIGMAS = 3.0


@dataclass(frozen=True, slots=True)
class Gain:
    """What a group tells of a row.

    Attributes:
        value: 1 where the group determines the row, 0 where it tells nothing beyond a guess; may be below 0.
        low: lower bound of `value`, three standard errors below.
        rows: number of rows that could be predicted.
    """

    value: float
    low: float
    rows: int


NOTHING = Gain(0.0, 0.0, 0)


def codes_of(values: pl.Series) -> npt.NDArray[np.int32]:
    """A number for each distinct value, int32 [n]; -1 for a missing one."""
    codes = Distinct.of(values).codes
    return np.where(values.is_null().to_numpy(), np.int32(-1), codes)


def hits(groups: Codes, values: Codes) -> Float64:
    """Whether the most frequent value among the other rows of its group is that of the row: float64 [n].

    Args:
        groups: integer [n] >= 0.
        values: integer [n] >= 0.

    Returns:
        1 for a hit, 0 for a miss, 0.5 where another value is as frequent; NaN for a row that is alone in its group.
    """
    width = int(values.max(initial=0)) + 1
    pairs, of_row, count = np.unique(groups.astype(np.int64) * width + values, return_inverse=True, return_counts=True)
    group = pairs // width
    order = np.lexsort((count, group))
    starts = np.flatnonzero(np.append(True, np.diff(group[order]) > 0))
    ends = np.append(starts[1:], len(order)) - 1
    second = np.where(ends > starts, count[order[ends - 1]], 0)
    place = np.repeat(np.arange(len(starts)), ends - starts + 1)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = place
    best = order[ends][rank]  # of each pair, the most frequent pair of its group
    rival = np.where(best == np.arange(len(pairs)), second[rank], count[best])
    size = np.bincount(rank, weights=count)[rank]
    own = count - 1
    hit = np.where(own > rival, 1.0, np.where((own == rival) & (own > 0), 0.5, 0.0))
    return np.where(size > 1, hit, np.nan)[of_row]


def function_gain(groups: Codes, values: Codes) -> Gain:
    """How far a value is a function of its group, beyond the value that most rows have.

    Args:
        groups: integer [n] >= 0.
        values: integer [n] >= 0.
    """
    if not len(values):
        return NOTHING
    hit = hits(groups, values)
    seen = ~np.isnan(hit)
    again = int(seen.sum()) - len(np.unique(groups[seen]))  # rows that could have contradicted the first of their group
    if 0 < seen.sum() < _FEWEST and (hit[seen] == 1).all():
        alike = float(np.square(np.bincount(values) / len(values)).sum())
        return Gain(1.0, 1.0, int(seen.sum())) if alike**again < _CHANCE else NOTHING
    return _gain(hit[seen], hits(np.zeros(len(values), dtype=np.int64), values)[seen])


def number_gain(groups: Codes, values: Float64) -> Gain:
    """How far a number is a function of its group: the share of the variance of its ranks that the group explains.

    Args:
        groups: integer [n] >= 0.
        values: float64 [n] without NaN.
    """
    rank = pl.Series(values, dtype=pl.Float64).rank("average").to_numpy()
    if len(rank) < _FEWEST:
        return NOTHING
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    seen = size[group] > 1
    if seen.sum() < _FEWEST or rank.std() == 0:
        return NOTHING
    total = np.bincount(group, weights=rank)[group]
    error = (rank - (total - rank) / np.maximum(size[group] - 1, 1))[seen] ** 2
    spread = (rank - rank.mean())[seen] ** 2
    scale = float(spread.mean())
    if scale == 0:
        return NOTHING
    gained = (spread - error) / scale
    return Gain(float(gained.mean()), float(gained.mean() - _SIGMAS * gained.std() / np.sqrt(len(gained))), len(gained))


def choice_gain(values: Codes, items: Codes, users: Codes) -> Gain:
    """How far a value determines the item, beyond what the user and the most popular item do.

    Args:
        values, items, users: integer [n] >= 0.
    """
    if len(values) < _FEWEST:
        return NOTHING
    popular = hits(np.zeros(len(items), dtype=np.int64), items)
    by_value, by_user = (np.where(np.isnan(hit), popular, hit) for hit in (hits(values, items), hits(users, items)))
    return _gain(by_value, popular if popular.mean() >= by_user.mean() else by_user)


@dataclass(frozen=True, slots=True)
class Relations:
    """How a column of the interactions hangs together with their users and items.

    Attributes:
        of_item: how far the item determines the value.
        of_user: how far the user determines the value.
        choice: how far the value determines the item.
    """

    of_item: Gain
    of_user: Gain
    choice: Gain

    @staticmethod
    def of(users: Codes, items: Codes, values: pl.Series) -> "Relations":
        """Of n interactions.

        Rows that repeat user, item and value count once, so that a user who comes back to one item proves nothing.

        Args:
            users, items: integer [n] >= 0.
            values: [n]; where they are numbers an item may determine them nearly, as ranks.
        """
        frame = pl.DataFrame({"user": users, "item": items, "value": codes_of(values)}).with_row_index("row")
        frame = frame.filter(pl.col("value") >= 0).unique(["user", "item", "value"], keep="first", maintain_order=True)
        user, item, value = (frame[name].to_numpy() for name in ("user", "item", "value"))
        of_item, of_user = function_gain(item, value), function_gain(user, value)
        if values.dtype.is_numeric():  # of users only equal values count: numbers of visits rise with those of new users
            numbers = values.gather(frame["row"]).cast(pl.Float64).to_numpy()
            of_item = max(of_item, number_gain(item, numbers), key=lambda gain: gain.low)
        return Relations(of_item, of_user, choice_gain(value, item, user))


def _gain(hit: Float64, base: Float64) -> Gain:
    room = 1 - float(base.mean()) if len(base) else 0.0
    if len(hit) < _FEWEST or room <= 0:
        return NOTHING
    gained = hit - base
    mean, error = float(gained.mean()), float(gained.std()) / np.sqrt(len(gained))
    return Gain(mean / room, (mean - _SIGMAS * error) / room, len(gained))
