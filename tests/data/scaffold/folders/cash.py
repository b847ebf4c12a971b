"""Folders of cash desks, libraries and logs in more languages and stranger forms."""

import gzip
from pathlib import Path

from tests.data.scaffold.folders.world import GENRES, Folder, World, comma, expected, folder, genres, lines, price, title, when

DAY = 86_400


@folder
def greek_bookshop(at: Path, w: World) -> Folder:
    """A line that names the separator, halves of the day in Greek, a total, ids that only the other table shows."""
    user, item = "Π-{:04d}".format, "960-{:03d}-X".format
    log = ["sep=;\r\nΑ/Α;Ημ/νία & ώρα;Πελάτης;Κωδ. Βιβλίου;Παρατηρήσεις;Αξία (€);\r\n"]
    for n, e in enumerate(w.events):
        half = when(e.at, "%p").replace("AM", "πμ").replace("PM", "μμ")
        row = [
            n + 1,
            f"{when(e.at, '%d/%m/%Y %I:%M:%S')} {half}",
            user(e.user),
            item(e.item),
            "για την κυρία Ελένη",
            comma(price(e.item)),
            "",
        ]
        log.append(";".join(map(str, row)) + "\r\n")
    log.append("ΣΥΝΟΛΟ;;;;2400;;\r\n")
    books: list[list[object]] = [["Κωδικός", "Τίτλος", "Κατηγορία", "Τιμή"]]
    books += [[item(i), f"Ο κήπος της Σμύρνης {title(i)}", GENRES[i % 5], f"{comma(price(i))} €"] for i in range(w.items)]
    (at / "sales.csv").write_bytes("".join(log).encode("cp1253"))
    (at / "books.csv").write_bytes(("sep=;\r\n" + lines(";", books, "\r\n")).encode("cp1253"))
    told = expected(
        w.events,
        user,
        item,
        columns=("Πελάτης", "Κωδ. Βιβλίου", "Ημ/νία & ώρα"),
        values={("items", "960-030-X", "Τιμή"): price(30)},
        title="Τίτλος",
    )
    return Folder({"interactions": "sales.csv", "items": "books.csv"}, told)


@folder
def toy_library(at: Path, w: World) -> Folder:
    """Months and a total between the rows, visits whose first line has day number and family, columns without names."""
    user, item = "Famiglia {:02d}".format, "G{}".format
    log, visits = ["LUDOTECA,,,,,\n,,aggiornato il 15/6,,,\nData e ora,Famiglia,,Gioco n.,Voto,\n"], []
    for n, e in enumerate(w.events):
        more = n % 3 == 2
        days = round(25_569 + e.at / DAY, 5)
        visits.append((visits[-1][0], e.item, visits[-1][2]) if more else (e.user, e.item, round((days - 25_569) * DAY, 2)))
        day = str(days).replace(".", ",")
        log.append(f",,,{item(e.item)},4,\n" if more else f'"{day}",{user(e.user)} ,,{item(e.item)},,\n')
        if n % 300 == 0:
            log.append("GENNAIO 2024,,,,,\n")
    log.append("TOTALE PRESTITI,,,1200,,\n")
    toys: list[list[object]] = [["N.", "Nome", "Tipo", ""]]
    toys += [[item(i), title(i), GENRES[i % 5], ""] for i in range(w.items)]
    (at / "prestiti.csv").write_text("".join(log))
    (at / "giochi.csv").write_text(lines(",", toys))
    told = expected(w.events, user, item, columns=("Famiglia", "Gioco n.", "Data e ora"), title="Nome")
    told.samples = [(user(one), item(two), three) for one, two, three in (visits[0], visits[600], visits[-1])]
    return Folder({"interactions": "prestiti.csv", "items": "giochi.csv"}, told)


@folder
def unloaded_views(at: Path, w: World) -> Folder:
    """Parts without a header, a running number first, ids that only the other tables show, offsets in the times."""
    user, item = "ab{:04x}:1".format, "{}".format
    (at / "watch").mkdir()
    rows = [
        [7_000 + n, user(e.user), 90_000 + e.item, f"{when(e.at - 8 * 3_600)}.250 -0800", 30 + n % 900]
        for n, e in enumerate(w.events)
    ]
    for part in range(3):
        (at / "watch" / f"data_{part}.csv.gz").write_bytes(gzip.compress(lines(",", rows[part::3]).encode()))
    (at / "titles.csv").write_text(lines(",", [[90_000 + i, f'"{title(i)}"', "|".join(genres(i))] for i in range(w.items)]))
    (at / "profiles.csv").write_text(lines(",", [[user(u), 1_960 + u % 50, "NL"] for u in range(w.users)]))
    told = expected(w.events, user, lambda i: item(90_000 + i), more=0.25, columns=("user_id", "item_id", "column_4"))
    return Folder({"interactions": "watch", "items": "titles.csv", "users": "profiles.csv"}, told)


