"""Small tables in the layouts of published interaction data; all values are made up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

Tables = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Shape:
    """A set of tables and the expected draft.

    Attributes:
        make: creates the tables.
        ids: names of the id columns.
        data: expected keys of `[data]`.
        context: expected context columns, in order.
        items, users: columns of the interactions that describe items or users.
        proposed: texts that the draft must contain, comments included.
    """

    make: Callable[[], Tables]
    ids: tuple[str, str] = ("user_id", "item_id")
    data: dict[str, Any] = field(default_factory=dict)
    context: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    proposed: tuple[str, ...] = ()


def draws(rows: int, users: int, items: int, seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Draw interactions: users prefer items of their own kind, and popular ones; no pair occurs twice."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, 4 * rows)
    item = np.where(
        rng.random(4 * rows) < 0.7, (rng.integers(0, items, 4 * rows) // 4) * 4 + user % 4, rng.integers(0, items, 4 * rows)
    )
    item = np.minimum(item, items - 1)
    _, first = np.unique(user * items + item, return_index=True)
    first = np.sort(first)[:rows]
    return rng, user[first], item[first]


def movielens() -> Tables:
    rng, user, item = draws(1_200, 80, 60, 1)
    stars = np.where(item % 2 == 0, rng.choice([4.0, 4.5, 5.0], len(item)), rng.choice([1.0, 2.0, 2.5], len(item)))
    ratings = pl.DataFrame(
        {"userId": user, "movieId": item, "rating": stars, "timestamp": 964_982_703 + user * 90_000 + np.arange(len(item))}
    )
    movies = pl.DataFrame(
        {
            "movieId": range(60),
            "title": [f"Film {n} (19{n})" for n in range(60)],
            "genres": [f"G{n % 4}|H{n % 3}" for n in range(60)],
        }
    )
    return {"interactions": ratings, "items": movies}


def u_data() -> Tables:
    rng, user, item = draws(1_200, 80, 60, 2)
    time = 881_250_949 + rng.permutation(len(item)) * 37
    return {
        "interactions": pl.DataFrame(
            {"user_id": user, "item_id": item, "rating": rng.integers(1, 6, len(item)), "timestamp": time}
        )
    }


def amazon() -> Tables:
    rng, user, item = draws(900, 90, 50, 3)
    time = 1_300_000_000 + rng.integers(0, 2_000, len(item)) * 86_400
    frame = pl.DataFrame(
        {
            "reviewerID": [f"A{one:05}" for one in user],
            "asin": [f"B00{one:04}" for one in item],
            "overall": rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], len(item), p=[0.05, 0.05, 0.1, 0.2, 0.6]),
            "reviewText": [f"text number {number} of a review" for number in range(len(item))],
            "summary": [f"summary {number}" for number in range(len(item))],
            "unixReviewTime": time,
            "reviewTime": pl.from_epoch(pl.Series(time)).dt.strftime("%m %d, %Y"),
            "verified": rng.choice([True, False], len(item)),
        }
    )
    return {"interactions": frame}


def retail() -> Tables:
    rng, user, item = draws(1_500, 60, 70, 4)
    order = np.lexsort((rng.random(len(user)), user))
    user, item = user[order], item[order]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    invoice = user * 100 + place // 4
    price = np.round(np.exp(rng.normal(1, 1, 70)), 2)
    day = pl.Series(1_291_000_000 + invoice * 3_600)
    frame = pl.DataFrame(
        {
            "InvoiceNo": [f"5{one:05}" for one in invoice],
            "StockCode": [f"{one:05}" for one in item],
            "Description": [f"MADE UP THING {one}" for one in item],
            "Quantity": np.where(rng.random(len(item)) < 0.03, -1, rng.choice([1, 2, 6, 12, 24], len(item))),
            "InvoiceDate": pl.from_epoch(day).dt.strftime("%Y-%m-%d %H:%M:%S"),
            "UnitPrice": np.where(rng.random(len(item)) < 0.05, price[item] * 1.1, price[item]).round(2),
            "CustomerID": user + 12_000,
            "Country": np.array(["United Kingdom", "France", "Germany"])[user % 3],
        }
    )
    return {"interactions": frame}


def clickstream() -> Tables:
    rng, user, item = draws(2_000, 100, 60, 5)
    kinds = rng.choice(["view", "cart", "remove_from_cart", "purchase"], len(item), p=[0.7, 0.15, 0.05, 0.1])
    time = pl.from_epoch(pl.Series(1_570_000_000 + np.arange(len(item)) * 61))
    brand = np.array(["acme", "bolt", "cord", "dune", "echo"])
    frame = pl.DataFrame(
        {
            "event_time": time.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "event_type": kinds,
            "product_id": item + 1_000_000,
            "category_code": [f"cat.{one % 6}" for one in item],
            "brand": brand[item % 5],
            "price": np.round(5 + item * 1.37, 2),
            "user_id": user + 500_000_000,
            "user_session": [f"{one}-{number // 3}" for number, one in enumerate(user)],
        }
    )
    return {"interactions": frame}


def retailrocket() -> Tables:
    rng, user, item = draws(1_500, 90, 60, 6)
    event = rng.choice(["view", "addtocart", "transaction"], len(item), p=[0.8, 0.15, 0.05])
    time = 1_433_221_332_117 + rng.permutation(len(item)) * 12_345
    transaction = [str(number) if one == "transaction" else None for number, one in enumerate(event)]
    frame = pl.DataFrame({"timestamp": time, "visitorid": user, "event": event, "itemid": item, "transactionid": transaction})
    return {"interactions": frame}


def lastfm() -> Tables:
    rng, user, item = draws(1_200, 80, 60, 7)
    plays = np.ceil(np.exp(rng.normal(3, 1.5, len(item)))).astype(int)
    frame = pl.DataFrame({"user_id": user, "artist_id": item, "artist_name": [f"Band {one}" for one in item], "plays": plays})
    users = pl.DataFrame(
        {"user_id": range(80), "gender": [("f", "m", None)[n % 3] for n in range(80)], "age": [20 + n % 30 for n in range(80)]}
    )
    return {"interactions": frame, "users": users}


def goodreads() -> Tables:
    rng, user, item = draws(1_200, 80, 60, 8)
    shelf = rng.choice(["read", "to-read", "currently-reading"], len(item), p=[0.6, 0.3, 0.1])
    added = pl.from_epoch(pl.Series(1_400_000_000 + rng.permutation(len(item)) * 5_000))
    frame = pl.DataFrame(
        {
            "user_id": user,
            "book_id": item,
            "shelf": shelf,
            "rating": np.where(shelf == "read", rng.integers(1, 6, len(item)), 0),
            "date_added": added.dt.strftime("%Y-%m-%d"),
            "review_text": [f"what I think, {number}" for number in range(len(item))],
        }
    )
    books = pl.DataFrame(
        {"id": range(60), "title": [f"Book {n}" for n in range(60)], "publication_year": [1950 + n for n in range(60)]}
    )
    return {"interactions": frame, "items": books}


def jobs() -> Tables:
    rng, user, item = draws(1_000, 80, 50, 9)
    status = rng.choice(["viewed", "applied", "rejected", "hired"], len(item), p=[0.5, 0.35, 0.1, 0.05])
    frame = pl.DataFrame(
        {
            "candidate": user,
            "job": item,
            "status": status,
            "job_title": [f"Job {one % 9}" for one in item],
            "job_city": [f"City {one % 7}" for one in item],
            "years_of_experience": user % 12,
            "source": rng.choice(["mail", "web", "fair"], len(item)),
            "applied_on": pl.from_epoch(pl.Series(1_600_000_000 + rng.permutation(len(item)) * 999)).cast(pl.Date),
        }
    )
    return {"interactions": frame}


def impressions() -> Tables:
    rng, user, item = draws(2_000, 100, 50, 10)
    frame = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "clicked": (rng.random(len(item)) < 0.3).astype(int),
            "hour": rng.integers(0, 24, len(item)),
            "device": rng.choice(["phone", "web"], len(item)),
            "slot": rng.integers(1, 6, len(item)),
            "ts": 1_650_000_000 + rng.permutation(len(item)) * 7,
        }
    )
    return {"interactions": frame}


def short_videos() -> Tables:
    rng, user, item = draws(1_500, 80, 60, 11)
    length = 5_000 + 1_000 * (item % 13)
    frame = pl.DataFrame(
        {
            "user_id": user,
            "video_id": item,
            "play_duration": (length * rng.random(len(item))).astype(int),
            "video_duration": length,
            "watch_ratio": rng.random(len(item)).round(3),
            "time": 1_593_000_000.5 + rng.permutation(len(item)) * 3.5,
            "timezone": rng.choice(["UTC", "CET"], len(item)),
        }
    )
    return {"interactions": frame}


def taobao() -> Tables:
    rng, user, item = draws(1_500, 80, 60, 12)
    hours = pl.from_epoch(pl.Series(1_417_000_000 + rng.permutation(len(item)) * 3_600))
    frame = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "behavior_type": rng.choice([1, 2, 3, 4], len(item), p=[0.8, 0.08, 0.08, 0.04]),
            "item_category": item % 9,
            "time": hours.dt.strftime("%Y-%m-%d %H:00:00"),
        }
    )
    return {"interactions": frame}


def playlist() -> Tables:
    """Booleans as words, a runtime that is not a time, and a position instead of a time."""
    rng, user, item = draws(1_200, 70, 60, 13)
    place = pl.DataFrame({"u": user}).select(pl.int_range(pl.len()).over("u").alias("place"))["place"]
    frame = pl.DataFrame(
        {
            "listener": user,
            "track": item,
            "skipped": rng.choice(["True", "False"], len(item)),
            "liked": rng.choice(["true", "false"], len(item)),
            "runtime": 120 + item * 3,
            "sometimes": rng.integers(0, 2, len(item)),
            "position": place,
        }
    )
    return {"interactions": frame}


def weighted() -> Tables:
    """Column names as in the documentation."""
    rng, user, item = draws(1_000, 60, 50, 14)
    frame = pl.DataFrame(
        {
            "user_id": user,
            "item_id": item,
            "weight": rng.integers(1, 9, len(item)) / 2,
            "split": rng.choice(["train", "valid", "test"], len(item), p=[0.8, 0.1, 0.1]),
            "weekday": rng.choice(["mon", "tue", "wed"], len(item)),
        }
    )
    return {"interactions": frame}


def subscriptions() -> Tables:
    """A denormalised export: all user and item columns in every row, with dates that are not times of the rows."""
    rng, user, item = draws(1_400, 80, 60, 15)
    day = pl.from_epoch(pl.Series(1_500_000_000 + rng.permutation(len(item)) * 4_000))
    frame = pl.DataFrame(
        {
            "user_id": user,
            "signup_time": 1_400_000_000 + user * 86_400,
            "age": 18 + user % 40,
            "item_id": item,
            "release_time": 1_200_000_000 + item * 86_400,
            "title": [f"Show {one}" for one in item],
            "genres": [f"g{one % 5}|h{one % 3}" for one in item],
            "price_paid": np.round(5 + item % 8 + rng.random(len(item)) * 9, 2),
            "minutes": rng.integers(1, 120, len(item)),
            "happened": day,
            "device": rng.choice(["phone", "tv"], len(item)),
        }
    )
    return {"interactions": frame}


def german() -> Tables:
    rng, user, item = draws(1_500, 80, 60, 16)
    seconds = pl.Series(1_600_000_000 + rng.permutation(len(item)) * 3_700)
    moments = pl.from_epoch(seconds)
    frame = pl.DataFrame(
        {
            "kunde": user,
            "artikel": item,
            "bewertung": rng.integers(1, 6, len(item)),
            "gekauft": rng.integers(0, 2, len(item)),
            "menge": rng.integers(1, 40, len(item)),
            "stunde": moments.dt.hour(),
            "wochentag": moments.dt.weekday(),
            "werktag": moments.dt.weekday() < 6,
            "kommentar": [f"Meinung {number}" for number in range(len(item))],
            "zeit": seconds,
        }
    )
    return {"interactions": frame}


def french() -> Tables:
    rng, user, item = draws(1_500, 80, 60, 17)
    frame = pl.DataFrame(
        {
            "client": user,
            "article": item,
            "note": rng.integers(0, 21, len(item)),
            "ravi": rng.choice(["oui", "non"], len(item)),
            "horodatage": 1_600_000_000 + rng.permutation(len(item)) * 3_700,
        }
    )
    return {"interactions": frame}


def unknown_language() -> Tables:
    """Column names without meaning."""
    rng, user, item = draws(1_500, 80, 60, 18)
    frame = pl.DataFrame(
        {
            "u": user,
            "i": item,
            "abc": rng.integers(1, 6, len(item)),
            "xyz": rng.integers(0, 2, len(item)),
            "ts": 1_600_000_000 + rng.permutation(len(item)) * 3_700,
        }
    )
    return {"interactions": frame}


SHAPES = {
    "movielens": Shape(
        movielens,
        ("userId", "movieId"),
        {"time": "timestamp", "split.by": "last"},
        proposed=('# outcome = { column = "rating", at_least = 4 }', '# weight = "rating"'),
    ),
    "u.data": Shape(u_data, data={"time": "timestamp"}, proposed=('# outcome = { column = "rating", at_least = 4 }',)),
    "amazon": Shape(
        amazon,
        ("reviewerID", "asin"),
        {"time": "unixReviewTime"},
        proposed=(
            "# verified holds false and true, which differ",
            '# outcome = { column = "overall", at_least = 4 }',
            "# reviewText: 900 different texts",
        ),
    ),
    "retail": Shape(
        retail,
        ("CustomerID", "StockCode"),
        {"time": "InvoiceDate", "outcome.column": "Quantity", "outcome.at_least": 1.0, "attributes": ("Description",)},
        items=("UnitPrice", "Description"),
        users=("Country",),
        proposed=("# InvoiceNo:", "a basket, session or row"),
    ),
    "clickstream": Shape(
        clickstream,
        ("user_id", "product_id"),
        {
            "time": "event_time",
            "events.column": "event_type",
            "events.weights": {"view": 1.0, "cart": 3.0, "purchase": 5.0},
            "events.left_out": ("remove_from_cart",),
        },
        items=("category_code", "brand", "price"),
        proposed=("# user_session:",),
    ),
    "retailrocket": Shape(
        retailrocket,
        ("visitorid", "itemid"),
        {"time": "timestamp", "events.weights": {"view": 1.0, "addtocart": 3.0, "transaction": 5.0}},
        proposed=("# transactionid:",),
    ),
    "lastfm": Shape(
        lastfm,
        ("user_id", "artist_id"),
        {"attributes": ("artist_name",), "split.by": "random"},
        items=("artist_name",),
        proposed=('# weight = "plays"',),
    ),
    "goodreads": Shape(
        goodreads,
        ("user_id", "book_id"),
        {
            "time": "date_added",
            "id_in_items": "id",
            "events.weights": {"currently-reading": 1.0, "read": 1.0, "to-read": 1.0},
        },
        proposed=('# outcome = { column = "rating", at_least = 4 }',),
    ),
    "jobs": Shape(
        jobs,
        ("candidate", "job"),
        {
            "time": "applied_on",
            "events.weights": {"viewed": 1.0, "applied": 5.0, "hired": 5.0},
            "events.not_taken": ("rejected",),
        },
        context=("source",),
        items=("job_title", "job_city"),
        users=("years_of_experience",),
    ),
    "impressions": Shape(impressions, data={"time": "ts", "label": "clicked"}, context=("hour", "device", "slot")),
    "short videos": Shape(
        short_videos,
        ("user_id", "video_id"),
        {"time": "time"},
        context=("timezone",),
        items=("video_duration",),
        proposed=('# weight = "play_duration"', '# outcome = { column = "watch_ratio"'),
    ),
    "taobao": Shape(
        taobao,
        data={"time": "time", "events.weights": {"1": 1.0, "2": 1.0, "3": 1.0, "4": 1.0}},
        items=("item_category",),
    ),
    "playlist": Shape(
        playlist,
        ("listener", "track"),
        {
            "time": "position",
            "label": None,
            "events.column": "event",
            "events.weights": {"liked": 2.0},
            "events.not_taken": ("skipped",),
            "events.missing": "taken",
        },
        items=("runtime",),
        proposed=(
            'flags = { event = ["liked", "skipped"] }  # one column of events; to use one of these alone, write label =',
            "# event says what happened (the last of liked, skipped that is true, see flags below), so no field reads it.",
            '# sometimes = { side = "user", kind = "categorical", source = "interactions" }',
        ),
    ),
    "weighted": Shape(weighted, data={"weight": "weight", "split.by": "column"}, context=("weekday",)),
    "german": Shape(
        german,
        ("kunde", "artikel"),
        {"time": "zeit", "label": "gekauft"},
        context=("stunde", "wochentag", "werktag"),
        proposed=('# outcome = { column = "bewertung", at_least = 4 }', "# menge holds 1 to", "# kommentar: "),
    ),
    "french": Shape(
        french,
        ("client", "article"),
        {"time": "horodatage", "label": None},
        proposed=(
            '# outcome = { column = "note", at_least = 15 }',
            "# ravi holds non and oui, which differ between the rows of a user and of an item. Assumed:",
            '# label = "ravi"',
            '# ravi = { side = "user", kind = "categorical", source = "interactions" }',
        ),
    ),
    "unknown language": Shape(
        unknown_language,
        ("u", "i"),
        {"time": "ts", "label": None},
        proposed=(
            "# abc holds 1 to 5, 5 different, as a scale has them. Assumed: it is the result of the interaction",
            '# outcome = { column = "abc", at_least = 4 }',
            '# abc = { side = "user", kind = "categorical", source = "interactions" }',
            '# label = "xyz"',
        ),
    ),
    "subscriptions": Shape(
        subscriptions,
        data={"time": "happened", "attributes": ("release_time", "title")},
        context=("device",),
        items=("genres", "title", "release_time"),
        users=("age",),
        proposed=("price_paid", '# weight = "minutes"'),
    ),
}


def write(tables: Tables, folder: Path, suffix: str) -> Path:
    """Write the tables as files of one format."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        if suffix == ".csv":
            frame.write_csv(folder / f"{name}.csv")
        else:
            frame.write_parquet(folder / f"{name}.parquet")
    return folder
