from pathlib import Path

import polars as pl
import pytest

import recall
from recall.config import load_config
from recall.data.dataset import load_dataset
from tests.data.scaffold.folders import downloads, logs, shops, systems, trades, warehouses
from tests.data.scaffold.folders.world import FOLDERS, World

assert {downloads, logs, shops, systems, trades, warehouses}  # imported, they fill FOLDERS
SMALL = ("--users", 60, "--items", 50, "--interactions", 900)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_generated_tables_pass_the_check(run, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "shop"
    ended = run("data", "generate", folder, *SMALL, *(["--csv"] if suffix == "csv" else []))
    assert (ended.code, ended.out) == (0, f"{folder}\n")
    assert {path.name for path in folder.iterdir()} == {
        *(f"interactions.{suffix}", f"users.{suffix}", f"items.{suffix}", "recall.toml")
    }
    checked = run("data", "check", folder / "recall.toml", "--json")
    assert checked.code == 0
    assert not [finding for finding in checked.json if finding["level"] == "error"]


def test_csv_and_parquet_give_the_same_run(run, tmp_path: Path) -> None:
    fingerprints = set()
    for options in ([], ["--csv"]):
        folder = tmp_path / f"shop{len(options)}"
        run("data", "generate", folder, *SMALL, *options)
        dataset = load_dataset(load_config(folder / "recall.toml"), folder)
        fingerprints.add(tuple(dataset.events["item"].to_list()))
        assert len(dataset.events) == 900
    assert len(fingerprints) == 1


def test_generate_overwrites_nothing(run, tmp_path: Path) -> None:
    (tmp_path / "users.parquet").write_text("mine")
    ended = run("data", "generate", tmp_path, *SMALL)
    assert ended.code == 73
    assert str(tmp_path / "users.parquet") in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["users.parquet"]


def test_invalid_sizes_are_explained(run, tmp_path: Path) -> None:
    ended = run("data", "generate", tmp_path / "shop", "--users", 2, "--items", 3, "--interactions", 100)
    assert ended.code == 78
    assert "cannot have 100 interactions" in ended.err
    assert not (tmp_path / "shop").exists()


def test_check_exits_with_65_if_training_is_impossible(run, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    run("data", "generate", folder, *SMALL)
    items = pl.read_parquet(folder / "items.parquet")
    pl.concat([items, items.head(1)]).write_parquet(folder / "items.parquet")
    ended = run("data", "check", folder / "recall.toml")
    assert ended.code == 65
    assert ended.out.startswith("error ")
    assert "must be fixed before training" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("german_orders", "nested_events", "receipts", "shopify_orders", "goodreads_dump", "lastfm_listens", "yelp_arrays"),
        *("retail_rocket", "mongo_export", "excel_sep_line", "glued_exports", "chinese_orders", "russian_accounting"),
        *("postgres_copy", "matomo_visits", "woocommerce_orders", "google_sheet", "portuguese_sales", "turkish_orders"),
        *("polish_orders", "warehouse_parquet", "duckdb_copy", "clickhouse_types"),
        *("music_plays_with_quotes_in_names", "order_lines_with_customer_notes", "library_loans", "pharmacy_sales"),
    ],
)
def test_a_messy_folder_goes_from_init_to_an_answer(run, tmp_path: Path, name: str) -> None:
    made = FOLDERS[name](tmp_path, World.make(0))
    home = tmp_path / "out" if made.files else tmp_path
    files = [part for table, file in made.files.items() for part in (f"--{table}", tmp_path / file)]
    assert run("init", home, *files).code == 0
    assert run("data", "check", home / "recall.toml").code == 0
    assert run("train", home / "recall.toml", "--out", home / "bundles", "--race", "2s").code == 0
    items = {item for _, item, _ in made.expected.samples}
    user = made.expected.samples[0][0]
    with recall.load(home / "bundles") as model:
        lists = model.recommend([user], n=200)
        assert items & set(map(str, lists[lists.columns[2]]))


def test_findings_are_shown_although_there_is_no_profile(run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\n1,2\n")
    (tmp_path / "recall.toml").write_text(
        '[data]\ninteractions = "log.csv"\nuser_id = "who"\n[fields]\nwho = { side = "user", kind = "categorical" }\n'
        'item_id = { side = "item", kind = "categorical" }\n'
    )
    ended = run("data", "check", tmp_path / "recall.toml", "--report", tmp_path / "page.html")
    assert "there is no column 'who'" in ended.out
    assert ended.code == 65