@folder
def turkish_receipts(at: Path, w: World) -> Folder:
    """Parts by month beside the other tables, a total in each, returns that are marked, a column that is named twice."""
    user, item = "29{:06d}".format, "869{:07d}".format
    head = "Tarih;Saat;Müşteri Kart No;Barkod;Miktar;Tutar;Tutar;İade;\r\n"
    months: dict[str, list[str]] = {}
    for n, e in enumerate(w.events):
        back = n % 20 == 7
        number = ("-" if back else "") + f"{1 + n % 4},000"
        row = [
            when(e.at, "%d.%m.%Y"),
            when(e.at, "%H:%M:%S"),
            user(e.user),
            item(e.item),
            number,
            "9,90",
            "11,88",
            "HE"[back],
            "",
        ]
        months.setdefault(when(e.at, "%Y_%m"), []).append(";".join(row) + "\r\n")
    for month, rows in months.items():
        (at / f"satis_{month}.csv").write_bytes((head + "".join(rows) + "TOPLAM;;;;;1,00;2,00;;\r\n").encode("cp1254"))
    stock: list[list[object]] = [["Barkod No", "Ürün Adı", "Reyon", "Fiyat (TL)"]]
    stock += [[item(i), f"Şeker {title(i)}", GENRES[i % 5], comma(price(i))] for i in range(w.items)]
    (at / "stok.csv").write_bytes(lines(";", stock, "\r\n").encode("cp1254"))
    kept = [e for n, e in enumerate(w.events) if n % 20 != 7]
    told = expected(
        kept, user, item, columns=("Müşteri Kart No", "Barkod", "Tarih"), title="Ürün Adı", no_context=("Miktar", "İade")
    )
    return Folder({"interactions": "satis_*.csv", "items": "stok.csv"}, told)


@folder
def scan_data(at: Path, w: World) -> Folder:
    """Times of SAS, a point for what is missing, amounts in parentheses, names of ids in two cases."""
    user, item = "{}".format, "0{:012d}".format
    log: list[list[object]] = [["HOUSEHOLD_KEY", "UPC", "TRANS_DTTM", "QTY", "NET_SALES"]]
    for n, e in enumerate(w.events):
        at_sas = when(e.at, "%d%b%Y:%H:%M:%S").upper()
        log.append(["." if n % 12 == 5 else user(1 + e.user), item(e.item), at_sas, 1 + n % 3, f"${price(e.item):.2f}"])
    products: list[list[object]] = [["UPC_CD", "PRODUCT_DESC", "LIST_PRICE"]]
    products += [[item(i), title(i).upper(), f"${price(i):.2f}"] for i in range(w.items)]
    people: list[list[object]] = [
        ["household_key", "AGE_DESC"],
        *([user(1 + u), ["19-24", "25-34"][u % 2]] for u in range(w.users)),
    ]
    for name, table in (("transactions", log), ("product", products), ("hh_demographic", people)):
        (at / f"{name}.txt").write_text(lines("|", table))
    kept = [e for n, e in enumerate(w.events) if n % 12 != 5]
    told = expected(kept, lambda u: user(1 + u), item, columns=("HOUSEHOLD_KEY", "UPC", "TRANS_DTTM"), title="PRODUCT_DESC")
    return Folder({"interactions": "transactions.txt", "items": "product.txt", "users": "hh_demographic.txt"}, told)


@folder
def kinds_in_files_of_their_own(at: Path, w: World) -> Folder:
    """Views and orders in two files with other columns."""
    (at / "log").mkdir()
    views: list[list[object]] = [["user_id", "item_id", "ts"], *([e.user, e.item, e.at] for e in w.events)]
    orders: list[list[object]] = [["buyer_id", "item_id", "qty", "ts"], *([e.user, e.item, 1, e.at] for e in w.events[::9])]
    (at / "log" / "views.csv").write_text(lines(",", views))
    (at / "log" / "orders.csv").write_text(lines(",", orders))
    told = expected(w.events, refused="different columns .only one of.*with the kind in a column")
    return Folder({"interactions": "log"}, told)
