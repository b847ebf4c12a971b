"""Folders as programs export tables: data sets, databases, R, pandas."""

import gzip
import io
import json
import zipfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tests.data.scaffold.folders.world import Expected, Folder, World, expected, folder, genres, lines, price, title, utc, when


@folder
def movielens_dat(at: Path, w: World) -> Folder:
    """No header, two colons, Latin-1, half stars."""
    one = lambda number: str(number + 1)  # noqa: E731
    (at / "ratings.dat").write_text(
        lines("::", [(one(e.user), one(e.item), w.pick.randint(1, 10) / 2, e.at) for e in w.events])
    )
    movies = [(one(i), f"Misérables, Les {title(i)} ({1950 + i % 50})", "|".join(genres(i))) for i in range(w.items)]
    (at / "movies.dat").write_bytes(lines("::", movies).encode("latin-1"))
    users = [(one(u), "MF"[u % 2], [1, 18, 25, 35][u % 4], u % 21, f"{10000 + u * 7 % 60:05d}") for u in range(w.users)]
    (at / "users.dat").write_text(lines("::", users))
    told = expected(
        w.events,
        one,
        one,
        columns=("user_id", "item_id", "column_4"),
        values={
            ("items", "1", 3): ["Action", "War"],
            ("items", "1", 2): f"Misérables, Les {title(0)} (1950)",
            ("users", "2", 2): "F",
        },
        no_context=("column_3",),
        title="title",
    )
    return Folder({}, told)


@folder
def headerless_milliseconds(at: Path, w: World) -> Folder:
    """No header, compressed, milliseconds; lists of Python."""
    with gzip.open(at / "events.tsv.gz", "wt") as file:
        file.write(lines("\t", [(f"u{e.user}", f"i{e.item}", e.at * 1000 + 5) for e in w.events]))
    rows: list[list[object]] = [["ITEM_ID", "TITLE", "GENRES", "IN_STOCK", "RELEASED"]]
    rows += [[f"i{i}", title(i), repr(genres(i)), i % 2, date(2000, 1, 1) + timedelta(days=i * 31)] for i in range(w.items)]
    (at / "items.txt").write_text(lines("|", rows))
    told = expected(w.events, "u{}".format, "i{}".format, more=0.005, title="TITLE")
    told.values = {("items", "i6", "TITLE"): title(6), ("items", "i6", "GENRES"): genres(6)}
    told.fields = {("item", "GENRES"): "bag"}
    return Folder({}, told)


