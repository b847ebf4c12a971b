"""Folders with public data sets in the form in which they are downloaded."""

import gzip
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tests.data.scaffold.folders.world import (
    CITIES,
    Expected,
    Folder,
    World,
    expected,
    folder,
    genres,
    lines,
    price,
    title,
    when,
)


@folder
def goodreads_dump(at: Path, w: World) -> Folder:
    """JSON lines: dates of Ruby, 0 for a book without a rating, numbers as texts, lists of objects, empty texts for nothing."""
    user, item = "8842281e1d1347389f2ab93d60773d{:02x}".format, lambda i: str(24_815 + i)
    west = timezone(timedelta(hours=-8))
    out = []
    for n, e in enumerate(w.events):
        date = datetime.fromtimestamp(e.at, west).strftime("%a %b %d %H:%M:%S %z %Y")
        row = {"user_id": user(e.user), "book_id": item(e.item), "review_id": f"{n:032x}", "is_read": n % 3 > 0}
        out.append(json.dumps(row | {"rating": (n * 7 + e.item) % 6, "date_added": date}))
    (at / "goodreads_interactions.json.gz").write_bytes(gzip.compress("\n".join(out).encode()))
    books = []
    for i in range(w.items):
        row_: dict[str, Any] = {"book_id": item(i), "title": title(i), "num_pages": "" if i % 5 == 0 else str(80 + i * 9)}
        row_ |= {"language_code": ["eng", "", "spa"][i % 3], "average_rating": f"{3 + i % 20 / 10:.2f}", "is_ebook": "false"}
        row_ |= {"authors": [{"author_id": str(500 + i % 9), "role": ""}], "similar_books": [], "url": f"https://x.org/{i}"}
        books.append(json.dumps(row_ | {"popular_shelves": [{"count": str(3 + i % 4), "name": name} for name in genres(i)]}))
    (at / "goodreads_books.json.gz").write_bytes(gzip.compress("\n".join(books).encode()))
    told = expected(
        w.events,
        user,
        item,
        columns=("user_id", "book_id", "date_added"),
        values={("items", item(2), "num_pages"): 98, ("items", item(5), "num_pages"): None},
        fields={("item", "num_pages"): "numeric", ("item", "language_code"): "categorical"},
        no_context=("review_id", "rating"),
        title="title",
    )
    return Folder({"interactions": "goodreads_interactions.json.gz", "items": "goodreads_books.json.gz"}, told)


@folder
def lastfm_listens(at: Path, w: World) -> Folder:
    """Tabs without a header, quotes as ordinary characters, a profile whose header begins with a number sign."""
    user, item = "user_{:06d}".format, "b52b2f2c-8d38-4a2f-9f1d-{:012x}".format
    rows = [[user(e.user), when(e.at, "%Y-%m-%dT%H:%M:%SZ"), item(e.item), f'12" {title(e.item)}'] for e in w.events]
    (at / "listens.tsv").write_text(lines("\t", rows))
    people: list[list[object]] = [["#id", "gender", "age", "country", "registered"]]
    for u in range(w.users):
        age = "" if u % 3 else 18 + u % 40
        people.append(
            [user(u), ["m", "f", ""][u % 3], age, ["Japan", "Peru"][u % 2], when(1_155_427_200 + u * 86_400, "%b %d, %Y")]
        )
    (at / "userid-profile.tsv").write_text(lines("\t", people))
    told = expected(
        w.events,
        user,
        item,
        values={("users", user(3), "age"): 21, ("users", user(1), "country"): "Peru", ("users", user(1), "age"): None},
        fields={("user", "country"): "categorical", ("user", "gender"): "categorical"},
    )
    return Folder({"interactions": "listens.tsv", "users": "userid-profile.tsv"}, told)


