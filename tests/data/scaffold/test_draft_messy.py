"""Folders with typical defects: drafted without manual edits, and every value compared with the written one."""

import datetime
import gzip
import json
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.config import parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.data.files import scan_table
from recall.data.scaffold.draft import draft
from recall.errors import DataError

USERS, ITEMS, EVENTS = 30, 40, 400
GENRES = ("Drama", "Comedy", "Sci-Fi", "War")


@dataclass(frozen=True)
class Truth:
    """Content of the files.

    Attributes:
        users: age and city by id.
        items: title, price, genres and whether it is on sale, by id.
        events: user, item, unix seconds and rating; times differ.
    """

    users: dict[str, tuple[int, str]]
    items: dict[str, tuple[str, float, list[str], bool]]
    events: list[tuple[str, str, int, int]]


def truth(words: Sequence[str] = ("Amelie", "Alien", "Brazil"), user: str = "{}", item: str = "{}") -> Truth:
    rng = np.random.default_rng(0)
    users = {user.format(100 + n): (20 + n % 17, f"{words[n % 3]}stadt") for n in range(USERS)}
    items = {
        item.format(1 + n): (
            f"{words[n % 3]}, part {n}",
            round(1000.25 * (n % 5) + 7.5 + n, 2),
            [GENRES[n % 4], GENRES[(n + 1 + n // 4) % 4]][: 1 + n % 2],
            n % 3 == 0,
        )
        for n in range(ITEMS)
    }
    ids = list(items)
    start = int(datetime.datetime(2024, 1, 13, tzinfo=datetime.UTC).timestamp())
    times = start + 3600 * rng.permutation(EVENTS)
    events = [
        (list(users)[int(rng.integers(USERS))], ids[int(rng.integers(ITEMS))], int(time), int(rng.integers(1, 6)))
        for time in times
    ]
    return Truth(users, items, events)


def loaded(folder: Path, **options: Any) -> tuple[Dataset, str]:
    """Draft a configuration, and load the tables with it."""
    drafted = draft(folder, **options)
    return load_dataset(parse_config(tomllib.loads(drafted)), folder), drafted


def same_events(dataset: Dataset, told: Truth) -> None:
    """Check users and items of all rows, in order of user and time."""
    users, items = dataset.users[dataset.schema.user_id], dataset.items[dataset.schema.item_id]
    read = zip(users.gather(dataset.events["user"]), items.gather(dataset.events["item"]), strict=True)
    place = {user: number for number, user in enumerate(users)}
    expected = sorted(told.events, key=lambda event: (place[event[0]], event[2]))
    assert list(read) == [(user, item) for user, item, _, _ in expected]


def same_items(dataset: Dataset, told: Truth, columns: dict[str, int], id_column: str | None = None) -> None:
    """Check columns of the items: which part of the truth each holds."""
    table = {row[dataset.schema.item_id]: row for row in dataset.items.iter_rows(named=True)}
    for name, part in columns.items():
        for item, values in told.items.items():
            read = table[item][name]
            if part == 2 and isinstance(read, str):
                read = read.split("|")
            assert read == (pytest.approx(values[part]) if part == 1 else values[part]), (name, item)


def stamp(seconds: int, pattern: str) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(pattern)


def rows(separator: str, lines: Sequence[Sequence[object]]) -> str:
    return "".join(separator.join(map(str, line)) + "\n" for line in lines)


def test_movielens_1m_has_double_colons_latin_1_and_no_header(tmp_path: Path) -> None:
    told = truth(("Amélie", "Léon", "Brüder"))
    ratings = [(user, item, rating, time) for user, item, time, rating in told.events]
    (tmp_path / "ratings.dat").write_text(rows("::", ratings))
    movies = [(item, title, "|".join(genres)) for item, (title, _, genres, _) in told.items.items()]
    (tmp_path / "movies.dat").write_text(rows("::", movies), encoding="latin-1")
    (tmp_path / "users.dat").write_text(
        rows("::", [(user, "F", *rest) for user, rest in told.users.items()]), encoding="latin-1"
    )
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"title": 0, "column_3": 2})
    assert dataset.users["column_3"].to_list() == [str(age) for age, _ in told.users.values()]
    assert 'separator = "::"  # 4 columns in each of 400 lines' in drafted
    assert "and names are not numbers; the other tables have its ids" in drafted
    assert 'encoding = "cp1252"  # the bytes are not UTF-8, and read so they are text such as' in drafted


def test_movielens_100k_has_files_of_unusual_names(tmp_path: Path) -> None:
    told = truth(("Café", "Alien", "Brazil"))
    (tmp_path / "u.data").write_text(rows("\t", [(user, item, rating, time) for user, item, time, rating in told.events]))
    (tmp_path / "u.item").write_text(
        rows("|", [(item, title, price) for item, (title, price, _, _) in told.items.items()]), encoding="latin-1"
    )
    (tmp_path / "u.user").write_text(rows("|", [(user, age, "M") for user, (age, _) in told.users.items()]))
    (tmp_path / "README").write_text("about")
    dataset, _ = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"title": 0, "column_3": 1})


