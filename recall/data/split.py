"""Split the interactions into training, validation and test."""

from typing import Literal

import numpy as np
import polars as pl

from recall._arrays import Bool, Float64, Int8, Int32, Int64, Integers, UInt64
from recall.config import (
    ColumnSplit,
    HashSplit,
    ItemsSplit,
    LastSplit,
    RandomSplit,
    RunConfig,
    Split,
    TimeSplit,
    UsersSplit,
)
from recall.data.times import Times
from recall.errors import ConfigError, DataError
from recall.features.canonical import named_values
from recall.features.categorical import stable_hash
from recall.features.values import examples

GIVEN = -2
"""History of a held-out user, sent with its requests; not trained or evaluated on."""
REMEMBERED = -1
"""Stored by an earlier run; not trained or evaluated on."""
TRAIN = 0
VALID = 1
TEST = 2

Parts = Int8


def order_by_user_and_time(user: Int32, times: Times | None) -> Int64:
    """Return the positions of the interactions by user, time and file order.

    Args:
        user: int32 [n].
        times: times of the n interactions; None without a time column.

    Returns:
        int64 [n].
    """
    if times is None:
        return np.argsort(user, kind="stable")
    time = times.values.to_numpy()
    users, span = int(user.max()) + 1, int(time.max()) - int(time.min()) + 1
    if times.values.dtype.is_integer() and users * span < 1 << 63:  # one key sorts twice as fast as two
        return np.argsort(user.astype(np.int64) * span + (time - time.min()), kind="stable")
    return np.lexsort((time, user))


def separate_negatives(order: Int64 | None, taken: Bool | None, n: int) -> tuple[Int64 | None, Int64, Int64]:
    """Separate the interactions from the negatives, which were shown and not taken.

    Args:
        order: int64 [n], positions of the rows by user and time; None if they are sorted already.
        taken: bool [n], False for negatives; None if there are none.
        n: number of rows.

    Returns:
        Positions of the interactions, None if these are all rows in their order; positions of the m negatives; and int64 [m],
        the number of interactions before each negative.
    """
    if taken is None:
        return order, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    order = np.arange(n) if order is None else order
    sorted_taken = taken[order]
    return order[sorted_taken], order[~sorted_taken], np.cumsum(sorted_taken, dtype=np.int64)[~sorted_taken]


def column_parts(values: pl.Series, rule: ColumnSplit, where: str) -> Parts:
    """Return the part that a column names for each interaction.

    Args:
        values: [n], the column.
        rule: names the values that mean each part.
        where: names the column in an error.

    Raises:
        DataError: A value is missing or does not name a part.
    """
    parts = {name: part for part, names in ((TRAIN, rule.train), (VALID, rule.valid), (TEST, rule.test)) for name in names}
    texts, names = named_values(values, parts)
    result = texts.replace_strict([names[name] for name in parts], list(parts.values()), default=None, return_dtype=pl.Int8)
    unknown = texts.filter(result.is_null())
    if len(unknown):
        raise DataError(
            f"{len(unknown):,} rows name no part of the split: {examples(unknown.unique().sort(nulls_last=True))}",
            where=where,
            why=f"the configuration names {', '.join(map(repr, parts))}",
            hint="Add the values to data.split.train, .valid or .test, or leave the rows out",
        )
    return result.to_numpy()


def hashed_parts(ids: pl.Series, rule: UsersSplit | ItemsSplit, seed: int) -> Parts:
    """Draw the part of each user or item by a hash of its id.

    The part depends on the id, the seed and the shares only: other ids and further interactions change nothing, and a
    change of `valid` leaves the test part unchanged.

    Args:
        ids: String [n], ids of users or items.
        rule: split by users or by items, with the shares.
        seed: seed of the hash.

    Returns:
        int8 [n], TRAIN, VALID or TEST.
    """
    drawn = np.array([stable_hash(f"{seed}:{rule.by}:{one}") for one in ids.to_list()], dtype=np.uint64) / 2.0**64
    return _parts_of_draws(drawn, rule)


