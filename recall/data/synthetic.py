"""Generate a synthetic shop whose true preferences are known.

A model can be compared with the truth behind its data. Every interaction is one choice by softmax over the utility

    popularity[item] + <taste[user] + device[d] + daypart[h] + successor[previous item], style[item]>

which is a factorization machine over the columns of the tables plus a part of each user and item that no column
shows. A user chooses an item at most once. Some values are removed from the tables after the choices were made.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float32, Float64, Int64
from recall.data.synthetic_words import CATEGORIES, COUNTRIES, DAYPARTS, DEVICES, GENDERS, HOURS, TAGS, brand_names
from recall.errors import ConfigError

_FACTORS = 8
_POPULARITY, _TASTE, _CONTEXT, _SEQUENCE = 0.9, 2.1, 0.9, 1.5  # standard deviations of the parts of the utility
_FIRST_DAY, _DAYS = 20_089, 365  # 2025-01-01, in days since 1970
_CELLS = 1 << 22  # utilities computed at a time: 16 MB


@dataclass(frozen=True, slots=True)
class SyntheticConfig:
    """Size of the shop.

    Attributes:
        users: number of users.
        items: number of items.
        interactions: number of choices.
        considered: each choice is among this many items drawn by popularity, or among all if there are fewer; a large
            catalogue takes time and memory proportional to interactions * considered.
        seed: of the random generator.
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
    category_styles = _normal(random, len(CATEGORIES))
    items, style = _items(config, random, category_styles)
    users, taste = _users(config, random, category_styles)
    truth = _truth(random, style, taste, items["year"].to_numpy())
    events = _events(config, random)
    chosen = _choices(config, random, truth, events)
    kept = chosen >= 0
    interactions = pl.DataFrame(
        {
            "user_id": users["user_id"].gather(events.user[kept]),
            "item_id": items["item_id"].gather(chosen[kept]),
            "time": events.time[kept],
            "device": pl.Series(DEVICES).gather(events.device[kept]),
            "daypart": pl.Series(DAYPARTS).gather(events.daypart[kept]),
        }
    ).sort("time", maintain_order=True)
    users = _blank(random, users, {"age": 0.04, "gender": 0.03})
    items = _blank(random, items, {"brand": 0.02, "price": 0.03})
    return Synthetic(interactions, users, items, truth)