def test_german_spreadsheets_have_semicolons_cp1252_and_decimal_commas(tmp_path: Path) -> None:
    told = truth(("Straße", "Gemüse", "Öl"), user="K{}", item="A-{}")
    orders = [("Kundennummer", "Artikelnummer", "Datum", "Menge")]
    orders += [(user, item, stamp(time, "%d.%m.%Y %H:%M"), f"{rating},5") for user, item, time, rating in told.events]
    (tmp_path / "bestellungen.csv").write_text(rows(";", orders), encoding="cp1252")
    products = [("Artikelnummer", "Titel", "Preis")]
    products += [
        (item, title, f"{price:,.2f} €".replace(",", "_").replace(".", ",").replace("_", "."))
        for item, (title, price, _, _) in told.items.items()
    ]
    (tmp_path / "artikel.csv").write_text(rows(";", products), encoding="cp1252")
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"Titel": 0, "Preis": 1})
    assert 'times = { Datum = "%d.%m.%Y %H:%M" }' in drafted
    assert "numbers = { Preis = \",\" }  # such as '7,50 €' in Preis" in drafted
    assert 'user_id = "Kundennummer"  # the name says user' in drafted


def test_utf_16_from_a_spreadsheet(tmp_path: Path) -> None:
    told = truth(("Żółć", "Łódź", "Ænima"))
    lines = [
        ("customer id", "product id", "created at"),
        *((user, item, stamp(time, "%Y-%m-%d %H:%M:%S")) for user, item, time, _ in told.events),
    ]
    (tmp_path / "purchases.txt").write_text(rows("\t", lines), encoding="utf-16")
    titles = [("product id", "name"), *((item, title) for item, (title, *_) in told.items.items())]
    (tmp_path / "products.txt").write_text(rows("\t", titles), encoding="utf-16")
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"name": 0})
    assert 'encoding = "utf-16"  # its byte order mark says so' in drafted


def test_gzip_with_a_byte_order_mark(tmp_path: Path) -> None:
    told = truth()
    lines = [
        ("userId", "movieId", "rating", "timestamp"),
        *((user, item, rating, 1000 * time) for user, item, time, rating in told.events),
    ]
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(rows(",", lines).encode("utf-8-sig")))
    titles = [("movieId", "title"), *((item, f'"{title}"') for item, (title, *_) in told.items.items())]
    (tmp_path / "movies.csv.gz").write_bytes(gzip.compress(rows(",", titles).encode("utf-8-sig")))
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"title": 0})
    assert 'time = "timestamp"  # unix milliseconds' in drafted
    assert "data.formats" not in drafted


