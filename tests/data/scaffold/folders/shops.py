"""Folders of shops: orders, receipts, and tables of products and customers."""

import codecs
import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from tests.data.scaffold.folders.world import (
    CITIES,
    Event,
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
    utc,
    when,
)


@folder
def german_orders(at: Path, w: World) -> Folder:
    """cp1252, semicolons, decimal commas, days first, several lines an order, J and N."""
    user, item = "{:06d}".format, "{:05d}".format
    orders: list[list[object]] = [["Beleg-Nr.", "Kunden-Nr.", "Artikel-Nr.", "Bestelldatum", "Menge", "Einzelpreis", "Währung"]]
    for n, e in enumerate(w.events):
        cells = [2024000000 + n // 3, user(e.user), item(e.item), when(e.at, "%d.%m.%Y %H:%M"), 1 + n % 4 // 3 * 2]
        orders.append([*cells, comma(price(e.item)), "EUR"])
    products: list[list[object]] = [["Artikel-Nr.", "Bezeichnung", "Warengruppe", "Preis", "Gewicht (kg)", "Lieferbar"]]
    for i in range(w.items):
        group = ["Möbel", "Küche", "Bad"][i % 3]
        products.append([item(i), f'"{title(i)} für draußen"', group, f"{comma(price(i))} €", comma(i / 8, 3), "JN"[i % 2]])
    customers: list[list[object]] = [["Kunden-Nr.", "Ort", "PLZ", "Newsletter", "Geburtsdatum"]]
    for u in range(w.users):
        born = f"{1 + u % 28:02}.{1 + u % 12:02}.{1950 + u % 50}"
        customers.append([user(u), CITIES[u % 5], f"{1000 + u * 7 % 40:05d}", ["ja", "nein"][u % 2], born])
    for name, rows in (("bestellungen", orders), ("artikel", products), ("kunden", customers)):
        (at / f"{name}.csv").write_bytes(lines(";", rows, "\r\n").encode("cp1252"))
    files = {"interactions": "bestellungen.csv", "items": "artikel.csv", "users": "kunden.csv"}
    told = expected(
        w.events,
        user,
        item,
        60,
        columns=("Kunden-Nr.", "Artikel-Nr.", "Bestelldatum"),
        values={
            ("items", "00033", "Preis"): price(33),
            ("items", "00033", "Gewicht (kg)"): 4.125,
            ("items", "00033", "Lieferbar"): False,
            ("users", "000007", "Ort"): "Berlin",
            ("users", "000007", "PLZ"): "01009",
            ("users", "000007", "Newsletter"): False,
        },
        fields={("item", "Preis"): "numeric", ("item", "Warengruppe"): "categorical", ("user", "Ort"): "categorical"},
        no_context=("Beleg-Nr.", "Menge", "Einzelpreis", "Währung"),
        title="Bezeichnung",
    )
    return Folder(files, told)


@folder
def french_orders(at: Path, w: World) -> Folder:
    """Blanks that group thousands, oui and non, N/C for no value."""
    user, item = "C{:05d}".format, "REF-{:03d}".format

    def money(number: float) -> str:
        return f"{number:,.2f}".replace(",", "\u00a0").replace(".", ",") + " €"

    orders: list[list[object]] = [["N° client", "Réf. produit", "Date commande", "Quantité", "Prix TTC", "Payé"]]
    for n, e in enumerate(w.events):
        paid = ["oui", "non"][n % 9 == 0]
        orders.append([user(e.user), item(e.item), when(e.at, "%d/%m/%Y %H:%M:%S"), 1 + n % 2, money(price(e.item)), paid])
    products: list[list[object]] = [["Réf. produit", "Libellé", "Catégorie", "En stock", "Prix TTC", "Note moyenne"]]
    for i in range(w.items):
        note = "N/C" if i % 5 == 0 else comma(1 + i % 40 / 10, 1)
        kind, stock = ["Déco", "Cuisine", "Bébé"][i % 3], ["oui", "non"][i % 2]
        products.append([item(i), f"{title(i)} d'été", kind, stock, money(price(i)), note])
    (at / "commandes.csv").write_bytes(lines(";", orders).encode("cp1252"))
    (at / "produits.csv").write_bytes(lines(";", products).encode("cp1252"))
    values = {("items", "REF-039", "Prix TTC"): price(39), ("items", "REF-039", "En stock"): False}
    told = expected(
        w.events,
        user,
        item,
        columns=("N° client", "Réf. produit", "Date commande"),
        values={**values, ("items", "REF-001", "Note moyenne"): 1.1, ("items", "REF-005", "Note moyenne"): None},
        fields={("item", "Catégorie"): "categorical", ("item", "Prix TTC"): "numeric"},
        no_context=("Quantité", "Prix TTC", "Payé"),
        title="Libellé",
    )
    return Folder({"interactions": "commandes.csv", "items": "produits.csv"}, told)


@folder
def excel_unicode_text(at: Path, w: World) -> Folder:
    """UTF-16 with a byte order mark, quoted names with blanks, months first, dollars, two columns of nearly one name."""
    user, item = lambda u: str(u + 100), "P-{}".format
    orders: list[list[object]] = [['"User ID"', '" Product ID "', '"Order Date"', '"Price"', '"price"', '"Comment"']]
    for n, e in enumerate(w.events):
        day = f"{utc(e.at).month}/{utc(e.at).day}/{utc(e.at).year} {when(e.at, '%I:%M %p')}"
        comment = '"good, ""very"" good"' if n % 50 == 0 else ""
        orders.append([user(e.user), item(e.item), day, f'"${price(e.item):,.2f}"', price(e.item), comment])
    products: list[list[object]] = [["Product ID", "Product Name", "List Price", "Colour", "Discontinued"]]
    for i in range(w.items):
        colour, gone = ["Red", "n/a", "Blue"][i % 3], ["Yes", "No", ""][i % 3]
        products.append([item(i), f'"{title(i)}"', f'"${price(i):,.2f}"', colour, gone])
    for name, rows in (("orders", orders), ("products", products)):
        (at / f"{name}.txt").write_bytes(codecs.BOM_UTF16_LE + lines("\t", rows, "\r\n").encode("utf-16-le"))
    told = expected(
        w.events,
        user,
        item,
        60,
        columns=("User ID", "Product ID", "Order Date"),
        values={
            ("items", "P-39", "List Price"): price(39),
            ("items", "P-1", "Colour"): None,
            ("items", "P-1", "Discontinued"): False,
        },
        fields={("item", "List Price"): "numeric", ("item", "Colour"): "categorical"},
        no_context=("Price", "price", "Comment"),
        title="Product Name",
    )
    return Folder({"interactions": "orders.txt", "items": "products.txt"}, told)


@folder
def japanese_shop(at: Path, w: World) -> Folder:
    """Shift JIS, names in Japanese, prices in yen."""
    user, item = "C{:04d}".format, "S{:04d}".format
    kinds = ("閲覧", "カート", "購入")
    log: list[list[object]] = [["顧客ID", "商品ID", "行動", "日時"]]
    for n, e in enumerate(w.events):
        kind = kinds[0 if n % 10 < 7 else 1 if n % 10 < 9 else 2]
        log.append([user(e.user), item(e.item), kind, when(e.at, "%Y/%m/%d %H:%M:%S")])
    goods: list[list[object]] = [["商品ID", "商品名", "カテゴリ", "価格", "発売日"]]
    for i in range(w.items):
        name = ["青い", "赤い", "白い"][i % 3] + ["椅子", "机", "棚", "時計"][i % 4] + str(i)
        day = f"{2010 + i % 10}年{1 + i % 12}月{1 + i % 28}日"
        goods.append([item(i), name, ["家具", "雑貨", "食品"][i % 3], f'"{int(price(i) * 100):,}円"', day])
    (at / "購買履歴.csv").write_bytes(lines(",", log, "\r\n").encode("cp932"))
    (at / "商品.csv").write_bytes(lines(",", goods, "\r\n").encode("cp932"))
    told = expected(
        w.events,
        user,
        item,
        columns=("顧客ID", "商品ID", "日時"),
        weights=kinds,
        values={("items", "S0039", "価格"): int(price(39) * 100), ("items", "S0039", "カテゴリ"): "家具"},
        fields={("item", "カテゴリ"): "categorical"},
        title="商品名",
    )
    return Folder({"interactions": "購買履歴.csv", "items": "商品.csv"}, told)


@folder
def parquet_parts(at: Path, w: World) -> Folder:
    """Parts of Parquet with decimals, categories, lists and objects; marks of the writer beside them."""
    channels = [["web", "app", "store"][(e.user + n // 9) % 3] for n, e in enumerate(w.events)]
    log = pl.DataFrame(
        {
            "customer_id": pl.Series([e.user for e in w.events], dtype=pl.Int32),
            "product_id": [e.item for e in w.events],
            "purchased_at": pl.Series([utc(e.at).replace(tzinfo=None) for e in w.events], dtype=pl.Datetime("ns")),
            "channel": pl.Series(channels, dtype=pl.Categorical),
            "amount": pl.Series([Decimal(str(price(e.item))) for e in w.events], dtype=pl.Decimal(12, 2)),
        }
    )
    (at / "purchases").mkdir()
    for n in range(4):
        log[n * len(log) // 4 : (n + 1) * len(log) // 4].write_parquet(at / "purchases" / f"part-{n:05d}.snappy.parquet")
    (at / "purchases" / "_SUCCESS").write_bytes(b"")
    (at / "purchases" / ".part-00000.crc").write_bytes(b"\0\0\0")
    pl.DataFrame(
        {
            "id": range(w.items),
            "name": [title(i) for i in range(w.items)],
            "brand": pl.Series([f"brand{i % 7}" for i in range(w.items)], dtype=pl.Categorical),
            "price": pl.Series([Decimal(str(price(i))) for i in range(w.items)], dtype=pl.Decimal(12, 2)),
            "tags": [genres(i) for i in range(w.items)],
            "size": [{"w": i % 5, "h": i % 7} for i in range(w.items)],
            "launched": [date(2020, 1, 1) + timedelta(days=13 * i) for i in range(w.items)],
            "active": [i % 2 == 0 for i in range(w.items)],
        }
    ).write_parquet(at / "products.parquet")
    told = expected(
        w.events,
        columns=("customer_id", "product_id", "purchased_at"),
        values={
            ("items", "39", "price"): price(39),
            ("items", "39", "tags"): genres(39),
            ("items", "39", "active"): False,
            ("items", "39", "size.h"): 4,
        },
        fields={("item", "price"): "numeric", ("item", "tags"): "bag", ("user", "channel"): "categorical"},
        no_context=("amount",),
        title="name",
    )
    return Folder({"interactions": "purchases", "items": "products.parquet"}, told)


@folder
def receipts(at: Path, w: World) -> Folder:
    """Comments above the header, separate columns of date and time of day, unknown customers, a row of totals."""
    user, item = "{:08d}".format, "{:04d}".format
    names = "Date,Time,Store,Receipt No,Customer Card,SKU,Description,Qty,Unit Price,Currency"
    rows: list[list[object]] = []
    for n, e in enumerate(w.events):
        card = "" if n % 20 == 10 else user(e.user)
        place = [when(e.at, "%d/%m/%Y"), when(e.at, "%H:%M"), ["North", "South"][n // 5 % 2], f"R{e.user}-{n}", card]
        rows.append([*place, item(e.item), title(e.item), 1 + n % 3, f"{price(e.item):.2f}", "GBP"])
    text = f"# Exported by POS 4.2\n# Period: 2024-01-01 to 2024-06-28\n#\n{names}\n{lines(',', rows)}Total,,,,,,,2400,99.00,\n"
    (at / "receipts.csv").write_bytes(codecs.BOM_UTF8 + text.encode())
    told = expected(
        [e for n, e in enumerate(w.events) if n % 20 != 10],
        user,
        item,
        60,
        columns=("Customer Card", "SKU", "Date"),
        no_context=("Receipt No", "Description", "Qty", "Unit Price", "Currency"),
    )
    return Folder({"interactions": "receipts.csv"}, told)


@folder
def shopify_orders(at: Path, w: World) -> Folder:
    """The customer is written on the first line of each order only."""
    head = "Name,Email,Financial Status,Paid at,Currency,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Vendor"
    rows: list[list[object]] = []
    log: list[Event] = []
    while len(log) < len(w.events):
        first = w.events[len(log)]
        for k, e in enumerate(w.events[len(log) : len(log) + 1 + first.item % 3]):
            log.append(Event(first.user, e.item, first.at))
            order = [f"u{first.user}@example.com", "paid", f"{when(first.at)} +0000", "EUR"] if k == 0 else [""] * 4
            rows.append([f"#{first.at}-{first.user}", *order, 1 + k, title(e.item), price(e.item), f"SKU{e.item:03d}", "V"])
    (at / "orders_export.csv").write_text(f"{head}\n{lines(',', rows)}")
    told = expected(
        log,
        "u{}@example.com".format,
        "SKU{:03d}".format,
        columns=("Email", "Lineitem sku", "Paid at"),
        no_context=("Lineitem quantity", "Lineitem name", "Lineitem price", "Financial Status"),
    )
    return Folder({"interactions": "orders_export.csv"}, told)


@folder
def other_names(at: Path, w: World) -> Folder:
    """Each table calls its ids otherwise; sets and JSON as lists, Y and N, placeholders for dates."""
    log: list[list[object]] = [["customer", "product", "time", "action"]]
    for n, e in enumerate(w.events):
        moment = "1970-01-01 00:00:00" if n % 100 == 50 else when(e.at)
        log.append([f"K{e.user}", f"{e.item:03d}", moment, ["click", "buy"][n % 6 // 5]])
    goods: list[list[object]] = [["sku", "label", "tags", "available_until", "weight"]]
    for i in range(w.items):
        tags = f'"{{{",".join(genres(i))}}}"'
        goods.append([f"{i:03d}", title(i), tags, "9999-12-31" if i % 3 else "2025-06-30", i % 10])
    people: list[list[object]] = [["uid", "signup", "segments", "opted_in"]]
    for u in range(w.users):
        segments = json.dumps(["gold", "de"] if u % 2 else ["silver"]).replace('"', '""')
        people.append([f"K{u}", date(2020, 1, 1) + timedelta(days=u), f'"{segments}"', "YN"[u % 2]])
    for name, rows in (("interactions", log), ("items", goods), ("users", people)):
        (at / f"{name}.csv").write_text(lines(",", rows))
    told = expected(
        w.events,
        "K{}".format,
        "{:03d}".format,
        columns=("customer", "product", "time"),
        weights=("click", "buy"),
        values={
            ("items", "003", "tags"): genres(3),
            ("users", "K1", "segments"): ["gold", "de"],
            ("users", "K1", "opted_in"): False,
        },
        fields={("item", "tags"): "bag", ("user", "segments"): "bag"},
        title="label",
    )
    return Folder({}, told)


@folder
def korean_months(at: Path, w: World) -> Folder:
    """A file for each month, one with its columns in another order, one empty; names in Korean."""
    months: dict[str, list[list[object]]] = {}
    names: list[Any] = ["고객번호", "상품코드", "구매일시", "수량", "매장"]
    for n, e in enumerate(w.events):
        row: list[Any] = [f"{e.user:08d}", f"G{e.item:04d}", when(e.at), 1 + n % 3, ["서울", "부산"][e.user % 2]]
        months.setdefault(when(e.at, "%Y-%m"), [names]).append(row)
    (at / "sales").mkdir()
    for number, (month, rows) in enumerate(months.items()):
        ordered = [row[::-1] for row in rows] if number == 2 else rows
        (at / "sales" / f"{month}.csv").write_bytes(codecs.BOM_UTF8 + lines(",", ordered, "\r\n").encode())
    (at / "sales" / "2024-07.csv").write_bytes(b"")
    columns = ("고객번호", "상품코드", "구매일시")
    told = expected(w.events, "{:08d}".format, "G{:04d}".format, columns=columns, no_context=("수량",))
    return Folder({"interactions": "sales"}, told)


@folder
def excel_file(at: Path, _: World) -> Folder:
    """A workbook, which is not read."""
    (at / "orders.xlsx").write_bytes(b"PK\x03\x04")
    return Folder({"interactions": "orders.xlsx"}, Expected(refused="a spreadsheet .Excel. is not read"))