def random_parts(users: UInt64, items: UInt64, rule: RandomSplit, seed: int) -> Parts:
    """Draw the part of each interaction by a hash of its user, its item and the seed.

    The part depends on these alone: other rows change nothing, and rows that repeat a pair share its part, so that no
    test pair is known from training.

    Args:
        users: uint64 [n], `id_hashes` of the user of each interaction.
        items: uint64 [n], `id_hashes` of the item of each interaction.
        rule: split with the shares.
        seed: seed of the hash.

    Returns:
        int8 [n], TRAIN, VALID or TEST.
    """
    drawn = splitmix64(splitmix64(users) ^ items ^ np.uint64(stable_hash(f"{seed}:random"))) / 2.0**64
    return _parts_of_draws(drawn, rule)


def id_hashes(ids: pl.Series) -> UInt64:
    """Return a hash of each id, uint64 [n]."""
    return np.array([stable_hash(one) for one in ids.to_list()], dtype=np.uint64)


def splitmix64(values: UInt64) -> UInt64:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood 2014).

    Each bit of the input flips each bit of the output with probability one half.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _parts_of_draws(drawn: Float64, rule: HashSplit) -> Parts:
    return np.select([drawn < rule.test, drawn < rule.test + rule.valid], [TEST, VALID], TRAIN).astype(np.int8)


def split_rows(
    config: RunConfig,
    rows: pl.DataFrame,
    times: Times | None,
    shown: pl.DataFrame,
    shown_times: Times | None,
    before: Int64,
    n_users: int,
    new_rows: Bool | Literal[True],
    new_shown: Bool | Literal[True],
) -> tuple[Parts, Parts]:
    """Split interactions and negatives.

    Args:
        config: the run.
        rows: interactions by user and time; with `split` where a column or a hash decides it.
        times: their times, if there is a time column.
        shown: negatives by user and time, in the same columns.
        shown_times: their times.
        before: int64 [m], number of interactions before each negative.
        n_users: number of users.
        new_rows: bool [n], interactions that may be moved to validation; True for all.
        new_shown: bool [m], negatives that may be.

    Returns:
        int8 [n] and int8 [m], the part of each interaction and of each negative.

    Raises:
        ConfigError: There is no time to split by, or validation would start after the test.
    """
    data, user = config.data, rows["user"].to_numpy()
    if "split" in rows.columns:
        parts, shown_parts = rows["split"].to_numpy(), shown["split"].to_numpy()
        if isinstance(data.split, UsersSplit) and times is not None:
            parts = mark_given(parts, user, data.split.given)
    else:
        starts = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=n_users))])
        parts = sorted_parts(starts, times, data.split)
        if isinstance(data.split, TimeSplit) and times is not None and shown_times is not None:
            shown_parts = time_parts(shown_times, times, data.split)
        else:
            shown_parts = parts_of_next(shown["user"].to_numpy(), before, starts, parts)
    parts = carve_last(parts, data.carve_last, user, new_rows)
    carved = carve(parts, data.carve, config.seed, new_rows)
    return carved, shown_parts if carved is parts else carve(shown_parts, data.carve, config.seed, new_shown)


def earlier_rows(user: Integers) -> Int64:
    """Return the number of earlier interactions of the user of each interaction.

    Args:
        user: integer [n], ascending; the interactions of a user are sorted by time.

    Returns:
        int64 [n].
    """
    return np.arange(len(user)) - np.searchsorted(user, user, side="left")


def later_rows(user: Integers) -> Int64:
    """Return the number of later interactions of the user, as `earlier_rows`."""
    return np.searchsorted(user, user, side="right") - 1 - np.arange(len(user))


def mark_given(parts: Parts, user: Integers, share: float) -> Parts:
    """Mark the oldest interactions of each held-out user as GIVEN, but never all.

    Args:
        parts: int8 [n], equal for all interactions of a user.
        user: integer [n], ascending; the interactions of a user are sorted by time.
        share: share of a user's interactions, in [0, 1); rounded down.
    """
    earlier = earlier_rows(user)
    is_early = earlier < np.floor(share * (earlier + 1 + later_rows(user)))
    return np.where((parts > TRAIN) & is_early, np.int8(GIVEN), parts)


