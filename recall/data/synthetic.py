"""Generate a synthetic shop whose true preferences are known.

A model can be compared with the truth behind its data. Every interaction is one choice by softmax over the utility

    popularity[item] + <taste[user] + device[d] + daypart[h] + successor[previous item], style[item]>

which is a factorization machine over the columns of the tables plus a part of each user and item that no column
shows. A user chooses an item at most once. Some values are removed from the tables after the choices were made.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float32, Int32, Int64, UInt8
from recall.data.synthetic_catalogue import (
    CATEGORIES,
    DAYPARTS,
    DEVICES,
    FACTORS,
    HOURS,
    make_items,
    make_users,
    remove_values,
    standard_normal,
    standardized,
)
from recall.errors import ConfigError

_POPULARITY, _TASTE, _CONTEXT, _SEQUENCE = 0.9, 2.1, 0.9, 1.5  # standard deviations of the parts of the utility
_DAYS = 365
_START, _SPAN = 20_089 * 86_400, _DAYS * 86_400  # 2025-01-01, in seconds since 1970, and a year
_POSITION = 38  # bits of the position of an event, beside those of its second within a year
_CELLS = 1 << 22  # utilities computed at a time: 16 MB
_AT_ONCE = 1 << 18  # events drawn at a time: new memory took the kernel 4 CPU seconds more at 10^7 events


@dataclass(frozen=True, slots=True)
class SyntheticConfig:
    """Size of the shop.

    Attributes:
        users: number of users.
        items: number of items.
        interactions: number of choices.
        considered: each choice is among this many items drawn by popularity, or among all if there are fewer; a large
            catalogue takes time and memory proportional to interactions * considered.
        seed: seed of the random generator.
    """

    users: int = 2_000
    items: int = 1_500
    interactions: int = 60_000
    considered: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("users", "items", "interactions", "considered"):
            if getattr(self, name) < 1:
                raise ConfigError("a size must be at least 1", where=name, hint=f"Give a larger number for {name}")
        if self.interactions > self.users * (self.items // 2):
            raise ConfigError(
                f"{self.users:,} users and {self.items:,} items cannot have {self.interactions:,} interactions",
                where="interactions",
                why="a user chooses an item at most once, and half of all pairs is the limit",
                hint="Ask for fewer interactions, or for more users or items",
            )


@dataclass(frozen=True, slots=True)
class Truth:
    """The utility that the choices were drawn from.

    Row r belongs to row r of the users or items table.

    Attributes:
        popularity: float32 [items].
        style: float32 [items, d].
        taste: float32 [users, d].
        device: float32 [devices, d], in the order of `DEVICES`.
        daypart: float32 [dayparts, d], in the order of `DAYPARTS`.
        successor: float32 [items + 1, d]; the last row is zero and means no previous item.
    """

    popularity: Float32
    style: Float32
    taste: Float32
    device: Float32
    daypart: Float32
    successor: Float32

    def item_vectors(self) -> Float32:
        """Return popularity followed by style, [items, d + 1]."""
        return np.hstack([self.popularity[:, None], self.style])

    def user_vectors(self, users: Int64, devices: Int64, dayparts: Int64, previous: Int64) -> Float32:
        """Return one followed by the weights of the style, [n, d + 1].

        Args:
            users: rows, int64 [n].
            devices: rows, int64 [n].
            dayparts: rows, int64 [n].
            previous: item rows, int64 [n]; -1 for none.
        """
        query = self.taste[users] + self.device[devices] + self.daypart[dayparts] + self.successor[previous]
        return np.hstack([np.ones((len(users), 1), dtype=np.float32), query])


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Tables as a shop would export them, in order of time, and the truth behind them."""

    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    truth: Truth

    def write(self, folder: Path, suffix: str = ".parquet") -> None:
        """Write the tables and a recall.toml.

        Args:
            folder: must exist.
            suffix: .parquet, or .csv with bags cut by "|".
        """
        config = files("recall.data").joinpath("shop.toml").read_text(encoding="utf-8")
        (folder / "recall.toml").write_text(config.replace(".parquet", suffix), encoding="utf-8")
        for name, table in (("interactions", self.interactions), ("users", self.users), ("items", self.items)):
            path = folder / f"{name}{suffix}"
            if suffix == ".csv":
                bags = [column for column, dtype in table.schema.items() if dtype == pl.List(pl.String)]
                table.with_columns(pl.col(bags).list.join("|")).write_csv(path)
            else:
                table.write_parquet(path)