def test_zip_archives_with_one_member(tmp_path: Path) -> None:
    told = truth()
    for name, lines in {
        "clicks": [("visitor", "sku", "ts"), *((user, item, time) for user, item, time, _ in told.events)],
        "catalog": [("sku", "price"), *((item, price) for item, (_, price, _, _) in told.items.items())],
    }.items():
        with zipfile.ZipFile(tmp_path / f"{name}.csv.zip", "w") as archive:
            archive.writestr(f"{name}.csv", rows("|", lines))
    dataset, _ = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"price": 1})
    with zipfile.ZipFile(tmp_path / "clicks.csv.zip", "a") as archive:
        archive.writestr("more.csv", "a\n")
    with pytest.raises(DataError, match="the archive has 2 members"):
        draft(tmp_path)


def test_zstandard_and_spellings_of_missing_values(tmp_path: Path) -> None:
    import zstandard

    told = truth()
    lines = [("user_id", "item_id", "time"), *((user, item, time) for user, item, time, _ in told.events)]
    (tmp_path / "interactions.csv.zst").write_bytes(zstandard.compress(rows(",", lines).encode()))
    people = [
        ("user_id", "age", "city"),
        *((user, "?" if age == 25 else age, "NULL" if age == 26 else city) for user, (age, city) in told.users.items()),
    ]
    (tmp_path / "users.csv").write_text(rows(",", people))
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    expected = [
        (user, None if age == 25 else str(age), None if age == 26 else city) for user, (age, city) in told.users.items()
    ]
    assert dataset.users.select("user_id", "age", "city").rows() == expected
    assert 'nulls = ["?", "NULL"]  # missing: "?" among the numbers of age, "NULL" in city' in drafted


def test_json_lines_and_an_array(tmp_path: Path) -> None:
    told = truth()
    events = [{"user": user, "item": item, "at": stamp(time, "%Y-%m-%dT%H:%M:%SZ")} for user, item, time, _ in told.events]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    items = [
        {"item": item, "title": title, "genres": genres, "sale": sale} for item, (title, _, genres, sale) in told.items.items()
    ]
    (tmp_path / "items.json").write_text(json.dumps(items))
    dataset, _ = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"title": 0, "genres": 2, "sale": 3})


def test_hive_partitions(tmp_path: Path) -> None:
    told = truth()
    frame = pl.DataFrame(told.events, schema=["user_id", "item_id", "time", "rating"], orient="row")
    days = pl.from_epoch(frame["time"]).dt.date().cast(pl.String)
    for (day,), part in frame.with_columns(day=days).group_by("day"):
        folder = tmp_path / "events" / f"day={day}"
        folder.mkdir(parents=True)
        part.drop("day").write_parquet(folder / "part-0.parquet")
    (tmp_path / "events" / "_SUCCESS").write_text("")
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    assert 'interactions = "events"' in drafted


def test_a_partition_of_text_without_a_value_is_missing(tmp_path: Path) -> None:
    for value in ("de", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"land={value}").mkdir()
        (tmp_path / f"land={value}" / "part-0.csv").write_text("user_id\nu1\n")
    assert scan_table(tmp_path).collect()["land"].sort().to_list() == [None, "de"]


