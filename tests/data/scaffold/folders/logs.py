"""Folders with logs of events: web, app, sessions, feedback."""

import gzip
import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import zstandard

from tests.data.scaffold.folders.world import (
    CITIES,
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
def aligned_columns(at: Path, w: World) -> Folder:
    """Columns of a fixed width, times with an offset from UTC."""
    rows = [f"{'visitor':<12}{'article':<12}{'timestamp':<30}{'device':<10}"]
    for n, e in enumerate(w.events):
        moment = datetime.fromtimestamp(e.at, timezone(timedelta(hours=2))).isoformat()
        rows.append(f"{f'v{e.user}':<12}{f'a{e.item}':<12}{moment:<30}{['phone', 'desktop'][(e.user + n // 7) % 2]:<10}")
    (at / "interactions.txt").write_text("\n".join(rows) + "\n")
    rows = [f"{'article':<12}{'section':<14}{'words':>8}"]
    rows += [f"{f'a{i}':<12}{['world news', 'sports', 'culture'][i % 3]:<14}{200 + i * 9:>8}" for i in range(w.items)]
    (at / "items.txt").write_text("\n".join(rows) + "\n")
    told = expected(
        w.events,
        "v{}".format,
        "a{}".format,
        columns=("visitor", "article", "timestamp"),
        values={("items", "a4", "section"): "sports", ("items", "a3", "section"): "world news", ("items", "a4", "words"): 236},
        fields={("item", "section"): "categorical", ("user", "device"): "categorical"},
    )
    return Folder({}, told)


@folder
def nested_events(at: Path, w: World) -> Folder:
    """JSON lines of nested objects, compressed; a currency of purchases only."""
    kinds = ("page_view", "add_to_cart", "purchase")
    out = []
    for n, e in enumerate(w.events):
        kind = turn(n, *zip(kinds, (7, 2, 1), strict=True))
        row: dict[str, Any] = {"event": kind, "ts": f"{when(e.at, '%Y-%m-%dT%H:%M:%S')}.123Z"}
        row["user"] = {"id": f"u-{e.user}", "geo": {"city": CITIES[e.user % 5]}}
        row["item"] = {"id": e.item, "name": title(e.item), "price": price(e.item), "tags": genres(e.item)}
        row |= {"quantity": 1 + n % 3, "currency": "EUR"} if kind == "purchase" else {}
        out.append(json.dumps(row, ensure_ascii=False))
    (at / "events.jsonl.zst").write_bytes(zstandard.compress("\n".join(out).encode()))
    told = expected(
        w.events,
        "u-{}".format,
        more=0.123,
        columns=("user.id", "item.id", "ts"),
        weights=kinds,
        fields={("user", "user.geo.city"): "categorical", ("item", "item.tags"): "bag"},
        no_context=("quantity", "currency", "item.price", "item.name"),
        title="item.name",
    )
    return Folder({}, told)


@folder
def hive_denormalised(at: Path, w: World) -> Folder:
    """Hive partitions of a log that repeats what describes items and users."""
    days: dict[str, list[dict[str, object]]] = {}
    for n, e in enumerate(w.events):
        row = {"client_id": f"c{e.user}", "sku": f"{e.item:08d}", "event_timestamp": e.at * 1_000_000}
        row |= {"event_type": turn(n, ("view", 6), ("favourite", 2), ("purchase", 1)), "user_city": CITIES[e.user % 5]}
        row |= {"product_title": title(e.item), "product_price": price(e.item), "product_category": genres(e.item)[0]}
        days.setdefault(when(e.at, "%Y-%m-01"), []).append(row)
    for day, rows in days.items():
        (at / "clickstream" / f"event_date={day}").mkdir(parents=True)
        pl.DataFrame(rows).write_parquet(at / "clickstream" / f"event_date={day}" / "part-0.parquet")
    told = expected(
        w.events,
        "c{}".format,
        "{:08d}".format,
        columns=("client_id", "sku", "event_timestamp"),
        weights=("view", "favourite", "purchase"),
        fields={("item", "product_category"): "categorical", ("user", "user_city"): "categorical"},
        no_context=("product_title", "product_price", "product_category", "event_type"),
        title="product_title",
    )
    return Folder({"interactions": "clickstream"}, told)


@folder
def mails_and_uuids(at: Path, w: World) -> Folder:
    """Blanks around all cells, mail addresses as users, microseconds, JSON lists, spellings of nothing."""
    user, item = "user.{}@example.org".format, lambda i: f"6f1c{i:04x}-9a2b-4c3d-8e4f-0123456789ab"
    log: list[list[object]] = [["email", "product_uuid", "occurred_at", "campaign"]]
    for n, e in enumerate(w.events):
        campaign = ["spring", "NULL", "none", "-"][(e.user + n // 11) % 4]
        log.append([f" {user(e.user)}", item(e.item), e.at * 1_000_000 + 7, campaign])
    (at / "log.psv").write_text(lines(" | ", log))
    rows: list[list[object]] = [["uuid", "headline", "topics", "premium", "updated", "rating_avg"]]
    for i in range(w.items):
        cells = [["yes", "no"][i % 2], when(1_700_000_000 + i * 86_400, "%b %d, %Y"), ["\\N", "NA", "4.5", "3.25"][i % 4]]
        rows.append([item(i), title(i), json.dumps(genres(i)), *cells])
    (at / "content.psv").write_text(lines("|", rows))
    told = expected(
        w.events,
        user,
        item,
        more=7e-6,
        columns=("email", "product_uuid", "occurred_at"),
        values={
            ("items", item(2), "premium"): True,
            ("items", item(2), "topics"): genres(2),
            ("items", item(2), "rating_avg"): 4.5,
            ("items", item(1), "rating_avg"): None,
        },
        fields={("item", "topics"): "bag"},
        title="headline",
    )
    return Folder({"interactions": "log.psv", "items": "content.psv"}, told)


@folder
def ragged_descriptions(at: Path, w: World) -> Folder:
    """Explicit negatives; line breaks in quoted cells, empty cells beyond the header, a row that is cut off."""
    log: list[list[object]] = [["userid", "itemid", "clicked", "timestamp"]]
    log += [[e.user, e.item, int(n % 4 != 3), when(e.at)] for n, e in enumerate(w.events)]
    (at / "impressions.csv").write_text(lines(",", log))
    rows = ["itemid,name,description,brand,colours"]
    for i in range(w.items):
        colours = f'"{{{genres(i)[0]},red}}"'
        rows.append(f'{i},"{title(i)}","First line\nof ""{i}"", with a comma",B{i % 6},{colours}{",," * (i % 9 == 4)}')
    (at / "catalogue.csv").write_text("\n".join([*rows, f"{w.items},Last one"]) + "\n")
    told = expected(
        w.events,
        columns=("userid", "itemid", "timestamp"),
        taken=sum(n % 4 != 3 for n in range(len(w.events))),
        values={("items", "4", "brand"): "B4", ("items", "4", "colours"): [genres(4)[0], "red"]},
        fields={("item", "brand"): "categorical", ("item", "colours"): "bag"},
        no_context=("clicked",),
        title="name",
    )
    return Folder({"interactions": "impressions.csv", "items": "catalogue.csv"}, told)


@folder
def sessions_only(at: Path, w: World) -> Folder:
    """Clicks of sessions without users."""
    log: list[list[object]] = [["SessionId", "Time", "ItemId", "Category"]]
    log += [[9000 + e.user, when(e.at, "%Y-%m-%dT%H:%M:%S.277Z"), 2145000 + e.item, "0S3"[e.item % 3]] for e in w.events]
    (at / "clicks.csv").write_text(lines(",", log))
    user, item = lambda u: str(9000 + u), lambda i: str(2145000 + i)
    columns = ("SessionId", "ItemId", "Time")
    told = expected(w.events, user, item, more=0.277, columns=columns, fields={("item", "Category"): "categorical"})
    return Folder({"interactions": "clicks.csv"}, told)


@folder
def music_feedback(at: Path, w: World) -> Folder:
    """Skips and dislikes, names of months, decimal commas, lists with a comma and a blank."""
    log: list[list[object]] = [["listener", "track", "feedback", "ms_played", "played_at"]]
    for n, e in enumerate(w.events):
        kind = turn(n, ("play", 5), ("like", 2), ("skip", 2), ("dislike", 1))
        log.append([e.user, f"T{e.item}", kind, 1000 * (n % 200), when(e.at, "%d %B %Y %H:%M")])
    (at / "listens.csv").write_text(lines(";", log))
    rows: list[list[object]] = [["track", "artist", "song", "bpm", "moods"]]
    rows += [[f"T{i}", f"Artist {i % 12}", title(i), comma(80 + i / 2, 1), ", ".join(genres(i))] for i in range(w.items)]
    (at / "tracks.csv").write_text(lines(";", rows))
    told = expected(
        w.events,
        str,
        "T{}".format,
        60,
        columns=("listener", "track", "played_at"),
        weights=("play", "like"),
        taken=sum(n % 10 < 7 for n in range(len(w.events))),
        values={("items", "T5", "bpm"): 82.5, ("items", "T3", "moods"): genres(3)},
        fields={("item", "bpm"): "numeric", ("item", "moods"): "bag", ("item", "artist"): "categorical"},
        no_context=("feedback", "ms_played"),
        title="song",
    )
    return Folder({"interactions": "listens.csv", "items": "tracks.csv"}, told)


@folder
def lists_of_items(at: Path, w: World) -> Folder:
    """An export of web analytics: each event has a list of items."""
    kinds = ("view_item", "add_to_cart", "purchase")
    out, log = [], []
    for n, e in enumerate(w.events[::2]):
        some = w.events[2 * n : 2 * n + 1 + n % 2]
        log += [type(e)(e.user, one.item, e.at) for one in some]
        items = [{"item_id": f"SKU_{one.item}", "item_name": title(one.item), "price": price(one.item)} for one in some]
        row = {"event_date": when(e.at, "%Y%m%d"), "event_timestamp": str(e.at * 1_000_000), "event_name": kinds[n % 5 % 3]}
        row |= {"user_pseudo_id": f"{e.user}.1700000{e.user:03}", "geo": {"country": ["DE", "AT"][e.user % 2]}, "items": items}
        out.append(json.dumps(row))
    with gzip.open(at / "events_20240101.json.gz", "wt") as file:
        file.write("\n".join(out))
    columns = ("user_pseudo_id", "items.item_id", "event_timestamp")
    user = lambda u: f"{u}.1700000{u:03}"  # noqa: E731
    return Folder({}, expected(log, user, "SKU_{}".format, columns=columns, weights=kinds, title="items.item_name"))


@folder
def spanish_events(at: Path, w: World) -> Folder:
    """Returns that are left out, separate columns of date and time of day, Latin-1, a customer with two rows."""
    kinds: Sequence[tuple[str, int]] = (("vista", 6), ("carrito", 2), ("compra", 1), ("devolución", 1))
    user = lambda u: f"{u:04d}-{u % 9}"  # noqa: E731
    log: list[list[object]] = [["id_cliente", "id_articulo", "tipo_evento", "fecha", "hora", "importe"]]
    for n, e in enumerate(w.events):
        moment = [when(e.at, "%d/%m/%Y"), when(e.at, "%H:%M:%S")]
        log.append([user(e.user), f"A{e.item}", turn(n, *kinds), *moment, f'"{comma(price(e.item))}"'])
    rows: list[list[object]] = [["id", "nombre", "sexo", "fecha_alta", "activo"]]
    for u in [*range(w.users), 5]:
        day = f"{1 + u % 28:02}/{1 + u % 12:02}/20{10 + u % 10}"
        rows.append([user(u), f"José {u}", ["M", "F", "N/D"][u % 3], day, ["sí", "no"][u % 2]])
    (at / "eventos.csv").write_bytes(lines(",", log).encode("latin-1"))
    (at / "clientes.csv").write_bytes(lines(",", rows).encode("latin-1"))
    told = expected(
        [e for n, e in enumerate(w.events) if n % 10 < 9],
        user,
        "A{}".format,
        columns=("id_cliente", "id_articulo", "fecha"),
        weights=("vista", "carrito", "compra"),
        values={("users", "0001-1", "sexo"): "F", ("users", "0002-2", "sexo"): None, ("users", "0001-1", "activo"): False},
        fields={("user", "sexo"): "categorical", ("user", "activo"): "categorical"},
        no_context=("importe", "tipo_evento"),
    )
    return Folder({"interactions": "eventos.csv", "users": "clientes.csv"}, told)


@folder
def page_views(at: Path, w: World) -> Folder:
    """Pages as items, two offsets from UTC, visitors without a cookie."""
    log: list[list[object]] = [['"ts"', '"client_id"', '"page_url"', '"referrer"', '"status"']]
    for n, e in enumerate(w.events):
        zone = timezone(timedelta(hours=1 + n % 2))
        moment = utc(e.at).astimezone(zone).isoformat().replace("+0", ".250+0")
        client = "" if n % 25 == 3 else f"GA1.2.{100000 + e.user}"
        source = ["https://google.com/", "", "https://bing.com/"][(n + e.user) % 3]
        log.append([f'"{one}"' for one in (moment, client, f"https://shop.example/p/{e.item}", source, 200)])
    (at / "pageviews.csv").write_text(lines(";", log))
    user = lambda u: f"GA1.2.{100000 + u}"  # noqa: E731
    known = [e for n, e in enumerate(w.events) if n % 25 != 3]
    columns = ("client_id", "page_url", "ts")
    return Folder({}, expected(known, user, "https://shop.example/p/{}".format, more=0.25, columns=columns))