def generate(config: SyntheticConfig) -> Synthetic:
    """Generate the shop; deterministic for a configuration."""
    random = np.random.default_rng(config.seed)
    with ThreadPoolExecutor(1) as beside:
        if config.considered < config.items:
            beside.submit(import_module, "recall.data.synthetic_kernels")  # takes most of a second
        category_styles = standard_normal(random, len(CATEGORIES))
        items, style = make_items(config.items, random, category_styles)
        users, taste = make_users(config.users, random, category_styles)
        truth = _draw_truth(random, style, taste, items["year"].to_numpy())
        events = _draw_events(config, random)
        sorting = beside.submit(_order_by_time, events.time)
        chosen = _draw_choices(config, random, truth, events)
        order = sorting.result()
    interactions = _sorted_rows(order[chosen[order] >= 0], events, chosen, users["user_id"], items["item_id"])
    users = remove_values(random, users, {"age": 0.04, "gender": 0.03})
    items = remove_values(random, items, {"brand": 0.02, "price": 0.03})
    return Synthetic(interactions, users, items, truth)


def _order_by_time(time: Int64) -> Int64:
    """Return the positions of events by time, then position: int64 [n]."""
    order = time - _START
    order <<= _POSITION
    order += np.arange(len(time))
    order.sort()
    order &= (1 << _POSITION) - 1
    return order


def _sorted_rows(order: Int64, events: "_Events", chosen: Int32, user_ids: pl.Series, item_ids: pl.Series) -> pl.DataFrame:
    """Return the table of the events at some positions, int64 [m]."""
    columns = {
        "user": events.user,
        "item": chosen,
        "time": events.time,
        "device": events.device,
        "daypart": events.daypart,
    }
    rows = pl.DataFrame(columns)[order]  # polars gathers the columns in parallel, here and below
    return rows.select(
        pl.lit(user_ids).gather("user").alias("user_id"),
        pl.lit(item_ids).gather("item").alias("item_id"),
        "time",
        pl.lit(pl.Series(DEVICES)).gather("device").alias("device"),
        pl.lit(pl.Series(DAYPARTS)).gather("daypart").alias("daypart"),
    )


def _draw_truth(random: np.random.Generator, style: Float32, taste: Float32, year: Int64) -> Truth:
    rank = random.permutation(len(style)) + 1
    popularity = standardized(-np.log(rank + 10.0) + 0.15 * standardized(year))
    spread = style.T @ style / np.float32(len(style))
    rotation = 0.8 * np.eye(FACTORS, dtype=np.float32) + 0.5 * standard_normal(
        random, FACTORS
    )  # the next item resembles the previous one, rotated
    successor = _scaled(style @ rotation, spread, _SEQUENCE)
    return Truth(
        popularity=(_POPULARITY * popularity).astype(np.float32),
        style=style.astype(np.float32),
        taste=_scaled(taste, spread, _TASTE),
        device=_scaled(standard_normal(random, len(DEVICES)), spread, _CONTEXT),
        daypart=_scaled(standard_normal(random, len(DAYPARTS)), spread, _CONTEXT),
        successor=np.vstack([successor, np.zeros((1, FACTORS), dtype=np.float32)]),
    )


@dataclass(frozen=True, slots=True)
class _Events:
    """When and where each choice is made, by user, then time.

    Attributes:
        start: int64 [users + 1], the first event of each user.
        user: int32 [n].
        time: int64 [n], seconds since 1970.
        device: uint8 [n], in `DEVICES`.
        daypart: uint8 [n], in `DAYPARTS`.
    """

    start: Int64
    user: Int32
    time: Int64
    device: UInt8
    daypart: UInt8


def _draw_events(config: SyntheticConfig, random: np.random.Generator) -> _Events:
    most = min(config.items // 2, 50 * -(-config.interactions // config.users))
    activity = random.lognormal(0.0, 0.8, config.users)
    counts = np.minimum(np.floor(activity / activity.sum() * config.interactions).astype(np.int64), most)
    while (missing := config.interactions - int(counts.sum())) > 0:  # rounding and the cap leave a few to distribute
        open_ = np.flatnonzero(counts < most)
        counts[random.permutation(open_)[:missing]] += 1
    start = np.concatenate([[0], np.cumsum(counts)])
    user = np.repeat(np.arange(config.users, dtype=np.int32), counts)
    n = len(user)
    joined = random.random(config.users) * 0.8 * _DAYS
    time, device, daypart = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.uint8), np.empty(n, dtype=np.uint8)
    pieces = [slice(first, min(first + _AT_ONCE, n)) for first in range(0, n, _AT_ONCE)]
    for piece in pieces:
        since = joined[user[piece]]
        day = np.floor(since + random.random(len(since)) * (_DAYS - since)).astype(np.int64)
        time[piece] = user[piece] * np.int64(_SPAN) + day * 86_400
    for piece in pieces:
        time[piece] += random.choice(24, piece.stop - piece.start, p=HOURS) * 3_600
    for piece in pieces:
        time[piece] += random.integers(0, 3_600, piece.stop - piece.start)
    time.sort()  # by user, then time: one sort of values, not of positions
    for piece in pieces:
        time[piece] %= _SPAN
        daypart[piece] = time[piece] % 86_400 // 21_600
        time[piece] += _START
        device[piece] = random.random(piece.stop - piece.start) < np.where(daypart[piece] == 3, 0.7, 0.3)  # at home
    for piece in pieces:
        device[piece] *= random.integers(1, len(DEVICES), piece.stop - piece.start).astype(np.uint8)
    return _Events(start, user, time, device, daypart)