def test_backslashes_before_quotes_and_at_the_end_of_cells(tmp_path: Path) -> None:
    lines = [f'"u{n % 20}","i{n % 7}","C:\\\\dir{n % 3}\\\\","the \\"best\\", {n}"' for n in range(100)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,path,title", *lines]))
    read = loaded(tmp_path)[1]
    form = parse_config(tomllib.loads(read)).data.formats["interactions"]
    frame = scan_table(tmp_path / "interactions.csv", (), form).collect()
    assert frame.row(4) == ("u4", "i4", "C:\\dir1\\", 'the "best", 4')


def test_empty_columns_without_a_header_are_no_ids(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("".join(f"u{n % 20},,i{n % 7},\n" for n in range(100)))
    dataset, _ = loaded(tmp_path)
    assert (len(dataset.users), len(dataset.items)) == (20, 7)


def test_a_folder_of_parts_of_text(tmp_path: Path) -> None:
    told = truth(user="{:0>5}", item="00{}")
    (tmp_path / "log").mkdir()
    for number in range(4):
        lines = [("uid", "iid", "time"), *((user, item, time) for user, item, time, _ in told.events[number::4])]
        (tmp_path / "log" / f"part-{number}.csv").write_text(rows(";", lines))
    dataset, _ = loaded(tmp_path)
    same_events(dataset, told)
    assert "00100" in dataset.users["uid"].to_list()


def test_lists_in_programming_notation_truth_values_and_times_of_day(tmp_path: Path) -> None:
    told = truth(("The\nbreak", 'A "quoted"', "Plain"))
    pl.DataFrame(
        {
            "person_id": [event[0] for event in told.events],
            "book_id": [event[1] for event in told.events],
            "date": [stamp(event[2], "%m/%d/%Y %I:%M %p") for event in told.events],
        }
    ).write_csv(tmp_path / "reviews.csv")
    pl.DataFrame(
        {
            "book_id": list(told.items),
            "title": [one[0] for one in told.items.values()],
            "genres": [str(one[2]) for one in told.items.values()],
            "shelves": [str([{"id": 1, "name": genre} for genre in one[2]]) for one in told.items.values()],
            "sale": ["Yes" if one[3] else "No" for one in told.items.values()],
        }
    ).write_csv(tmp_path / "books.csv")
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"title": 0, "genres": 2, "shelves": 2})
    assert dataset.items["sale"][:ITEMS].to_list() == [one[3] for one in told.items.values()]
    assert 'booleans = { sale = ["Yes", "No"] }' in drafted
    assert 'lists = ["genres", "shelves"]' in drafted


def test_cyrillic_leading_zeros_and_dollars(tmp_path: Path) -> None:
    told = truth(("Москва", "Солярис", "Зеркало"), item="{:0>4}")
    lines = [("client_id", "product_id", "time"), *((user, item, time) for user, item, time, _ in told.events)]
    (tmp_path / "sales.csv").write_text(rows(",", lines))
    goods = [
        ("product_id", "title", "price"),
        *((item, title, f"${price:,.2f}") for item, (title, price, _, _) in told.items.items()),
    ]
    (tmp_path / "products.csv").write_text(rows("\t", goods), encoding="cp1251")
    dataset, drafted = loaded(tmp_path)
    same_events(dataset, told)
    same_items(dataset, told, {"title": 0, "price": 1})
    assert 'encoding = "cp1251"' in drafted
    assert 'numbers = { price = "." }' in drafted


def test_files_elsewhere_with_ids_of_their_own_names(tmp_path: Path) -> None:
    told = truth(user="u{}", item="i{}")
    elsewhere, folder = tmp_path / "downloads", tmp_path / "shop"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "a.csv").write_text(rows(",", [("who", "what", "time"), *((u, i, t) for u, i, t, _ in told.events)]))
    (elsewhere / "b.csv").write_text(rows(",", [("code", "price"), *((i, one[1]) for i, one in told.items.items())]))
    (elsewhere / "c.tsv").write_text(rows("\t", [("person", "age"), *((u, one[0]) for u, one in told.users.items())]))
    files = {"interactions": elsewhere / "a.csv", "users": elsewhere / "c.tsv", "items": elsewhere / "b.csv"}
    dataset, drafted = loaded(folder, user_id="who", item_id="what", files=files)
    same_events(dataset, told)
    same_items(dataset, told, {"price": 1})
    assert dataset.users.rows() == [(user, str(age)) for user, (age, _) in told.users.items()]
    assert 'id_in_items = "code"' in drafted
    assert 'interactions = "../downloads/a.csv"' in drafted


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"ratings.csv": "user_id,item_id\n1,2\n", "events.csv": "user_id,item_id\n1,2\n"},
            "several files may be the interact",
        ),
        ({"photos.zip": "x"}, "there is no interactions"),
        ({"interactions.csv": ""}, "the file is empty"),
        ({"interactions.csv": 'user_id,item_id\na,b\nc,"d\n'}, "the file cannot be read"),
        ({"interactions.csv": "a,b\n1,x\n2,y\n"}, "there is no column 'user_id'"),
    ],
)
def test_what_cannot_be_guessed_is_explained(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        draft(tmp_path)
    assert caught.value.hint