@folder
def amazon_reviews(at: Path, w: World) -> Folder:
    """A zip archive, an index without a name, breaks in quoted cells; JSON lines with lists, objects and dollars."""
    out = io.StringIO()
    out.write(",reviewerID,asin,overall,verified,reviewText,unixReviewTime,reviewTime\n")
    for n, e in enumerate(w.events):
        day = utc(e.at).date()
        said, seconds = f'"Nice, but\nread ""the"" label {n}"', e.at // 86_400 * 86_400
        cells = [n, f"A{e.user:05X}ZQ", f"B00{e.item:04d}X", float(1 + n % 5), n % 3 == 0, said, seconds]
        out.write(lines(",", [[*cells, f'"{day:%m} {day.day}, {day.year}"']]))
    with zipfile.ZipFile(at / "reviews.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("reviews.csv", out.getvalue())
    with gzip.open(at / "meta.json.gz", "wt") as file:
        for i in range(w.items):
            row: dict[str, Any] = {"asin": f"B00{i:04d}X", "title": title(i), "category": ["Home", *genres(i)]}
            row["details"] = {"Brand": f"Brand {i % 7}", "Weight": f"{i % 9} pounds"}
            row |= {"price": f"${price(i):,.2f}"} if i % 4 else {}
            file.write(json.dumps(row) + "\n")
    told = expected(
        w.events,
        "A{:05X}ZQ".format,
        "B00{:04d}X".format,
        86_400,
        columns=("reviewerID", "asin", "unixReviewTime"),
        values={
            ("items", "B000039X", "price"): price(39),
            ("items", "B000039X", "category"): ["Home", *genres(39)],
            ("items", "B000039X", "details.Brand"): "Brand 4",
            ("items", "B000004X", "price"): None,
        },
        fields={("item", "category"): "bag", ("item", "price"): "numeric", ("item", "details.Brand"): "categorical"},
        no_context=("", "overall", "reviewText", "reviewTime", "verified"),
        title="title",
    )
    return Folder({"interactions": "reviews.csv.zip", "items": "meta.json.gz"}, told)


@folder
def zip_of_many(at: Path, _: World) -> Folder:
    """An archive with several files, so that it is ambiguous which one is meant."""
    with zipfile.ZipFile(at / "ml-tiny.zip", "w") as archive:
        for name in ("README.txt", "ratings.csv", "movies.csv"):
            archive.writestr(f"ml-tiny/{name}", "userId,movieId\n1,2\n")
    return Folder({"interactions": "ml-tiny.zip"}, Expected(refused="3 members .*ratings.csv.*Unpack it"))


@folder
def pandas_floats(at: Path, w: World) -> Folder:
    """Ids as floats, since some are missing; indexes without a name, items exported twice, names of months."""
    log: list[list[object]] = [["", "user_id", "item_id", "event_time", "value"]]
    for n, e in enumerate(w.events):
        user = "" if n % 40 == 7 else f"{e.user}.0"
        log.append([n, user, e.item, when(e.at, "%d-%b-%Y %H:%M:%S"), f"{n % 5}.5"])
    rows: list[list[object]] = [["Unnamed: 0", "item_id", "name", "department", "size"]]
    for k, i in enumerate([*range(w.items), 3, 4, 4]):
        rows.append([k, f"{i}.0", title(i), ["men", "women", "kids"][i % 3], ["S", "M", "L", ""][i % 4]])
    people: list[list[object]] = [["Unnamed: 0", "user_id", "age", "gender"]]
    people += [[u, u, "" if u % 6 == 0 else f"{20 + u % 50}.0", ["f", "m", "unknown"][u % 3]] for u in range(w.users)]
    for name, table in (("interactions", log), ("items", rows), ("users", people)):
        (at / f"{name}.csv").write_text(lines(",", table))
    told = expected(
        [e for n, e in enumerate(w.events) if n % 40 != 7],
        columns=("user_id", "item_id", "event_time"),
        values={("items", "3", "department"): "men", ("users", "1", "age"): 21, ("users", "6", "age"): None},
        fields={("item", "department"): "categorical", ("user", "gender"): "categorical"},
        no_context=("", "Unnamed: 0"),
        title="name",
    )
    return Folder({}, told)


@folder
def leftovers(at: Path, w: World) -> Folder:
    """An empty table of users, and files of other programs beside the tables."""
    log: list[list[object]] = [["user_id", "item_id", "timestamp"], *([e.user, e.item, e.at] for e in w.events)]
    (at / "interactions.csv").write_text(lines(",", log))
    rows: list[list[object]] = [["item_id", "title", "category"], *([i, title(i), genres(i)[0]] for i in range(w.items))]
    (at / "items.csv").write_text(lines(",", rows))
    for name in ("users.csv", "interactions.csv.bak", ".DS_Store", "~$items.xlsx", "README.txt"):
        (at / name).write_bytes(b"" if name == "users.csv" else b"\5owner")
    columns = ("user_id", "item_id", "timestamp")
    return Folder({}, expected(w.events, columns=columns, fields={("item", "category"): "categorical"}, title="title"))


@folder
def psql_output(at: Path, w: World) -> Folder:
    """What psql prints: blanks, a line below the header, the number of rows."""
    rows = [" user_id | product_id |     created_at      | kind ", f"{'-' * 9}+{'-' * 12}+{'-' * 21}+{'-' * 6}"]
    for n, e in enumerate(w.events):
        rows.append(f" {e.user:>7} | {f'P{e.item}':<10} | {when(e.at)} | {['view', 'buy'][n % 4 == 0]:<4}")
    (at / "interactions.txt").write_text("\n".join([*rows, f"({len(w.events)} rows)", ""]))
    columns = ("user_id", "product_id", "created_at")
    return Folder({}, expected(w.events, str, "P{}".format, columns=columns, weights=("view", "buy")))


@folder
def mysql_batch(at: Path, w: World) -> Folder:
    """What mysql prints: NULL in words, quotes as ordinary characters, dates of zeros."""
    log: list[list[object]] = [["customer_id", "product_id", "bought_at", "coupon"]]
    for n, e in enumerate(w.events):
        log.append(["NULL" if n % 30 == 4 else e.user, e.item, when(e.at), ["NULL", "SPRING", "VIP"][n % 3]])
    rows: list[list[object]] = [["id", "name", "description", "category_id", "price", "deleted_at"]]
    for i in range(w.items):
        gone = "NULL" if i % 7 else "0000-00-00 00:00:00"
        rows.append([i, f'The "Best" {title(i)}', f'{10 + i}" pan', 1 + i % 6, price(i), gone])
    (at / "purchases.txt").write_text(lines("\t", log))
    (at / "products.txt").write_text(lines("\t", rows))
    told = expected(
        [e for n, e in enumerate(w.events) if n % 30 != 4],
        columns=("customer_id", "product_id", "bought_at"),
        values={("items", "7", "name"): f'The "Best" {title(7)}', ("items", "7", "category_id"): 2},
        fields={("item", "category_id"): "categorical", ("item", "price"): "numeric"},
        title="name",
    )
    return Folder({}, told)


@folder
def r_write_table(at: Path, w: World) -> Folder:
    """Blanks between quoted cells, names of rows without a name in the header."""
    rows = ['"user" "item" "time" "rating"']
    rows += [f'"{n}" "u{e.user}" "i {e.item}" {e.at} {"NA" if n % 13 == 0 else 1 + n % 5}' for n, e in enumerate(w.events)]
    (at / "ratings.txt").write_text("\n".join(rows) + "\n")
    columns = ("user", "item", "time")
    return Folder({}, expected(w.events, "u{}".format, "i {}".format, columns=columns, no_context=("rating", "row")))


@folder
def wide_matrix(at: Path, w: World) -> Folder:
    """A column for each item."""
    taken = {(e.user, e.item) for e in w.events}
    rows: list[list[object]] = [["user", *(f"Movie {i}" for i in range(w.items))]]
    rows += [[f"u{u}", *(1 + i % 5 if (u, i) in taken else "" for i in range(w.items))] for u in range(w.users)]
    (at / "ratings.csv").write_text(lines(",", rows))
    return Folder({}, Expected(refused="a column for each item.*unpivot"))
