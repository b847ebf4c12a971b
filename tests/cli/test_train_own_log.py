"""A log with event types, null texts and item columns, in every command that reads tables."""

from pathlib import Path

import polars as pl
import pytest

from recall.bundle.reader import load_bundle

CONFIG = """
[data]
interactions = "log.csv"
items = "items.csv"
user_id = "who"
item_id = "sku"
id_in_items = "id"
time = "when"
nulls = ["NA"]
events = { column = "event", weights = { view = 1, buy = 5 }, left_out = ["refund"], not_taken = ["shown"] }
item_columns = ["brand", "price"]
user_columns = ["country"]
attributes = ["title"]
split = { by = "last" }

[fields]
who = { side = "user", kind = "categorical" }
country = { side = "user", kind = "categorical" }
device = { side = "user", kind = "categorical" }
sku = { side = "item", kind = "categorical" }
brand = { side = "item", kind = "categorical" }
price = { side = "item", kind = "numeric" }

[model]
k = 4

[evaluation]
mask = "none"
"""
SETTINGS = ("--set", "train={objective='logistic', epochs=1}")


def log(folder: Path, first: int, rows: int) -> None:
    """Draw rows of a log; the rarest event has items that no other event has."""
    lines = ["who,sku,event,when,brand,price,country,device"]
    for n in range(first, first + rows):
        user, item = n % 23, (n * 7 + n // 23) % 31
        event = "refund" if n % 17 == 0 else ("view", "shown", "buy")[n % 3]
        sku = "gone" if event == "refund" else f"s{item}"
        brand, device = "NA" if item % 5 == 0 else f"b{item % 4}", ("phone", "NA", "tv")[n // 5 % 3]
        lines.append(f"u{user},{sku},{event},{1_700_000_000 + n},{brand},{item + 0.5},c{user % 3},{device}")
    folder.mkdir(exist_ok=True)
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    titles = "".join(f"s{item},{'NA' if item == 3 else f'thing {item}'}\n" for item in range(31))
    (folder / "items.csv").write_text("id,title\n" + titles)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    log(folder / "old", 0, 900)
    log(folder / "new", 900, 150)
    (folder / "run.toml").write_text(CONFIG)
    return folder


@pytest.mark.slow
def test_all_commands_read_the_tables_alike(run, folder: Path, tmp_path: Path) -> None:
    config, root = folder / "run.toml", tmp_path / "out"
    checked = run("data", "check", config, "--data", folder / "old")
    assert checked.code == 0
    assert "warning" not in checked.out, checked.out
    trained = run("train", config, "--data", folder / "old", "--out", root, *SETTINGS)
    assert trained.code == 0, trained.err
    assert "shown and not taken" in trained.err
    bundle = load_bundle(root)
    items = {row["sku"]: row for row in bundle.items().iter_rows(named=True)}
    assert "gone" not in items
    assert items["s4"] == {"sku": "s4", "brand": "b0", "price": 4.5, "title": "thing 4"}
    assert items["s5"]["brand"] is None
    assert items["s3"]["title"] is None

    judged = run("evaluate", config, root, "--data", folder / "old", "--set", "evaluation.intervals=0", "--json")
    assert judged.code == 0, judged.err
    assert judged.json["context_columns"] == ["device"]
    assert judged.json["discrimination"]["source"] == "labels"

    (tmp_path / "pairs.csv").write_text("who,sku,device,note\nu1,s1,phone,NA\nu1,s1,NA,b\nu1,s1,,c\n")
    predicted = run("predict", root, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "scored.csv")
    assert predicted.code == 0, predicted.err
    scored = pl.read_csv(tmp_path / "scored.csv")
    assert scored["probability"][1] == scored["probability"][2] != scored["probability"][0]
    assert scored["note"].to_list() == ["NA", "b", "c"]

    for old in ((), ("--data", folder / "old")):
        went_on = run("train", config, "--resume", root, "--new", folder / "new", *old, "--out", tmp_path / "more", *SETTINGS)
        assert went_on.code == 0, went_on.err
        after = {row["sku"]: row for row in load_bundle(tmp_path / "more").items().iter_rows(named=True)}
        assert after == items

    (tmp_path / "next.csv").write_text("id,title,brand,price\ns1,one,b1,NA\nfresh,NA,b2,3\n")
    rebuilt = run("rebuild", root, tmp_path / "next.csv", "--out", tmp_path / "again")
    assert rebuilt.code == 0, rebuilt.err
    assert load_bundle(tmp_path / "again").items().rows() == [("s1", "b1", None, "one"), ("fresh", "b2", 3.0, None)]

    added = run("items", "upsert", root, tmp_path / "next.csv")
    assert added.code == 0, added.err
    answer = run("query", root, "--user", "u1", "-n", "40", "--json")
    assert "fresh" in [item["item_id"] for item in answer.json["items"]]

    tuned = run("tune", config, "--data", folder / "old", "--minutes", "0.05", "--out", tmp_path / "tuned.toml")
    assert tuned.code == 0, tuned.err