def _items(config: SyntheticConfig, random: np.random.Generator, category_styles: Float32) -> tuple[pl.DataFrame, Float32]:
    n, n_brands = config.items, max(8, config.items // 25)
    category = random.choice(len(CATEGORIES), n, p=_zipf(len(CATEGORIES), 0.7))
    home = random.integers(0, len(CATEGORIES), n_brands)  # a brand belongs to one category
    by_home = [np.flatnonzero(home == number) for number in range(len(CATEGORIES))]
    brand = random.integers(0, n_brands, n)
    for number, brands in enumerate(by_home):
        own = np.flatnonzero((category == number) & (random.random(n) < 0.85))
        if len(brands):
            brand[own] = random.choice(brands, len(own))
    tags = _bags(random, category, len(TAGS), mean=3.0, spread=6.0)
    year = 2025 - np.minimum(random.geometric(0.18, n) - 1, 25)
    tier = random.normal(0, 0.4, n_brands)
    log_price = random.normal(2.5, 0.7, len(CATEGORIES))[category] + tier[brand] + random.normal(0, 0.4, n)
    price_style, year_style = _normal(random, 2)
    style = (
        1.0 * category_styles[category]
        + 0.6 * _normal(random, n_brands)[brand]
        + 0.6 * _sums(tags, _normal(random, len(TAGS)), n)
        + 0.4 * _standard(log_price)[:, None] * price_style
        + 0.3 * _standard(year)[:, None] * year_style
        + 0.4 * _normal(random, n)
    )
    table = pl.DataFrame(
        {
            "item_id": _ids("i", random.permutation(n)),
            "category": pl.Series(CATEGORIES).gather(category),
            "brand": brand_names(n_brands).gather(brand),
            "tags": _lists(tags, TAGS, n),
            "price": np.round(np.exp(log_price), 2),
            "year": year,
        }
    )
    return table, style - style.mean(axis=0)


def _users(config: SyntheticConfig, random: np.random.Generator, category_styles: Float32) -> tuple[pl.DataFrame, Float32]:
    n = config.users
    age = np.clip(np.round(16 + random.gamma(4.0, 6.5, n)), 16, 90)
    gender = random.choice(len(GENDERS), n, p=(0.48, 0.48, 0.04))
    country = random.choice(len(COUNTRIES), n, p=_zipf(len(COUNTRIES), 1.0))
    interests = _bags(random, country * len(GENDERS) + gender, len(CATEGORIES), mean=1.6, spread=2.0)
    (age_style,) = _normal(random, 1)
    taste = (
        0.5 * _standard(age)[:, None] * age_style
        + 0.4 * _normal(random, len(GENDERS))[gender]
        + 0.5 * _normal(random, len(COUNTRIES))[country]
        + 0.8 * _sums(interests, category_styles, n)
        + 0.6 * _normal(random, n)
    )
    table = pl.DataFrame(
        {
            "user_id": _ids("u", random.permutation(n)),
            "age": age.astype(np.int64),
            "gender": pl.Series(GENDERS).gather(gender),
            "country": pl.Series(COUNTRIES).gather(country),
            "interests": _lists(interests, CATEGORIES, n),
        }
    )
    return table, taste


def _truth(random: np.random.Generator, style: Float32, taste: Float32, year: Int64) -> Truth:
    rank = random.permutation(len(style)) + 1
    popularity = _standard(-np.log(rank + 10.0) + 0.15 * _standard(year))
    spread = style.T @ style / np.float32(len(style))
    turn = 0.8 * np.eye(_FACTORS, dtype=np.float32) + 0.5 * _normal(
        random, _FACTORS
    )  # the next item resembles the previous one, rotated
    successor = _scaled(style @ turn, spread, _SEQUENCE)
    return Truth(
        popularity=(_POPULARITY * popularity).astype(np.float32),
        style=style.astype(np.float32),
        taste=_scaled(taste, spread, _TASTE),
        device=_scaled(_normal(random, len(DEVICES)), spread, _CONTEXT),
        daypart=_scaled(_normal(random, len(DAYPARTS)), spread, _CONTEXT),
        successor=np.vstack([successor, np.zeros((1, _FACTORS), dtype=np.float32)]),
    )


@dataclass(frozen=True, slots=True)
class _Events:
    """When and where each choice is made, int64 [n] each, by user, then time.

    `start` is int64 [users + 1].
    """

    start: Int64
    user: Int64
    time: Int64
    device: Int64
    daypart: Int64


def _events(config: SyntheticConfig, random: np.random.Generator) -> _Events:
    most = min(config.items // 2, 50 * -(-config.interactions // config.users))
    activity = random.lognormal(0.0, 0.8, config.users)
    counts = np.minimum(np.floor(activity / activity.sum() * config.interactions).astype(np.int64), most)
    while (missing := config.interactions - int(counts.sum())) > 0:  # rounding and the cap leave a few to distribute
        open_ = np.flatnonzero(counts < most)
        counts[random.permutation(open_)[:missing]] += 1
    start = np.concatenate([[0], np.cumsum(counts)])
    user = np.repeat(np.arange(config.users), counts)
    n = len(user)
    joined = random.random(config.users) * 0.8 * _DAYS
    day = np.floor(joined[user] + random.random(n) * (_DAYS - joined[user]))
    hour = random.choice(24, n, p=HOURS)
    time = ((_FIRST_DAY + day) * 86_400 + hour * 3_600).astype(np.int64) + random.integers(0, 3_600, n)
    order = np.lexsort((time, user))
    time, hour = time[order], hour[order]
    daypart = hour // 6
    at_home = random.random(n) < np.where(daypart == 3, 0.7, 0.3)
    device = np.where(at_home, random.integers(1, len(DEVICES), n), 0)
    return _Events(start, user, time, device, daypart)


def _choices(config: SyntheticConfig, random: np.random.Generator, truth: Truth, events: _Events) -> Int64:
    """Draw the item row of each event, int64 [n]; -1 where a user finds nothing new."""
    if config.considered < config.items:
        return _choices_among_some(config, truth, events)
    counts = np.diff(events.start)
    by_activity = np.argsort(
        -counts, kind="stable"
    )  # a block holds users of similar activity, the most active first, so that those still choosing are a prefix
    luck = random.random(len(events.user), dtype=np.float32)
    chosen = np.full(len(events.user), -1, dtype=np.int64)
    block = max(1, _CELLS // config.items)
    for first in range(0, config.users, block):
        users = by_activity[first : first + block]
        base = truth.taste[users] @ truth.style.T + truth.popularity
        previous = np.full(len(users), -1, dtype=np.int64)
        for step in range(counts[users[0]]):
            active = int(np.searchsorted(-counts[users], -step, side="left"))
            at = events.start[users[:active]] + step
            query = truth.device[events.device[at]] + truth.daypart[events.daypart[at]] + truth.successor[previous[:active]]
            picked = _draw(np.add(base[:active], query @ truth.style.T, dtype=np.float32), luck[at])
            base[np.arange(active), picked] = -np.inf
            chosen[at] = picked
            previous[:active] = picked
    return chosen


def _choices_among_some(config: SyntheticConfig, truth: Truth, events: _Events) -> Int64:
    from recall.data.synthetic_kernels import choose  # numba takes half a second to import

    kept, alias = alias_table(np.exp(truth.popularity, dtype=np.float64))
    chosen = np.empty(len(events.user), dtype=np.int64)
    tables = (truth.style, truth.taste, truth.device, truth.daypart, truth.successor)
    fixed = (np.uint64(config.seed), config.considered, events.start, events.device, events.daypart, kept, alias)
    bounds = np.searchsorted(events.start, np.linspace(0, len(chosen), 8 * (os.cpu_count() or 1) + 1)).tolist()
    bounds[0], bounds[-1] = 0, config.users
    with ThreadPoolExecutor() as pool:
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
    small = [place for place, one in enumerate(scaled) if one < 1]
    large = [place for place, one in enumerate(scaled) if one >= 1]
    alias = list(range(len(scaled)))
    while small and large:
        less, more = small.pop(), large[-1]
        alias[less] = more
        scaled[more] -= 1 - scaled[less]
        if scaled[more] < 1:
            small.append(large.pop())
    for place in (*small, *large):  # 1 up to rounding
        scaled[place] = 1.0
    return np.array(scaled, dtype=np.float32), np.array(alias, dtype=np.int32)


def _draw(utility: Float32, luck: Float32) -> Int64:
    """Draw a column of each row [n, c] with probability softmax(utility).

    `luck` is uniform [n]. Overwrites `utility`.
    """
    utility -= utility.max(axis=1, keepdims=True)
    np.exp(utility, out=utility)
    np.cumsum(utility, axis=1, out=utility)
    below = np.count_nonzero(utility < (luck * utility[:, -1])[:, None], axis=1)
    column: Int64 = np.minimum(below, utility.shape[1] - 1)
    return column


def _normal(random: np.random.Generator, rows: int) -> Float32:
    return random.standard_normal((rows, _FACTORS), dtype=np.float32)


def _zipf(n: int, power: float) -> Float64:
    shares: Float64 = np.power(np.arange(1, n + 1), -power, dtype=np.float64)
    shares /= shares.sum()
    return shares


def _standard(values: npt.NDArray[np.generic]) -> Float32:
    numbers: Float64 = values.astype(np.float64)
    standard: Float32 = ((numbers - numbers.mean()) / (numbers.std() or 1.0)).astype(np.float32)
    return standard


def _scaled(vectors: Float32, spread: Float32, deviation: float) -> Float32:
    """Scale `vectors` so that their products with styles have this standard deviation.

    `spread` is the second moment of the styles.
    """
    size = np.sqrt(np.einsum("nd,de,ne->n", vectors, spread, vectors).mean())
    scaled: Float32 = (vectors * (deviation / size)).astype(np.float32)
    return scaled


def _bags(random: np.random.Generator, group: Int64, n_values: int, mean: float, spread: float) -> pl.DataFrame:
    """Draw bags of distinct values as (row, value), in the order of rows.

    Each group has its own favourite values.
    """
    favour = random.gumbel(size=(int(group.max()) + 1, n_values)) * 0.5 * spread / 2
    shares = np.cumsum(np.exp(favour) / np.exp(favour).sum(axis=1, keepdims=True), axis=1)
    row = np.repeat(np.arange(len(group)), random.poisson(mean, len(group)))
    value = np.empty(len(row), dtype=np.int64)
    luck = random.random(len(row))
    for number in range(len(shares)):
        own = np.flatnonzero(group[row] == number)
        value[own] = np.minimum(np.searchsorted(shares[number], luck[own]), n_values - 1)
    return pl.DataFrame({"row": row, "value": value}).unique(maintain_order=True)


def _sums(bags: pl.DataFrame, vectors: Float32, n: int) -> Float32:
    """Return the sum of the vectors of each bag over the root of its size."""
    row, value = bags["row"].to_numpy(), bags["value"].to_numpy()
    sums = np.stack([np.bincount(row, vectors[value, column], n) for column in range(_FACTORS)], axis=1)
    return (sums / np.sqrt(np.maximum(np.bincount(row, minlength=n), 1))[:, None]).astype(np.float32)


def _lists(bags: pl.DataFrame, names: tuple[str, ...], n: int) -> pl.Series:
    named = bags.select("row", pl.Series("value", names).gather(bags["value"]))
    lists = named.group_by("row", maintain_order=True).agg("value")
    every = pl.DataFrame({"row": np.arange(n)}).join(lists, on="row", how="left", maintain_order="left")
    return every["value"].fill_null(pl.Series([[]], dtype=pl.List(pl.String)))


def _ids(letter: str, numbers: Int64) -> pl.Series:
    width = max(4, len(str(len(numbers) - 1)))
    return letter + pl.Series(numbers).cast(pl.String).str.zfill(width)


def _blank(random: np.random.Generator, table: pl.DataFrame, shares: dict[str, float]) -> pl.DataFrame:
    for column, share in shares.items():
        known = pl.Series(random.random(len(table)) >= share)
        table = table.with_columns(pl.when(known).then(pl.col(column)).otherwise(None).alias(column))
    return table
