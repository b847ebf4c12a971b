"""Items and users of a synthetic shop, and the styles and tastes behind them."""

from itertools import chain, count, islice, product

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float32, Float64, Int64

FACTORS = 8
"""Length of styles and tastes."""
CATEGORIES = (
    "books", "kitchen", "garden", "music", "toys", "sports", "phones", "shoes", "films", "tools", "beauty", "pets",
    "games", "coffee", "bikes", "art",
)  # fmt: skip
_NOUNS = (
    "novel", "pan", "rake", "record", "puzzle", "racket", "phone", "shoe", "film", "hammer", "cream", "collar",
    "game", "grinder", "bike", "print",
)  # fmt: skip
TAGS = (
    "sale", "new", "gift", "classic", "organic", "wireless", "handmade", "vintage", "compact", "waterproof", "kids",
    "travel", "outdoor", "wool", "steel", "wooden", "refurbished", "limited", "award", "local", "vegan", "quiet",
    "bright", "soft", "heavy", "light", "digital", "analog", "spare", "set", "starter", "expert", "winter", "summer",
    "recycled", "imported", "signed", "illustrated", "foldable", "rechargeable",
)  # fmt: skip
GENDERS = ("female", "male", "other")
COUNTRIES = ("DE", "FR", "GB", "ES", "IT", "PL", "NL", "SE", "PT", "DK")
DEVICES = ("phone", "desktop", "tablet")
DAYPARTS = ("night", "morning", "afternoon", "evening")
HOURS = tuple(
    weight / 100 for weight in (2, 1, 1, 0, 0, 1, 2, 4, 5, 5, 5, 5, 6, 5, 4, 4, 5, 6, 7, 8, 9, 8, 5, 2)
)  # share of interactions in each hour of the day
_AT_ONCE = 1 << 16  # bags summed at a time
_SYLLABLES = ("ba", "den", "ko", "lu", "mar", "nor", "pi", "ra", "sol", "tem", "va", "zen")


def brand_names(n: int) -> pl.Series:
    """Return n distinct pronounceable names of two or more syllables, text [n]."""
    names = chain.from_iterable(product(_SYLLABLES[1:], *[_SYLLABLES] * more) for more in count(1))
    return pl.Series(["".join(syllables) for syllables in islice(names, n)])


