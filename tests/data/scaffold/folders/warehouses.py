"""Folders as shop systems and data warehouses of several countries export them."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl

from tests.data.scaffold.folders.world import (
    Expected,
    Folder,
    World,
    comma,
    expected,
    folder,
    genres,
    lines,
    price,
    title,
    turn,
    utc,
    when,
)


@folder
def woocommerce_orders(at: Path, w: World) -> Folder:
    """Mail addresses as customers, breaks in quoted addresses, states of orders, paths of categories."""
    user, item = "kunde{}@example.com".format, "WC-{:03d}".format
    log: list[list[object]] = [["Order ID", "Order Status", "Order Date", "Billing Address", "Customer Email", "SKU", "Qty"]]
    for n, e in enumerate(w.events):
        state = turn(n, ("wc-completed", 8), ("wc-processing", 2), ("wc-refunded", 1))
        address = f'"{e.user} Main St.\nFlat {e.user % 7}, 2nd floor"'
        log.append([90_000 + n, state, when(e.at), address, user(e.user), item(e.item), 1 + n % 2])
    rows: list[list[object]] = [["ID", "SKU", "Name", "Published", "Categories", "Regular price", "Images"]]
    for i in range(w.items):
        path = f"Home > {['Chairs', 'Lamps', 'Rugs'][i % 3]}"
        rows.append([500 + i, item(i), f'"{title(i)}, oak"', 1, path, f"{price(i):.2f}", f"https://x.org/{i}.jpg"])
    (at / "orders.csv").write_text(lines(",", log))
    (at / "wc-product-export.csv").write_text("\ufeff" + lines(",", rows))
    told = expected(
        [e for n, e in enumerate(w.events) if n % 11 != 10],  # without what was refunded
        user,
        item,
        columns=("Customer Email", "SKU", "Order Date"),
        values={("items", "WC-003", "Regular price"): price(3), ("items", "WC-003", "Categories"): "Home > Chairs"},
        fields={("item", "Categories"): "categorical", ("item", "Regular price"): "numeric"},
        no_context=("Order ID", "Order Status", "Billing Address", "Qty"),
        title="Name",
    )
    return Folder({"interactions": "orders.csv", "items": "wc-product-export.csv"}, told)


@folder
def google_sheet(at: Path, w: World) -> Folder:
    """Titles above the header, check boxes, days without leading zeros, money of two signs, shares in percent."""
    user, item = "P{:03d}".format, "Course {}".format
    out = [["Bookings 2024", "", "", ""], ["", "", "", ""], ["Participant", "Course", "Booked on", "Fee"]]
    for e in w.events:
        moment = utc(e.at)
        clock = f"{moment.month}/{moment.day}/{moment.year} {moment.hour}:{moment.minute:02}:{moment.second:02}"
        out.append([user(e.user), item(e.item), clock, f'"€{price(e.item):,.2f}"'])
    (at / "bookings.csv").write_text(lines(",", out, "\r\n"))
    rows: list[list[object]] = [["Course", "Subject", "Online", "Discount", "Hours"]]
    rows += [[item(i), genres(i)[0], ["TRUE", "FALSE"][i % 2], f"{i % 4 * 5}%", 1 + i / 2] for i in range(w.items)]
    (at / "courses.csv").write_text(lines(",", rows, "\r\n"))
    told = expected(
        w.events,
        user,
        item,
        columns=("Participant", "Course", "Booked on"),
        values={("items", item(3), "Online"): "FALSE", ("items", item(3), "Hours"): 2.5, ("items", item(3), "Discount"): 15},
        fields={("item", "Subject"): "categorical", ("item", "Online"): "categorical"},
        no_context=("Fee",),
    )
    return Folder({"interactions": "bookings.csv", "items": "courses.csv"}, told)


@folder
def portuguese_sales(at: Path, w: World) -> Folder:
    """Latin-1, semicolons, reais, days first, sim and não."""
    user, item = "{:06d}".format, "{:05d}".format
    log: list[list[object]] = [["Código do cliente", "Código do produto", "Data da compra", "Quantidade", "Valor pago"]]
    for n, e in enumerate(w.events):
        log.append([user(e.user), item(e.item), when(e.at, "%d/%m/%Y %H:%M"), 1 + n % 3, f"R$ {comma(price(e.item))}"])
    rows: list[list[object]] = [["Código do produto", "Descrição", "Seção", "Preço", "Disponível"]]
    for i in range(w.items):
        cost, there = f"R$ {comma(price(i))}", ["Sim", "Não"][i % 2]
        rows.append([item(i), f"{title(i)} à mão", ["Móveis", "Cozinha"][i % 2], cost, there])
    (at / "vendas.csv").write_bytes(lines(";", log, "\r\n").encode("latin-1"))
    (at / "produtos.csv").write_bytes(lines(";", rows, "\r\n").encode("latin-1"))
    told = expected(
        w.events,
        user,
        item,
        60,
        columns=("Código do cliente", "Código do produto", "Data da compra"),
        values={("items", "00039", "Preço"): price(39), ("items", "00039", "Disponível"): False},
        fields={("item", "Seção"): "categorical", ("item", "Preço"): "numeric"},
        no_context=("Quantidade", "Valor pago"),
        title="Descrição",
    )
    return Folder({"interactions": "vendas.csv", "items": "produtos.csv"}, told)


@folder
def turkish_orders(at: Path, w: World) -> Folder:
    """cp1254, lira, evet and hayır, days first."""
    user, item = "M{:04d}".format, "U{:03d}".format
    log: list[list[object]] = [["Müşteri No", "Ürün Kodu", "Sipariş Tarihi"]]
    log += [[user(e.user), item(e.item), when(e.at, "%d.%m.%Y %H:%M:%S")] for e in w.events]
    rows: list[list[object]] = [["Ürün Kodu", "Ürün Adı", "Kategori", "Fiyat", "Stokta"]]
    for i in range(w.items):
        cost, there = f"{comma(price(i))} TL", ["Evet", "Hayır"][i % 2]
        rows.append([item(i), f"{title(i)} ışıklı", ["Eşya", "Mutfak"][i % 2], cost, there])
    (at / "siparisler.csv").write_bytes(lines(";", log).encode("cp1254"))
    (at / "urunler.csv").write_bytes(lines(";", rows).encode("cp1254"))
    told = expected(
        w.events,
        user,
        item,
        columns=("Müşteri No", "Ürün Kodu", "Sipariş Tarihi"),
        values={("items", "U039", "Fiyat"): price(39), ("items", "U039", "Stokta"): False},
        fields={("item", "Kategori"): "categorical", ("item", "Fiyat"): "numeric"},
    )
    return Folder({"interactions": "siparisler.csv", "items": "urunler.csv"}, told)


@folder
def polish_orders(at: Path, w: World) -> Folder:
    """cp1250, blanks between thousands, złoty, tak and nie."""
    user, item = "K{:05d}".format, "T-{:04d}".format
    log: list[list[object]] = [["Klient", "Towar", "Data zamówienia", "Ilość"]]
    log += [[user(e.user), item(e.item), when(e.at), 1 + n % 3] for n, e in enumerate(w.events)]
    rows: list[list[object]] = [["Towar", "Nazwa", "Dział", "Cena", "Dostępny"]]
    for i in range(w.items):
        cost = f"{price(i):,.2f}".replace(",", " ").replace(".", ",") + " zł"
        rows.append([item(i), f"{title(i)} – żółty", ["Łazienka", "Kuchnia"][i % 2], cost, ["tak", "nie"][i % 2]])
    (at / "zamowienia.csv").write_bytes(lines(";", log).encode("cp1250"))
    (at / "towary.csv").write_bytes(lines(";", rows).encode("cp1250"))
    told = expected(
        w.events,
        user,
        item,
        columns=("Klient", "Towar", "Data zamówienia"),
        values={("items", "T-0039", "Cena"): price(39), ("items", "T-0038", "Dział"): "Łazienka"},
        fields={("item", "Dział"): "categorical", ("item", "Cena"): "numeric"},
        no_context=("Ilość",),
        title="Nazwa",
    )
    return Folder({"interactions": "zamowienia.csv", "items": "towary.csv"}, told)


@folder
def warehouse_parquet(at: Path, w: World) -> Folder:
    """Unsigned ids, nanoseconds with a time zone, decimals, categories, and columns of bytes."""
    first = 2**63 + 5
    log = pl.DataFrame(
        {
            "account_id": pl.Series([first + e.user for e in w.events], dtype=pl.UInt64),
            "content_id": pl.Series([e.item for e in w.events], dtype=pl.Int16),
            "event_ts": pl.Series([datetime.fromtimestamp(e.at, UTC) for e in w.events], dtype=pl.Datetime("ns", "UTC")),
            "raw": [b"\x00\xff" for _ in w.events],
            "event_name": pl.Series([turn(n, ("play", 4), ("like", 1)) for n in range(len(w.events))], dtype=pl.Categorical),
        }
    )
    (at / "events").mkdir()
    log.head(700).write_parquet(at / "events" / "part-00000.zstd.parquet")
    log.tail(-700).write_parquet(at / "events" / "part-00001.zstd.parquet")
    (at / "events" / "_SUCCESS").touch()
    pl.DataFrame(
        {
            "content_id": pl.Series(range(w.items), dtype=pl.Int64),
            "title": [title(i) for i in range(w.items)],
            "price": pl.Series([Decimal(str(price(i))) for i in range(w.items)], dtype=pl.Decimal(12, 2)),
            "kind": pl.Series([genres(i)[0] for i in range(w.items)], dtype=pl.Categorical),
            "released": [datetime(2000 + i % 20, 1 + i % 12, 1).date() for i in range(w.items)],
        }
    ).write_parquet(at / "content.parquet")
    told = expected(
        w.events,
        lambda u: str(first + u),
        columns=("account_id", "content_id", "event_ts"),
        weights=("play", "like"),
        values={("items", "3", "price"): price(3), ("items", "3", "kind"): "Kids"},
        fields={("item", "kind"): "categorical", ("item", "price"): "numeric"},
        title="title",
    )
    return Folder({"interactions": "events", "items": "content.parquet"}, told)


@folder
def names_that_tell_nothing(at: Path, w: World) -> Folder:
    """Columns a, b and c."""
    (at / "log.csv").write_text(lines(",", [["a", "b", "c"], *([f"u{e.user}", f"i{e.item}", e.at] for e in w.events)]))
    return Folder({"interactions": "log.csv"}, Expected(refused="Name the column with --user-id"))


@folder
def duckdb_copy(at: Path, w: World) -> Folder:
    """Lists without quotes, objects as text, offsets of hours only, true and false."""
    log: list[list[object]] = [["ts", "member_id", "track_id", "device"]]
    for n, e in enumerate(w.events):
        device = '"' + "{'os': iOS, 'v': " + str(n % 3) + '}"'
        log.append([f"{when(e.at)}+00", f"m{e.user}", e.item, device])
    rows: list[list[object]] = [["track_id", "name", "tags", "explicit", "seconds"]]
    for i in range(w.items):
        rows.append([i, title(i), f'"[{", ".join(genres(i))}]"', ["true", "false"][i % 2], 120.5 + i * 7 % 50])
    (at / "plays.csv").write_text(lines(",", log))
    (at / "tracks.csv").write_text(lines(",", rows))
    told = expected(
        w.events,
        "m{}".format,
        columns=("member_id", "track_id", "ts"),
        values={("items", "3", "tags"): genres(3), ("items", "3", "explicit"): "false"},
        fields={("item", "tags"): "bag", ("item", "seconds"): "numeric", ("item", "explicit"): "categorical"},
        title="name",
    )
    return Folder({"interactions": "plays.csv", "items": "tracks.csv"}, told)


@folder
def clickhouse_types(at: Path, w: World) -> Folder:
    """A line of types below the header."""
    log: list[list[object]] = [["UserID", "ItemID", "EventTime"], ["UInt64", "String", "DateTime"]]
    log += [[e.user, f"i{e.item}", when(e.at)] for e in w.events]
    (at / "hits.tsv").write_text(lines("\t", log))
    told = expected(w.events, str, "i{}".format, columns=("UserID", "ItemID", "EventTime"))
    return Folder({"interactions": "hits.tsv"}, told)


@folder
def python_literals(at: Path, w: World) -> Folder:
    """Lines that Python wrote, not JSON."""
    rows = [repr({"user_id": str(e.user), "item_id": str(e.item), "posted": json.dumps(when(e.at))}) for e in w.events]
    (at / "reviews.json").write_text("\n".join(rows))
    return Folder({"interactions": "reviews.json"}, Expected(refused="reviews.json: the file cannot be read .*double quotes"))
