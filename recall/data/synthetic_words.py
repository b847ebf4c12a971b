"""Words of the synthetic shop."""

import polars as pl

CATEGORIES = (
    "books", "kitchen", "garden", "music", "toys", "sports", "phones", "shoes", "films", "tools", "beauty", "pets",
    "games", "coffee", "bikes", "art",
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
_SYLLABLES = ("ba", "den", "ko", "lu", "mar", "nor", "pi", "ra", "sol", "tem", "va", "zen")


def brand_names(n: int) -> pl.Series:
    """Return n distinct pronounceable names, text [n]."""
    base = len(_SYLLABLES)
    names = []
    for number in range(n):
        name, rest = "", number + base  # from base on, so that every name has two syllables at least
        while rest:
            rest, syllable = divmod(rest, base)
            name = _SYLLABLES[syllable] + name
        names.append(name)
    return pl.Series(names)