def _draw_choices(config: SyntheticConfig, random: np.random.Generator, truth: Truth, events: _Events) -> Int32:
    """Draw the item row of each event, int32 [n]; -1 where a user finds nothing new."""
    if config.considered < config.items:
        return _draw_choices_from_offers(config, truth, events)
    counts = np.diff(events.start)
    by_activity = np.argsort(
        -counts, kind="stable"
    )  # a block holds users of similar activity, the most active first, so that those still choosing are a prefix
    uniform = random.random(len(events.user), dtype=np.float32)
    chosen = np.full(len(events.user), -1, dtype=np.int32)
    block = max(1, _CELLS // config.items)
    for first in range(0, config.users, block):
        users = by_activity[first : first + block]
        base = truth.taste[users] @ truth.style.T + truth.popularity
        previous = np.full(len(users), -1, dtype=np.int64)
        for step in range(counts[users[0]]):
            active = int(np.searchsorted(-counts[users], -step, side="left"))
            at = events.start[users[:active]] + step
            query = truth.device[events.device[at]] + truth.daypart[events.daypart[at]] + truth.successor[previous[:active]]
            picked = _draw_columns(np.add(base[:active], query @ truth.style.T, dtype=np.float32), uniform[at])
            base[np.arange(active), picked] = -np.inf
            chosen[at] = picked
            previous[:active] = picked
    return chosen


def _draw_choices_from_offers(config: SyntheticConfig, truth: Truth, events: _Events) -> Int32:
    from recall.data.synthetic_kernels import choose  # numba takes half a second to import

    kept, alias = alias_table(np.exp(truth.popularity, dtype=np.float64))
    aliases = np.stack([np.ceil(kept * np.float32(1 << 24)).astype(np.int32), alias], axis=1)  # one access to memory for both
    chosen = np.empty(len(events.user), dtype=np.int32)
    tables = (truth.style, truth.taste, truth.device, truth.daypart, truth.successor)
    fixed = (np.uint64(config.seed), config.considered, events.start, events.device, events.daypart, aliases)
    bounds = np.searchsorted(events.start, np.linspace(0, len(chosen), 8 * (os.cpu_count() or 1) + 1)).tolist()
    bounds[0], bounds[-1] = 0, config.users
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda ends: choose(*ends, *fixed, *tables, chosen), pairwise(bounds)))
    return chosen


def alias_table(weights: npt.NDArray[np.float64]) -> tuple[Float32, npt.NDArray[np.int32]]:
    """Return the tables of the alias method (Vose 1991).

    Args:
        weights: float64 [n], positive.

    Returns:
        float32 [n], the probability that an entry is kept when it is drawn, and int32 [n], what replaces it otherwise.
    """
    scaled = (weights * (len(weights) / weights.sum())).tolist()
    small = [row for row, weight in enumerate(scaled) if weight < 1]
    large = [row for row, weight in enumerate(scaled) if weight >= 1]
    alias = list(range(len(scaled)))
    while small and large:
        less, more = small.pop(), large[-1]
        alias[less] = more
        scaled[more] -= 1 - scaled[less]
        if scaled[more] < 1:
            small.append(large.pop())
    for row in (*small, *large):  # 1 up to rounding
        scaled[row] = 1.0
    return np.array(scaled, dtype=np.float32), np.array(alias, dtype=np.int32)


def _draw_columns(utility: Float32, uniform: Float32) -> Int64:
    """Draw a column of each row [n, c] with probability softmax(utility).

    `uniform` is uniform [n]. Overwrites `utility`.
    """
    utility -= utility.max(axis=1, keepdims=True)
    np.exp(utility, out=utility)
    np.cumsum(utility, axis=1, out=utility)
    below = np.count_nonzero(utility < (uniform * utility[:, -1])[:, None], axis=1)
    column: Int64 = np.minimum(below, utility.shape[1] - 1)
    return column


def _scaled(vectors: Float32, spread: Float32, deviation: float) -> Float32:
    """Scale `vectors` so that their products with styles have this standard deviation.

    `spread` is the second moment of the styles.
    """
    size = np.sqrt(np.einsum("nd,de,ne->n", vectors, spread, vectors).mean())
    scaled: Float32 = (vectors * (deviation / size)).astype(np.float32)
    return scaled