@folder
def yelp_arrays(at: Path, w: World) -> Folder:
    """Indented arrays of JSON, one of them with a byte order mark; objects and null within."""
    user, item = "qVc8ODYU5SZjKXVBgXdI{:02d}".format, "mh_-eMZ6K5RLWhZyISBh{:02d}".format
    reviews = []
    for n, e in enumerate(w.events):
        row: dict[str, Any] = {"review_id": f"r{n}", "user_id": user(e.user), "business_id": item(e.item), "stars": 4 + n % 2}
        reviews.append(row | {"useful": n % 7, "text": f"Went there [twice]\n{n} times.", "date": when(e.at)})
    (at / "review.json").write_text("\ufeff" + json.dumps(reviews, indent=2))
    places = []
    for i in range(w.items):
        row = {"business_id": item(i), "name": title(i), "city": CITIES[i % 5], "is_open": i % 2, "hours": None}
        row |= {"attributes": {"WiFi": "u'free'", "Parking": None if i % 4 else "True"}, "categories": ", ".join(genres(i))}
        places.append(row | {"latitude": 48.1 + i / 100, "review_count": 5 * i})
    (at / "business.json").write_text(json.dumps(places, indent=2, ensure_ascii=False))
    told = expected(
        w.events,
        user,
        item,
        columns=("user_id", "business_id", "date"),
        values={("items", item(3), "city"): "Düsseldorf", ("items", item(3), "categories"): genres(3)},
        fields={("item", "city"): "categorical", ("item", "categories"): "bag"},
        no_context=("review_id", "text", "useful"),
        title="name",
    )
    return Folder({"interactions": "review.json", "items": "business.json"}, told)


@folder
def retail_rocket(at: Path, w: World) -> Folder:
    """Milliseconds, visitors, an order of purchases only; a tree of categories that belongs to no table."""
    kinds = ("view", "addtocart", "transaction")
    log: list[list[object]] = [["timestamp", "visitorid", "event", "itemid", "transactionid"]]
    for n, e in enumerate(w.events):
        kind = kinds[0 if n % 10 < 7 else 1 if n % 10 < 9 else 2]
        log.append([e.at * 1000, e.user, kind, e.item, 4_000 + n if kind == "transaction" else ""])
    (at / "events.csv").write_text(lines(",", log))
    (at / "category_tree.csv").write_text(lines(",", [["categoryid", "parentid"], *([k, k // 3] for k in range(60))]))
    told = expected(
        w.events,
        columns=("visitorid", "itemid", "timestamp"),
        weights=kinds,
        no_context=("transactionid",),
    )
    return Folder({}, told)


@folder
def property_rows(at: Path, w: World) -> Folder:
    """A table of items with one row for each property."""
    log: list[list[object]] = [["user_id", "item_id", "timestamp"], *([e.user, e.item, e.at] for e in w.events)]
    (at / "interactions.csv").write_text(lines(",", log))
    rows: list[list[object]] = [["item_id", "property", "value"]]
    for i in range(w.items):
        rows += [[i, "category", genres(i)[0]], [i, "price", price(i)], [i, "available", i % 2]]
    (at / "items.csv").write_text(lines(",", rows))
    return Folder({}, expected(w.events, columns=("user_id", "item_id", "timestamp")))


@folder
def named_property_rows(at: Path, w: World) -> Folder:
    """The same table, whose file is named by the user, with times of each value."""
    log: list[list[object]] = [["user_id", "item_id", "timestamp"], *([e.user, e.item, e.at] for e in w.events)]
    (at / "log.csv").write_text(lines(",", log))
    rows: list[list[object]] = [["timestamp", "item_id", "property", "value"]]
    for i in range(w.items):
        for week in range(3):
            rows += [[week, i, "category", genres(i)[0]], [week, i, "price", f"n{price(i)}"], [week, i, "available", "1"]]
    (at / "properties.csv").write_text(lines(",", rows))
    told = Expected(refused="properties.csv.*a row for each value of .property.*pivot")
    return Folder({"interactions": "log.csv", "items": "properties.csv"}, told)


@folder
def netflix_sections(at: Path, w: World) -> Folder:
    """The item is on a separate line above its ratings."""
    out = []
    for i in range(w.items):
        out += [f"{i + 1}:", *(f"{e.user},{1 + e.at % 5},{when(e.at, '%Y-%m-%d')}" for e in w.events if e.item == i)]
    (at / "combined_data_1.txt").write_text("\n".join(out) + "\n")
    return Folder({"interactions": "combined_data_1.txt"}, Expected(refused="'1:' seems to hold an id.*awk"))
