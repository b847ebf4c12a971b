"""A shop in a few hundred events, and the expected result of reading a folder of it."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

GENRES = ["Action", "Comedy", "Drama", "Kids", "Sci-Fi"]
WORDS = ["Lamp", "Chair", "Table", "Cup", "Shelf", "Rug", "Vase", "Clock", "Mirror", "Bench"]
CITIES = ["Köln", "München", "Berlin", "Düsseldorf", "Hamburg"]

Name = Callable[[int], str]


@dataclass(frozen=True)
class Event:
    """A user took an item at a time in unix seconds."""

    user: int
    item: int
    at: int


@dataclass(frozen=True)
class World:
    """Events in order of time; items are taken by taste or popularity."""

    users: int
    items: int
    events: list[Event]
    pick: random.Random

    @staticmethod
    def make(seed: int, users: int = 60, items: int = 40, events: int = 1_200) -> "World":
        pick = random.Random(seed)
        log = []
        for _ in range(events):
            user = pick.randrange(users)
            popular = min(int(pick.expovariate(0.05)), items - 1)
            item = pick.choice(range(user % 5, items, 5)) if pick.random() < 0.7 else popular
            log.append(Event(user, item, 1_704_067_200 + pick.randrange(178 * 86_400)))  # from 2024-01-01
        return World(users, items, sorted(log, key=lambda event: event.at), pick)


@dataclass
class Expected:
    """Expected result of reading a folder.

    Attributes:
        rows: interactions.
        users: distinct users of the interactions.
        items: distinct items of the interactions.
        samples: user, item and unix seconds of some rows.
        columns: of user id, item id and time.
        weights: names of events, from light to heavy.
        taken: rows that count as taken; None for all.
        values: cells by table, id and column; of files without a header the column is its number.
        fields: kind of the field that reads a column, by side and column.
        no_context: columns of the interactions that no request knows.
        title: column that is an attribute.
        refused: words of the error, where the folder is refused.
    """

    rows: int = 0
    users: int = 0
    items: int = 0
    samples: list[tuple[str, str, float]] = field(default_factory=list)
    columns: tuple[str, str, str] | None = None
    weights: tuple[str, ...] = ()
    taken: int | None = None
    values: dict[tuple[str, str, str | int], Any] = field(default_factory=dict)
    fields: dict[tuple[str, str], str] = field(default_factory=dict)
    no_context: tuple[str, ...] = ()
    title: str = ""
    refused: str = ""


@dataclass(frozen=True)
class Folder:
    """Files by table as passed to `recall init`, or none; and the expected result."""

    files: dict[str, str]
    expected: Expected


Build = Callable[[Path, World], Folder]
FOLDERS: dict[str, Build] = {}


def folder(build: Build) -> Build:
    """Add a builder to the corpus."""
    FOLDERS[build.__name__] = build
    return build


def expected(log: Sequence[Event], user: Name = str, item: Name = str, each: int = 1, more: float = 0, **rest: Any) -> Expected:
    """Return the expected result of reading a log.

    Args:
        log: events, in order of time.
        user: id of a user.
        item: id of an item.
        each: seconds to which times are written.
        more: seconds that are added to each time.
        rest: further attributes.
    """
    some = (log[0], log[len(log) // 2], log[-1])
    samples = [(user(one.user), item(one.item), one.at // each * each + more) for one in some]
    counts = (len(log), len({one.user for one in log}), len({one.item for one in log}))
    return Expected(*counts, samples, **rest)


def utc(at: int) -> datetime:
    """Return a time in UTC."""
    return datetime.fromtimestamp(at, UTC)


def when(at: int, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Format a time in UTC."""
    return utc(at).strftime(pattern)


def genres(item: int) -> list[str]:
    """Return one or two genres."""
    return [GENRES[item % 5], "War"] if item % 3 == 0 else [GENRES[item % 5]]


def title(item: int) -> str:
    """Return an unused title."""
    return f"{WORDS[item % 10]} {WORDS[item // 10 % 10]} No. {item}"


def price(item: int) -> float:
    """Return a price with cents, above 1,000 for some."""
    return round(3.49 + item * 47.31, 2)


def comma(number: float, digits: int = 2) -> str:
    """Write a number as in German."""
    return f"{number:,.{digits}f}".translate(str.maketrans(",.", ".,"))


def lines(separator: str, rows: Iterable[Sequence[object]], end: str = "\n") -> str:
    """Join cells to lines."""
    return "".join(separator.join(map(str, row)) + end for row in rows)


def turn(number: int, *shares: tuple[str, int]) -> str:
    """Return the name whose share of a cycle a number is in."""
    place = number % sum(share for _, share in shares)
    for name, share in shares:
        if place < share:
            return name
        place -= share
    raise AssertionError
