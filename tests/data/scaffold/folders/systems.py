"""Folders exported from databases, spreadsheets and web analytics, or concatenated from such exports."""

import codecs
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.data.scaffold.folders.world import (
    CITIES,
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
def mongo_export(at: Path, w: World) -> Folder:
    """Extended JSON: ids, dates and numbers are objects whose only key begins with a dollar."""
    user, item = "65f0c0ffee00000000{:06x}".format, "65f0badbad00000000{:06x}".format
    log = []
    for n, e in enumerate(w.events):
        row: dict[str, Any] = {
            "_id": {"$oid": f"{n:024x}"},
            "customer": {"$oid": user(e.user)},
            "product": {"$oid": item(e.item)},
        }
        row |= {"createdAt": {"$date": when(e.at, "%Y-%m-%dT%H:%M:%S.000Z")}, "qty": {"$numberInt": str(1 + n % 3)}}
        log.append(json.dumps(row))
    (at / "orders.json").write_text("\n".join(log))
    rows = []
    for i in range(w.items):
        row = {"_id": {"$oid": item(i)}, "name": title(i), "price": {"$numberDecimal": f"{price(i)}"}, "tags": genres(i)}
        rows.append(json.dumps(row | {"__v": {"$numberInt": "0"}, "stock": {"$numberLong": str(i * 3)}}))
    (at / "products.json").write_text("\n".join(rows))
    told = expected(w.events, user, item, fields={("item", "tags"): "bag"}, title="name")
    return Folder({"interactions": "orders.json", "items": "products.json"}, told)


@folder
def excel_sep_line(at: Path, w: World) -> Folder:
    """A first line that names the separator, days as numbers of a spreadsheet, WAHR and FALSCH, empty columns at the end."""
    user, item = "{:04d}".format, "A{:03d}".format
    epoch = datetime(1899, 12, 30, tzinfo=utc(0).tzinfo)
    log: list[list[object]] = [["Kunde", "Artikel", "Datum", "Bewertung", "", ""]]
    for n, e in enumerate(w.events):
        days = (utc(e.at) - epoch).total_seconds() / 86_400
        log.append([user(e.user), item(e.item), f"{days:.8f}".replace(".", ","), comma(3 + n % 5 / 2, 1), "", ""])
    rows: list[list[object]] = [["Artikel", "Titel", "Vegan", "Preis", "Farbe", ""]]
    for i in range(w.items):
        rows.append(
            [item(i), f'"{title(i)}; groß"', ["WAHR", "FALSCH"][i % 2], comma(price(i)), ["rot", "grün", "#NV"][i % 3], ""]
        )
    for name, table in (("umsatz", log), ("artikel", rows)):
        (at / f"{name}.CSV").write_bytes(("sep=;\r\n" + lines(";", table, "\r\n")).encode("cp1252"))
    told = expected(
        w.events,
        user,
        item,
        columns=("Kunde", "Artikel", "Datum"),
        values={
            ("items", "A003", "Vegan"): False,
            ("items", "A003", "Preis"): price(3),
            ("items", "A002", "Farbe"): None,
            ("items", "A001", "Farbe"): "grün",
        },
        fields={("item", "Preis"): "numeric", ("item", "Farbe"): "categorical"},
        title="Titel",
    )
    return Folder({"interactions": "umsatz.CSV", "items": "artikel.CSV"}, told)


@folder
def glued_exports(at: Path, w: World) -> Folder:
    """Files that were concatenated with their headers; both kinds of line ends, blank lines between."""
    header = ["customer_id", "product_id", "viewed_at", "channel"]
    out = ""
    for start in range(0, len(w.events), 400):
        part = w.events[start : start + 400]
        rows = [[f"k{e.user}", f"{e.item:04d}", when(e.at, "%Y/%m/%d %H:%M:%S"), ["web", "app"][e.user % 2]] for e in part]
        out += lines(",", [header, *rows], ["\n", "\r\n"][start // 400 % 2]) + "\n"
    (at / "views.csv").write_bytes(out.encode())
    told = expected(w.events, "k{}".format, "{:04d}".format, columns=("customer_id", "product_id", "viewed_at"))
    return Folder({"interactions": "views.csv"}, told)


@folder
def chinese_orders(at: Path, w: World) -> Folder:
    """GB18030, dates with year, month and day in Chinese, yuan, yes and no in Chinese."""
    user, item = "用户{:03d}".format, "SP{:04d}".format
    log: list[list[object]] = [["用户编号", "商品编号", "下单时间", "数量"]]
    log += [[user(e.user), item(e.item), when(e.at, "%Y年%m月%d日 %H:%M:%S"), 1 + n % 4] for n, e in enumerate(w.events)]
    rows: list[list[object]] = [["商品编号", "商品名称", "类目", "价格", "是否有货"]]
    for i in range(w.items):
        kind = ["家具", "厨房", "母婴"][i % 3]
        rows.append([item(i), f"{title(i)} 新款", kind, f'"￥{price(i):,.2f}"', ["是", "否"][i % 2]])
    (at / "订单.csv").write_bytes(lines(",", log).encode("gb18030"))
    (at / "商品.csv").write_bytes(lines(",", rows).encode("gb18030"))
    told = expected(
        w.events,
        user,
        item,
        columns=("用户编号", "商品编号", "下单时间"),
        values={
            ("items", "SP0039", "价格"): price(39),
            ("items", "SP0039", "是否有货"): False,
            ("items", "SP0001", "类目"): "厨房",
        },
        fields={("item", "类目"): "categorical", ("item", "价格"): "numeric"},
        no_context=("数量",),
        title="商品名称",
    )
    return Folder({"interactions": "订单.csv", "items": "商品.csv"}, told)


@folder
def russian_accounting(at: Path, w: World) -> Folder:
    """cp1251, tabs, days first, decimal commas, yes and no in Russian."""
    user, item = "К-{:05d}".format, "{:08d}".format
    log: list[list[object]] = [["Номер заказа", "Код клиента", "Код товара", "Дата заказа", "Сумма"]]
    for n, e in enumerate(w.events):
        log.append([f"ЗК{n // 2:06d}", user(e.user), item(e.item), when(e.at, "%d.%m.%Y %H:%M:%S"), comma(price(e.item))])
    rows: list[list[object]] = [["Код товара", "Наименование", "Группа", "Цена", "Активен"]]
    for i in range(w.items):
        cost = f"{price(i):.2f}".replace(".", ",") + " руб."
        rows.append([item(i), f"Стул {title(i)}", ["Мебель", "Кухня"][i % 2], cost, "да" if i % 3 else "нет"])
    (at / "заказы.txt").write_bytes(lines("\t", log, "\r\n").encode("cp1251"))
    (at / "товары.txt").write_bytes(lines("\t", rows, "\r\n").encode("cp1251"))
    told = expected(
        w.events,
        user,
        item,
        columns=("Код клиента", "Код товара", "Дата заказа"),
        values={("items", "00000003", "Активен"): False, ("items", "00000003", "Группа"): "Кухня"},
        fields={("item", "Группа"): "categorical"},
        no_context=("Номер заказа", "Сумма"),
        title="Наименование",
    )
    return Folder({"interactions": "заказы.txt", "items": "товары.txt"}, told)


@folder
def mixed_encodings(at: Path, w: World) -> Folder:
    """A folder of months: UTF-8 with a byte order mark, cp1252, UTF-8."""
    user, item = "Jürgen{:02d}".format, "{:03d}".format
    months: dict[str, list[list[object]]] = {}
    for e in w.events:
        head: list[list[object]] = [["Benutzer", "Artikel", "Zeitpunkt"]]
        months.setdefault(when(e.at, "%Y-%m"), head).append([user(e.user), item(e.item), when(e.at, "%Y-%m-%dT%H:%M:%S+0000")])
    (at / "verlauf").mkdir()
    for n, (month, rows) in enumerate(months.items()):
        text = lines(";", rows)
        (at / "verlauf" / f"{month}.csv").write_bytes(text.encode(["utf-8-sig", "cp1252", "utf-8"][n % 3]))
    return Folder({"interactions": "verlauf"}, Expected(refused="2024-02.csv.*cp1252 here, and utf-8 in .*iconv -f cp1252"))


@folder
def postgres_copy(at: Path, w: World) -> Folder:
    """What COPY writes: t and f, backslash N for nothing, arrays in braces, microseconds and an offset of hours only."""
    log: list[list[object]] = [["id", "user_id", "item_id", "created_at", "kind", "meta"]]
    for n, e in enumerate(w.events):
        kind, meta = turn(n, ("impression", 5), ("click", 3), ("order", 1)), '"{""ab"": ""B"", ""n"": ' + str(n % 9) + '}"'
        log.append([n, e.user + 10_000_000_000, e.item, f"{when(e.at)}.250000+00", kind, meta])
    rows: list[list[object]] = [["id", "name", "labels", "in_stock", "price_cents", "discount", "brand_id"]]
    for i in range(w.items):
        labels, discount = '"{' + ",".join(genres(i)) + '}"', "\\N" if i % 2 else f"0.{i % 9 + 1}"
        rows.append([i, title(i), labels, "tf"[i % 2], round(price(i) * 100), discount, i % 7])
    (at / "interactions.csv").write_text(lines(",", log))
    (at / "items.csv").write_text(lines(",", rows))
    told = expected(
        w.events,
        lambda u: str(u + 10_000_000_000),
        more=0.25,
        columns=("user_id", "item_id", "created_at"),
        weights=("click", "order"),
        taken=sum(n % 9 >= 5 for n in range(len(w.events))),  # what was shown only does not count
        values={
            ("items", "3", "in_stock"): False,
            ("items", "3", "labels"): genres(3),
            ("items", "4", "discount"): 0.5,
            ("items", "3", "discount"): None,
        },
        fields={("item", "labels"): "bag", ("item", "brand_id"): "categorical"},
        no_context=("id", "meta"),
        title="name",
    )
    return Folder({}, told)


@folder
def matomo_visits(at: Path, w: World) -> Folder:
    """UTF-16 with tabs, visitors in hexadecimal, product pages and orders, empty columns of dimensions."""
    user, item = "{:016x}".format, "SKU{:03d}".format
    kinds = ("ecommerceProductView", "ecommerceAbandonedCart", "ecommerceOrder")
    log: list[list[object]] = [
        ["idVisit", "visitorId", "serverTimePretty", "timestamp", "type", "productSku", "country", "dimension1"]
    ]
    for n, e in enumerate(w.events):
        kind = turn(n, *zip(kinds, (6, 2, 1), strict=True))
        pretty = when(e.at, "%b %d, %Y %H:%M:%S")
        log.append([n // 3, user(e.user * 7_919 + 11), pretty, e.at, kind, item(e.item), ["Germany", "France"][e.user % 2], ""])
    (at / "visits.tsv").write_bytes(codecs.BOM_UTF16_LE + lines("\t", log).encode("utf-16-le"))
    rows: list[list[object]] = [["sku", "label", "category", "city"]]
    rows += [[item(i), title(i), genres(i)[0], CITIES[i % 5]] for i in range(w.items)]
    (at / "products.tsv").write_bytes(codecs.BOM_UTF16_BE + lines("\t", rows).encode("utf-16-be"))
    told = expected(
        w.events,
        lambda u: user(u * 7_919 + 11),
        item,
        values={("items", "SKU004", "city"): "Hamburg"},
        weights=kinds,
        fields={("item", "category"): "categorical", ("item", "city"): "categorical", ("user", "country"): "categorical"},
        no_context=("idVisit",),
        title="label",
    )
    return Folder({"interactions": "visits.tsv", "items": "products.tsv"}, told)