def sorted_parts(starts: Int64, times: Times | None, rule: Split) -> Parts:
    """Return the part of each interaction by its position or its time.

    Args:
        starts: int64 [users + 1]; interactions of user u, oldest first, are rows starts[u] to starts[u + 1].
        times: times of the n interactions in that order; required by a split by last interactions or by time.
        rule: a split by last interactions or by time; see `column_parts` and `hashed_parts` for others.

    Raises:
        ConfigError: There is no time to split by, or validation would start after the test.
    """
    if times is None and isinstance(rule, LastSplit | TimeSplit):
        raise ConfigError(
            f"a split by {rule.by!r} needs to know the time of each interaction",
            where="data.split",
            hint="Name the time column in data.time",
        )
    if isinstance(rule, TimeSplit) and times is not None:
        return time_parts(times, times, rule)
    parts = np.full(starts[-1], TRAIN, dtype=np.int8)
    if isinstance(rule, LastSplit):
        for from_end in range(1, rule.valid + rule.test + 1):  # 1 for a user's last
            places = (starts[1:] - from_end)[np.diff(starts) >= from_end]
            parts[places] = TEST if from_end <= rule.test else VALID
    return parts


def parts_of_next(user: Int32, before: Int64, starts: Int64, parts: Parts) -> Parts:
    """Return the part of each negative: that of its user's next interaction.

    If none follows, it is the part of the user's last interaction; negatives of a user without interactions train.

    Args:
        user: int32 [m], user of each negative.
        before: int64 [m], number of interactions, sorted by user and time, before each negative.
        starts: argument of `sorted_parts`.
        parts: result of `sorted_parts`, int8 [n].
    """
    first, end = starts[user], starts[user + 1]
    nearest = np.clip(np.minimum(before, end - 1), 0, None)
    return np.where(first < end, parts[nearest], np.int8(TRAIN))


def carve(parts: Parts, share: float, seed: int, carvable: Bool | Literal[True] = True) -> Parts:
    """Move a random share of the training interactions to validation.

    Nothing changes if the split has a validation part already.

    Args:
        parts: int8 [n].
        share: share of the training interactions.
        seed: seed of the draw.
        carvable: bool [n], interactions that may be drawn; True for all.
    """
    if share == 0 or (parts == VALID).any():
        return parts
    train = np.flatnonzero((parts == TRAIN) & carvable)
    drawn = np.random.default_rng(seed).choice(train, round(share * len(train)), replace=False, shuffle=False)
    return _move_to_validation(parts, drawn)


def carve_last(parts: Parts, count: int, user: Integers, carvable: Bool | Literal[True] = True) -> Parts:
    """Move the last training interactions of each user to validation, but never all.

    Nothing changes if the split has a validation part already.

    Args:
        parts: int8 [n].
        count: maximum number of interactions of each user.
        user: integer [n], ascending; the interactions of a user are sorted by time.
        carvable: bool [n], interactions that may be moved; True for all.
    """
    if count == 0 or (parts == VALID).any():
        return parts
    train = np.flatnonzero((parts == TRAIN) & carvable)
    return _move_to_validation(parts, train[(later_rows(user[train]) < count) & (earlier_rows(user[train]) > 0)])


def _move_to_validation(parts: Parts, chosen: Int64) -> Parts:
    carved = parts.copy()
    carved[chosen] = VALID
    return carved


def time_parts(times: Times, interactions: Times, rule: TimeSplit) -> Parts:
    """Return the part of each row by its time.

    Args:
        times: times of m interactions or negatives.
        interactions: times of all interactions, of which a bound in (0, 1) is a quantile.
        rule: the bounds of the parts.

    Raises:
        ConfigError: Validation would start after the test.
    """
    test = _threshold(interactions, rule.test)
    valid = test if rule.valid is None else _threshold(interactions, rule.valid)
    if valid > test:
        raise ConfigError(
            f"validation would start at {rule.valid}, after the test at {rule.test}",
            where="data.split.valid",
            hint="Give an earlier time or a smaller share",
        )
    values = times.values.to_numpy()
    parts = np.full(len(values), TRAIN, dtype=np.int8)
    parts[values >= valid] = VALID
    parts[values >= test] = TEST
    return parts


def _threshold(times: Times, bound: float) -> float:
    """Return a bound in the unit of the times: a quantile of them, or a time."""
    if not 0 < bound < 1:
        return bound * times.unit
    position = int(bound * len(times.values))
    return float(np.partition(times.values.to_numpy(), position)[position])