def make_items(n: int, random: np.random.Generator, category_styles: Float32) -> tuple[pl.DataFrame, Float32]:
    """Return a table of n items, and their styles, float32 [n, FACTORS].

    Args:
        n: number of items.
        random: generator.
        category_styles: float32 [categories, FACTORS].
    """
    n_brands = max(8, n // 25)
    category = random.choice(len(CATEGORIES), n, p=_zipf(len(CATEGORIES), 0.7))
    home = random.integers(0, len(CATEGORIES), n_brands)  # a brand belongs to one category
    brand = random.integers(0, n_brands, n)
    for number in range(len(CATEGORIES)):
        own, brands = np.flatnonzero((category == number) & (random.random(n) < 0.85)), np.flatnonzero(home == number)
        if len(brands):
            brand[own] = random.choice(brands, len(own))
    tags = _bags(random, category, len(TAGS), mean=3.0, spread=6.0)
    year = 2025 - np.minimum(random.geometric(0.18, n) - 1, 25)
    tier = random.normal(0, 0.4, n_brands)
    log_price = random.normal(2.5, 0.7, len(CATEGORIES))[category] + tier[brand] + random.normal(0, 0.4, n)
    price_style, year_style = standard_normal(random, 2)
    style = (
        1.0 * category_styles[category]
        + 0.6 * standard_normal(random, n_brands)[brand]
        + 0.6 * _sums(tags, standard_normal(random, len(TAGS)), n)
        + 0.4 * standardized(log_price)[:, None] * price_style
        + 0.3 * standardized(year)[:, None] * year_style
        + 0.4 * standard_normal(random, n)
    )
    names, lists = brand_names(n_brands).gather(brand), _lists(tags, TAGS, n)
    table = pl.DataFrame(
        {
            "item_id": _ids("i", random.permutation(n)),
            "title": _titles(names, pl.Series(_NOUNS).gather(category), lists),
            "category": pl.Series(CATEGORIES).gather(category),
            "brand": names,
            "tags": lists,
            "price": np.round(np.exp(log_price), 2),
            "year": year,
        }
    )
    return table, style - style.mean(axis=0)


def _titles(brands: pl.Series, nouns: pl.Series, tags: pl.Series) -> pl.Series:
    """Return distinct names of products, such as "Densol wooden rake 12"."""
    columns = pl.DataFrame({"brand": brands, "noun": nouns, "tag": tags.list.first()})
    model = (pl.int_range(pl.len()).over("brand") + 1).cast(pl.String)
    return columns.select(
        pl.concat_str(pl.col("brand").str.to_titlecase(), "tag", "noun", model, separator=" ", ignore_nulls=True)
    ).to_series()


def make_users(n: int, random: np.random.Generator, category_styles: Float32) -> tuple[pl.DataFrame, Float32]:
    """Return a table of n users, and their tastes, float32 [n, FACTORS].

    Args:
        n: number of users.
        random: generator.
        category_styles: float32 [categories, FACTORS].
    """
    age = np.clip(np.round(16 + random.gamma(4.0, 6.5, n)), 16, 90)
    gender = random.choice(len(GENDERS), n, p=(0.48, 0.48, 0.04))
    country = random.choice(len(COUNTRIES), n, p=_zipf(len(COUNTRIES), 1.0))
    interests = _bags(random, country * len(GENDERS) + gender, len(CATEGORIES), mean=1.6, spread=2.0)
    (age_style,) = standard_normal(random, 1)
    taste = (
        0.5 * standardized(age)[:, None] * age_style
        + 0.4 * standard_normal(random, len(GENDERS))[gender]
        + 0.5 * standard_normal(random, len(COUNTRIES))[country]
        + 0.8 * _sums(interests, category_styles, n)
        + 0.6 * standard_normal(random, n)
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


def standard_normal(random: np.random.Generator, rows: int) -> Float32:
    """Return standard normal numbers, float32 [rows, FACTORS].

    Args:
        random: generator.
        rows: number of rows.
    """
    return random.standard_normal((rows, FACTORS), dtype=np.float32)


def _zipf(n: int, power: float) -> Float64:
    shares: Float64 = np.power(np.arange(1, n + 1), -power, dtype=np.float64)
    shares /= shares.sum()
    return shares


def standardized(values: npt.NDArray[np.generic]) -> Float32:
    """Return numbers of mean 0 and variance 1, float32 [n]."""
    numbers: Float64 = values.astype(np.float64)
    scores: Float32 = ((numbers - numbers.mean()) / (numbers.std() or 1.0)).astype(np.float32)
    return scores


def _bags(random: np.random.Generator, group: Int64, n_values: int, mean: float, spread: float) -> pl.DataFrame:
    """Draw bags of distinct values as (row, value), in the order of rows.

    Each group has its own favourite values.
    """
    favour = random.gumbel(size=(int(group.max()) + 1, n_values)) * 0.5 * spread / 2
    shares = np.cumsum(np.exp(favour) / np.exp(favour).sum(axis=1, keepdims=True), axis=1)
    row = np.repeat(np.arange(len(group)), random.poisson(mean, len(group)))
    value = np.empty(len(row), dtype=np.int64)
    luck, of_row = random.random(len(row)), group[row]
    for number in range(len(shares)):
        own = np.flatnonzero(of_row == number)
        value[own] = np.minimum(np.searchsorted(shares[number], luck[own]), n_values - 1)
    first = pl.Series(row * n_values + value).is_first_distinct().to_numpy()
    return pl.DataFrame({"row": row[first], "value": value[first]}).set_sorted("row")


def _sums(bags: pl.DataFrame, vectors: Float32, n: int) -> Float32:
    """Return the sum of the vectors of each bag over the root of its size."""
    row, value = bags["row"].to_numpy(), bags["value"].to_numpy()
    holds = np.zeros((n, len(vectors)), dtype=np.uint8)
    holds[row, value] = 1
    size = np.maximum(np.bincount(row, minlength=n), 1)
    sums = np.empty((n, FACTORS), dtype=np.float32)
    for first in range(0, n, _AT_ONCE):
        piece = slice(first, first + _AT_ONCE)
        sums[piece] = holds[piece].astype(np.float64) @ vectors / np.sqrt(size[piece])[:, None]
    return sums


def _lists(bags: pl.DataFrame, names: tuple[str, ...], n: int) -> pl.Series:
    named = bags.select("row", pl.Series("value", names).gather(bags["value"]))
    lists = named.group_by("row", maintain_order=True).agg("value")
    every = pl.DataFrame({"row": np.arange(n)}).join(lists, on="row", how="left", maintain_order="left")
    return every["value"].fill_null(pl.Series([[]], dtype=pl.List(pl.String)))


def _ids(letter: str, numbers: Int64) -> pl.Series:
    width = max(4, len(str(len(numbers) - 1)))
    return letter + pl.Series(numbers).cast(pl.String).str.zfill(width)


def remove_values(random: np.random.Generator, table: pl.DataFrame, shares: dict[str, float]) -> pl.DataFrame:
    """Return a table in which some values are missing.

    Args:
        random: generator.
        table: any table.
        shares: share of the values to remove, by column.
    """
    kept = {column: pl.Series(random.random(len(table)) >= share) for column, share in shares.items()}
    return table.with_columns(pl.when(is_known).then(pl.col(column)).alias(column) for column, is_known in kept.items())
