"""Folders of twelve trades, in the forms that their programs export."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path

import polars as pl

from tests.data.scaffold.folders.world import (
    GENRES,
    Folder,
    World,
    comma,
    expected,
    folder,
    genres,
    lines,
    price,
    title,
    utc,
    when,
)

DAY = 86_400


def written(rows: Iterable[Sequence[object]], separator: str = ",", end: str = "\r\n", quoting: int = csv.QUOTE_MINIMAL) -> str:
    """Write cells as CSV, in quotes where these are needed."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def digest(number: int) -> str:
    """Return an id of hexadecimal digits."""
    return hashlib.sha1(f"{number}".encode()).hexdigest()


def clock(seconds: int) -> str:
    """Write a duration as 1:02:33."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


@folder
def bookshop_ledger(at: Path, w: World) -> Folder:
    """Titles above the header, a total below, short names of ids, postcodes that begin with 0."""
    user, item = "1{:04d}".format, "978-3-{:05d}".format
    log: list[list[object]] = [["Beleg", "Kd-Nr", "Artikelnr", "Menge", "VK brutto", "Datum"]]
    for n, e in enumerate(w.events):
        log.append([f"RE{50_000 + n // 2}", user(e.user), item(e.item), "1,00", comma(price(e.item)), when(e.at, "%d.%m.%Y")])
    above = "Buchhandlung Müller & Söhne;;;;;\r\nUmsatzliste 2024;;;;;\r\n\r\n"
    sales = above + lines(";", log, "\r\n") + "Summe;;;1.200,00;31.221,40;\r\n"
    books: list[list[object]] = [["Artikelnr", "Titel", "Warengruppe", "Preis", "Lagernd"]]
    books += [[item(i), f"Größe {title(i)}", GENRES[i % 5], f"{comma(price(i))} €", "JN"[i % 2]] for i in range(w.items)]
    people: list[list[object]] = [["Kd-Nr", "Name", "PLZ", "Newsletter"]]
    people += [[user(u), f"Jörg Schäfer {u}", f"0{1067 + u % 7}", ["ja", "nein"][u % 2]] for u in range(w.users)]
    for name, text in (("umsatz", sales), ("artikel", lines(";", books, "\r\n")), ("kunden", lines(";", people, "\r\n"))):
        (at / f"{name}.csv").write_bytes(text.encode("cp1252"))
    told = expected(
        w.events,
        user,
        item,
        DAY,
        columns=("Kd-Nr", "Artikelnr", "Datum"),
        values={
            ("items", "978-3-00030", "Preis"): price(30),
            ("users", "10002", "PLZ"): "01069",
            ("users", "10002", "Newsletter"): True,
        },
        fields={("item", "Preis"): "numeric", ("item", "Warengruppe"): "categorical", ("user", "PLZ"): "categorical"},
        no_context=("Menge",),
        title="Titel",
    )
    return Folder({"interactions": "umsatz.csv", "items": "artikel.csv", "users": "kunden.csv"}, told)


@folder
def news_click_parts(at: Path, w: World) -> Folder:
    """JSON lines in parts, milliseconds, a user without an id in some rows, clicks of 0 and 1."""
    user, item = "u-{:x}".format, "{}".format
    (at / "clicks").mkdir()
    rows = []
    for n, e in enumerate(w.events):
        rows.append(
            {
                "event_id": n,
                "ts": when(e.at, "%Y-%m-%dT%H:%M:%S.250Z"),
                "user": {"id": user(e.user), "platform": ["ios", "web"][e.user % 2]},
                "article_id": e.item,
                "clicked": int(n % 3 == 0),
                "position": n % 20,
            }
        )
    rows += [{**row, "user": {"id": None, "platform": "web"}} for row in rows[::50]]
    for part in range(3):
        with gzip.open(at / "clicks" / f"part-{part:05}.json.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows[part::3]))
    with gzip.open(at / "articles.jsonl.gz", "wt") as file:
        for i in range(w.items):
            article = {"article_id": i, "title": title(i), "category": GENRES[i % 5], "entities": genres(i)}
            file.write(json.dumps({**article, "premium": i % 4 == 0}) + "\n")
    told = expected(
        w.events,
        user,
        item,
        more=0.25,
        columns=("user.id", "article_id", "ts"),
        taken=400,
        values={("items", "6", "entities"): genres(6), ("items", "8", "premium"): True},
        fields={("item", "category"): "categorical", ("item", "entities"): "bag", ("user", "user.platform"): "categorical"},
        no_context=("event_id",),
        title="title",
    )
    return Folder({"interactions": "clicks", "items": "articles.jsonl.gz"}, told)


@folder
def music_plays_with_quotes_in_names(at: Path, w: World) -> Folder:
    """No header, and names that begin with a quoted part; the first is below line 500."""
    item = "mb-{:08x}".format
    artists = ['"Weird Al" Yankovic', "Sigur Rós", '"Heroes"', "Guns N' Roses", 'The "Blue" Men']
    rows = []
    for n, e in enumerate(w.events):
        name = "Björk" if n < 600 else artists[e.item % 5]
        rows.append([digest(e.user), item(e.item), name, 1 + n % 400, e.at])
    (at / "plays.tsv").write_text(lines("\t", rows), encoding="utf-8")
    return Folder({"interactions": "plays.tsv"}, expected(w.events, digest, item))


@folder
def order_lines_with_customer_notes(at: Path, w: World) -> Folder:
    """Notes of customers beside their addresses; names of products with quotes and commas."""
    user, item = "ann{}@example.com".format, "WOO-{:03d}-BL".format
    header = ["Order Number", "Order Status", "Order Date", "Customer Note", "Email (Billing)", "SKU", "Item Name", "Item Cost"]
    log: list[list[object]] = [header]
    for n, e in enumerate(w.events):
        note, status = "Leave at door,\nplease" if n % 90 == 0 else "", ["Completed", "Processing"][n % 2]
        shown = f'Hoodie, "soft" {e.item}'
        log.append(
            [4000 + n // 2, status, when(e.at, "%Y-%m-%d %H:%M"), note, user(e.user), item(e.item), shown, price(e.item)]
        )
    stock: list[list[object]] = [["ID", "Type", "SKU", "Name", "In stock?", "Regular price", "Categories"]]
    for i in range(w.items):
        kind, group = ["simple", "variable"][i % 2], ", ".join(genres(i))
        stock.append([900 + i, kind, item(i), f'Hoodie, "soft" {i}', int(i % 5 > 0), price(i), group])
    (at / "orders.csv").write_text(written(log), encoding="utf-8-sig")
    (at / "products.csv").write_text(written(stock), encoding="utf-8-sig")
    told = expected(
        w.events,
        user,
        item,
        60,
        columns=("Email (Billing)", "SKU", "Order Date"),
        values={("items", "WOO-006-BL", "Categories"): genres(6), ("items", "WOO-006-BL", "Name"): 'Hoodie, "soft" 6'},
        fields={("item", "Regular price"): "numeric", ("item", "Categories"): "bag"},
        title="Name",
    )
    return Folder({"interactions": "orders.csv", "items": "products.csv"}, told)


@folder
def library_loans(at: Path, w: World) -> Folder:
    """Three dates with the day first, years and some n.d. among them, and authors whose surname comes first."""
    user, item = "B{:04d}".format, "30128{:09d}".format
    log: list[list[object]] = [["Loan ID", "Borrower No", "Barcode", "Date Issued", "Date Due", "Date Returned", "Renewals"]]
    for n, e in enumerate(w.events):
        days = [when(e.at + more * DAY, "%d/%m/%Y") for more in (0, 21, n % 20)]
        log.append([700_000 + n, user(e.user), item(e.item), *days[:2], days[2] if n % 6 else "", n % 4])
    books: list[list[object]] = [["Barcode", "Title", "Author", "Pub. Year"]]
    for i in range(w.items):
        books.append([item(i), title(i), f"Smith, J. {i % 7}", 1950 + i * 3 % 70 if i % 10 else "n.d."])
    (at / "loans.csv").write_text(written(log))
    (at / "catalogue.csv").write_text(written(books))
    told = expected(
        w.events,
        user,
        item,
        DAY,
        columns=("Borrower No", "Barcode", "Date Issued"),
        values={("items", item(5), "Pub. Year"): 1965, ("items", item(10), "Pub. Year"): None},
        fields={("item", "Author"): "categorical", ("item", "Pub. Year"): "numeric"},
        no_context=("Loan ID", "Date Due", "Date Returned", "Renewals"),
        title="Title",
    )
    return Folder({"interactions": "loans.csv", "items": "catalogue.csv"}, told)


@folder
def recipe_reviews(at: Path, w: World) -> Folder:
    """Reviews over several lines, lists as JSON, and another name of the id in each table."""
    user, item = (lambda u: f"{38_094 + u * 31}"), (lambda i: f"{40_893 + i * 17}")
    log: list[list[object]] = [["user_id", "recipe_id", "date", "rating", "review"]]
    for n, e in enumerate(w.events):
        log.append([user(e.user), item(e.item), when(e.at, "%Y-%m-%d"), n % 6, f'Great with a salad, "yum".\nCooked on {n}.'])
    food: list[list[object]] = [["name", "id", "minutes", "tags", "ingredients"]]
    for i in range(w.items):
        food.append([title(i), item(i), 5 + i * 7 % 30, json.dumps(genres(i)), json.dumps(["butter", f"herb {i % 4}"])])
    (at / "RAW_interactions.csv").write_text(written(log, end="\n"))
    (at / "RAW_recipes.csv").write_text(written(food, end="\n"))
    told = expected(
        w.events,
        user,
        item,
        DAY,
        columns=("user_id", "recipe_id", "date"),
        values={("items", item(6), "tags"): genres(6), ("items", item(6), "ingredients"): ["butter", "herb 2"]},
        fields={("item", "tags"): "bag", ("item", "ingredients"): "bag"},
        no_context=("rating", "review"),
        title="name",
    )
    return Folder({"interactions": "RAW_interactions.csv", "items": "RAW_recipes.csv"}, told)


@folder
def game_purchases(at: Path, w: World) -> Folder:
    """No header and no times; names of games as ids, with commas; what was done, and hours of play."""
    user, item = "1516{:05d}".format, "Elder Lands {}, Part 2".format
    rows: list[list[object]] = []
    for n, e in enumerate(w.events):
        rows.append([user(e.user), item(e.item), ["purchase", "play"][n % 2], 1.0 if n % 2 == 0 else n * 7 % 300 / 10, 0])
    (at / "steam.csv").write_text(written(rows, end="\n"))
    told = expected(w.events, user, item, weights=("play", "purchase"))
    return Folder({"interactions": "steam.csv"}, told)


@folder
def job_board_flags(at: Path, w: World) -> Folder:
    """Times with an offset, flags of what was done, an array of objects."""
    user, item = "CAND-{:05d}".format, "V{:04d}".format
    log: list[list[object]] = [["candidate_ref", "vacancy_ref", "seen_at", "viewed", "applied"]]
    for n, e in enumerate(w.events):
        log.append([user(e.user), item(e.item), when(e.at + 3600, "%Y-%m-%d %H:%M:%S+01:00"), "True", str(n % 4 == 0)])
    (at / "activity.csv").write_text(written(log, end="\n"))
    jobs = [
        {"vacancy_ref": item(i), "job_title": title(i), "skills": genres(i), "salary": {"min": price(i), "currency": "EUR"}}
        for i in range(w.items)
    ]
    (at / "vacancies.json").write_text(json.dumps(jobs, indent=2))
    people = [["candidate_ref", "wanted", "location"]]
    people += [[user(u), "|".join(genres(u)), ["Wien", "Linz", "N/A"][u % 3]] for u in range(w.users)]
    (at / "candidates.csv").write_text(written(people, end="\n"))
    told = expected(
        w.events,
        user,
        item,
        columns=("candidate_ref", "vacancy_ref", "seen_at"),
        taken=300,
        values={
            ("items", "V0003", "salary.min"): price(3),
            ("users", user(3), "wanted"): genres(3),
            ("users", user(2), "location"): None,
        },
        fields={("item", "skills"): "bag", ("item", "salary.min"): "numeric", ("user", "wanted"): "bag"},
        no_context=("viewed", "applied"),
        title="job_title",
    )
    return Folder({"interactions": "activity.csv", "items": "vacancies.json", "users": "candidates.csv"}, told)


@folder
def hotel_searches_by_day(at: Path, w: World) -> Folder:
    """Parquet by day, where the day is in the path only; large ids, some missing; words as categories."""
    user, item = "90000{:05d}".format, "{}".format
    frame = pl.DataFrame(
        {
            "visitor_id": [int(user(e.user)) for e in w.events],
            "hotel_id": [e.item for e in w.events],
            "action": [["view", "view", "book"][n % 3] for n in range(len(w.events))],
            "dt": [when(e.at, "%Y-%m-%d") for e in w.events],
        }
    ).cast({"hotel_id": pl.Int32, "action": pl.Categorical})
    for (day,), part in frame.group_by("dt", maintain_order=True):
        home = at / "searches" / f"dt={day}"
        home.mkdir(parents=True)
        nobody = part.head(1).with_columns(visitor_id=pl.lit(None, pl.Int64))
        pl.concat([part, nobody]).drop("dt").write_parquet(home / "part-0.parquet")
    hotels = [{"hotel_id": i, "location": {"city": GENRES[i % 5]}, "amenities": genres(i)} for i in range(w.items)]
    pl.DataFrame(hotels).write_parquet(at / "hotels.parquet")
    told = expected(
        w.events,
        user,
        item,
        DAY,
        columns=("visitor_id", "hotel_id", "dt"),
        weights=("view", "book"),
        values={("items", "6", "location.city"): GENRES[1], ("items", "6", "amenities"): genres(6)},
        fields={("item", "location.city"): "categorical", ("item", "amenities"): "bag"},
    )
    return Folder({"interactions": "searches", "items": "hotels.parquet"}, told)


@folder
def course_progress(at: Path, w: World) -> Folder:
    """Tabs in UTF-16, months as words, percentages, and dates and some Never among them."""
    user, item = "learner{}@uni.edu".format, "CS-{:03d}".format
    log: list[list[object]] = [["Learner Email", "Course Code", "Enrolled On", "Last access", "Progress"]]
    for n, e in enumerate(w.events):
        last = "Never" if n % 11 == 0 else when(e.at + 30 * DAY, "%d %b %Y")
        log.append([user(e.user), item(e.item), when(e.at, "%d %b %Y"), last, f"{n % 21 * 5}%"])
    courses: list[list[object]] = [["Course Code", "Course Name", "Level", "Credits"]]
    courses += [[item(i), f"Données {title(i)}", ["Beginner", "Advanced"][i % 2], 2.5 + i % 4] for i in range(w.items)]
    (at / "enrolments.txt").write_bytes(written(log, "\t").encode("utf-16"))
    (at / "courses.txt").write_bytes(written(courses, "\t").encode("utf-16"))
    told = expected(
        w.events,
        user,
        item,
        DAY,
        columns=("Learner Email", "Course Code", "Enrolled On"),
        values={("items", "CS-003", "Credits"): 5.5, ("items", "CS-003", "Level"): "Advanced"},
        fields={("item", "Level"): "categorical", ("item", "Credits"): "numeric"},
        no_context=("Last access", "Progress"),
        title="Course Name",
    )
    return Folder({"interactions": "enrolments.txt", "items": "courses.txt"}, told)


@folder
def pharmacy_sales(at: Path, w: World) -> Folder:
    """All cells in quotes, ids that begin with zeros, a compound in capitals for the card, date and time in two columns."""
    user, item = "{:08d}".format, (lambda i: f"{4000 + i * 37:08}")
    log: list[list[object]] = [["KARTENNR", "PZN", "DATUM", "UHRZEIT", "MENGE", "ERLOES"]]
    for n, e in enumerate(w.events):
        log.append([user(e.user), item(e.item), when(e.at, "%Y%m%d"), when(e.at, "%H%M"), 1 + n % 3, comma(price(e.item))])
    drugs: list[list[object]] = [["PZN", "BEZEICHNUNG", "DARREICHUNG", "AVP"]]
    drugs += [[item(i), f"SALBE {title(i)} FÜR HÄNDE", ["TABL", "SALB"][i % 2], comma(price(i))] for i in range(w.items)]
    for name, rows in (("abverkauf", log), ("artikel", drugs)):
        (at / f"{name}.csv").write_bytes(written(rows, ";", quoting=csv.QUOTE_ALL).encode("iso-8859-15"))
    told = expected(
        w.events,
        user,
        item,
        60,
        columns=("KARTENNR", "PZN", "DATUM"),
        values={("items", "00004037", "AVP"): price(1), ("items", "00004037", "DARREICHUNG"): "SALB"},
        fields={("item", "AVP"): "numeric", ("item", "DARREICHUNG"): "categorical"},
        no_context=("MENGE",),
        title="BEZEICHNUNG",
    )
    return Folder({"interactions": "abverkauf.csv", "items": "artikel.csv"}, told)


@folder
def podcast_plays(at: Path, w: World) -> Folder:
    """Milliseconds, durations, dates as in mails, names in camel case."""
    user, item = (lambda u: digest(u)[:12]), "ep_{}".format
    log = []
    for n, e in enumerate(w.events):
        row: dict[str, object] = {"listenerId": user(e.user), "episodeId": item(e.item), "playedAtMs": e.at * 1000 + 125}
        log.append(
            json.dumps({**row, "listenedFor": clock(20 + n * 17 % 5000), "device": [None, "car", "phone"][n % 3]}) + "\n"
        )
    (at / "plays.ndjson").write_text("".join(log))
    episodes: list[list[object]] = [["episodeId", "show", "title", "published", "explicit", "tags"]]
    for i in range(w.items):
        mailed = format_datetime(utc(1_678_000_000) + timedelta(i))
        episodes.append(
            [item(i), f"Show {i % 8}", f"#{i}: all about, well, {i}", mailed, ["yes", "no"][i % 2], ",".join(genres(i))]
        )
    (at / "episodes.csv").write_text(written(episodes, end="\n"))
    told = expected(
        w.events,
        user,
        item,
        more=0.125,
        columns=("listenerId", "episodeId", "playedAtMs"),
        values={("items", "ep_6", "tags"): genres(6), ("items", "ep_6", "explicit"): True},
        fields={("item", "show"): "categorical", ("item", "tags"): "bag"},
        no_context=("listenedFor",),
        title="title",
    )
    return Folder({"interactions": "plays.ndjson", "items": "episodes.csv"}, told)
