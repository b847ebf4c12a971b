"""Whether a column of interactions tells when each happened."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recall.data.dependence import Codes, codes_of, function_gain
from recall.data.outcome_names import AMOUNT, RATING, outcome_word, words
from recall.data.split import Times
from recall.errors import DataError

_EPOCHS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_FROM, _UNTIL = 631_152_000, 4_102_444_800  # 1990 and 2100 in unix seconds
_USUAL = {
    "timestamp": 3,
    "time": 3,
    "datetime": 3,
    "ts": 3,
    "when": 3,
    "date": 2,
    "created": 2,
    "at": 2,
    "occurred": 2,
    "position": 1,
}
_USUAL |= {"seq": 1, "sequence": 1, "step": 1, "order": 1}
_NO_TIMES = frozenset({"id", "no", "number", "zip", "phone", "code", "ean", "isbn"})
_FORMATS = {
    "%m/%d/%Y %H:%M": "12/31/2010 8:26",
    "%d/%m/%Y %H:%M": "31/12/2010 8:26",
    "%m/%d/%Y": "12/31/2010",
    "%d/%m/%Y": "31/12/2010",
    "%d.%m.%Y": "31.12.2010",
    "%d.%m.%Y %H:%M": "31.12.2010 08:26",
    "%m %d, %Y": "12 31, 2010",
    "%b %d, %Y": "Dec 31, 2010",
    "%d %b %Y": "31 Dec 2010",
    "%a %b %d %H:%M:%S %z %Y": "Fri Dec 31 08:26:00 +0000 2010",
}
_LOOKED_AT = 2_000
_FEW = 20
_PROPERTY = 0.95
_PLACES = 10  # different numbers, up to which they may be places on a screen


@dataclass(frozen=True, slots=True)
class TimeLike:
    """A column that may be the time of the interactions.

    Attributes:
        rank: compares columns: how surely it is a time by what it holds (2 dates and unix times, 1 rising numbers, 0 dates that
            cannot be read), then by its name, then by how many different values it has.
        reason: in words.
    """

    rank: tuple[int, int, int]
    reason: str

    @property
    def readable(self) -> bool:
        """Whether `data.time` reads it as it is."""
        return self.rank[0] > 0


def time_like(values: pl.Series, numbers: pl.Series | None, users: Codes, items: Codes) -> TimeLike | None:
    """What speaks for a column being the time; None where nothing does.

    Args:
        values: [n], the column.
        numbers: [n], the same as numbers, where it holds numbers.
        users, items: integer [n], the user and item of each row: what all rows of one share, such as a release date, is no time
            of interactions.
    """
    known = values.drop_nulls()
    if known.is_empty() or values.dtype == pl.Boolean:
        return None
    found = _surely(known) if numbers is None else _epoch(numbers, values.name) or _rising(numbers, values.name, users)
    if found is None:
        return None
    codes = codes_of(values)
    kept = codes >= 0
    if function_gain(items[kept], codes[kept]).value >= _PROPERTY:
        return None
    plain = set(words(values.name)) <= set(_USUAL)  # a log of one visit a user has one time a user, and so has a sign-up date
    if not plain and function_gain(users[kept], codes[kept]).value >= _PROPERTY:
        return None
    name = max((_USUAL.get(word, 0) for word in words(values.name)), default=0)
    missing = values.null_count()
    reason = found[1] + (f"; {missing / len(values):.1%} of the rows have none" if missing else "")
    return TimeLike((0 if missing else found[0], name, known.n_unique()), reason)


def _surely(known: pl.Series) -> tuple[int, str] | None:
    if known.dtype in (pl.Date, pl.Datetime):
        return 2, "dates or times"
    if known.dtype != pl.String:
        return None
    some = known.head(_LOOKED_AT)
    try:
        Times.of(some, "")
    except DataError:
        for form, shown in _FORMATS.items():
            parsed = some.str.strip_chars().str.to_datetime(form, strict=False, time_unit="us", exact=True)
            if parsed.null_count() == 0:
                return 0, f"times written as {some[0]!r} (such as {shown!r}): write them in ISO 8601 to use them"
        return None
    return 2, "dates or times in ISO 8601"


def _epoch(numbers: pl.Series, name: str) -> tuple[int, str] | None:
    known = numbers.drop_nulls()
    if _NO_TIMES & set(words(name)) or not len(known):
        return None
    low, high, different = float(known.min()), float(known.max()), known.n_unique()  # type: ignore[arg-type]
    if different < min(len(known), 3) or (len(known) > 1_000 and different < 30):
        return None
    for unit, factor in _EPOCHS.items():
        if _FROM * factor <= low and high <= _UNTIL * factor:
            return 2, f"unix {unit}"
    whole = bool((known == known.round()).all())
    for digits, unit in ((8, "days"), (14, "seconds")):
        scale = 10.0 ** (digits - 8)
        if whole and 19_900_101 * scale <= low and high < 21_000_101 * scale:
            day = (known // scale) % 100
            month = (known // scale) // 100 % 100
            if bool(day.is_between(1, 31).all()) and bool(month.is_between(1, 12).all()):
                return 2, f"{unit} written as year, month and day in one number"
    return None


def _rising(numbers: pl.Series, name: str, users: Codes) -> tuple[int, str] | None:
    """Numbers that order each user's rows, under a name that says so."""
    if not set(words(name)) & set(_USUAL) or _NO_TIMES & set(words(name)) or outcome_word(name, AMOUNT | RATING):
        return None
    known = np.flatnonzero(numbers.is_not_null().to_numpy())
    pairs = pl.DataFrame({"user": users[known], "number": numbers.gather(known)})
    if len(pairs) < _FEW or _orders(pairs):
        return 1, "numbers that order the rows of a user, under the name of a time"
    plain = set(words(name)) <= set(_USUAL)
    if plain and pairs["number"].n_unique() > _PLACES and len(pairs.unique()) > len(pairs) / 2:
        return 1, "many different numbers, under the name of a time; the file is not in their order"
    return None


def _orders(pairs: pl.DataFrame) -> bool:
    """Whether numbers rise within each user as the file goes on, or count each user's rows in whatever order."""
    if pairs["number"].n_unique() <= _PLACES:
        return False
    step = pairs.select((pl.col("number") - pl.col("number").shift(1)).over("user")).to_series().drop_nulls()
    rising = len(step) > 0 and (step >= 0).mean() >= _PROPERTY and (step > 0).mean() > 0.5  # type: ignore[operator]
    users = pairs.group_by("user").agg(
        rows=pl.len(), different=pl.col("number").n_unique(), span=pl.col("number").max() - pl.col("number").min() + 1
    )
    counting = users.select(((pl.col("rows") == pl.col("different")) & (pl.col("span") == pl.col("rows"))).mean()).item()
    return bool(rising or counting >= _PROPERTY)
