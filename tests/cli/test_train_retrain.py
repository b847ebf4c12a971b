"""Which versions go live, and `recall retrain`."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from recall._file_system import locked
from recall.bundle.versions import CURRENT, live_name, resolve, versions
from recall.data.synthetic import SyntheticConfig, generate

FAST = ("--set", "train.sweeps=2", "--set", "model.k=4")
USELESS = ("--set", "train.sweeps=1", "--set", "model.k=4", "--set", "train.regularisation=1e9")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop, and the latest interactions of some users in a separate folder."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("shop", "new"):
        (folder / name).mkdir()
    generate(SyntheticConfig(users=80, items=60, interactions=1_500)).write(folder / "shop", ".csv")
    path = folder / "shop/interactions.csv"
    rows = pl.read_csv(path, infer_schema=False).with_columns(pl.col("time").cast(pl.Int64)).sort("time", maintain_order=True)
    rows[-60:].write_csv(folder / "new/interactions.csv")
    rows[:-60].write_csv(path)
    return folder


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "shop", tmp_path / "shop"))


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recall.config import load_config
    from recall.pipeline import run

    root = tmp_path_factory.mktemp("trained") / "bundles"
    run(load_config(made / "shop/recall.toml", ["train.sweeps=2", "model.k=4"]), made / "shop", root)
    return root


@pytest.fixture
def bundles(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "bundles"))


def test_a_first_version_goes_live_without_a_comparison(run, shop: Path, tmp_path: Path) -> None:
    ended = run("train", shop / "recall.toml", "--out", tmp_path / "b", *FAST, "--activate", "if-not-worse", "--json")
    assert ended.code == 0, ended.err
    gate = ended.json["gate"]
    assert (gate["live"], gate["activated"], gate["difference"]) == (None, True, None)
    assert live_name(tmp_path / "b") == gate["version"]


def test_a_version_that_was_not_asked_for_stays_aside(run, shop: Path, bundles: Path) -> None:
    before = live_name(bundles)
    ended = run("train", shop / "recall.toml", "--out", bundles, *FAST, "--set", "seed=1", "--activate", "never")
    assert ended.code == 0
    assert f"{before} stays live, as requested" in ended.out
    assert live_name(bundles) == before
    assert len(versions(bundles)) == 2
    aside = versions(bundles)[-1].name
    assert run("activate", bundles, aside).code == 0
    assert live_name(bundles) == aside


def test_a_worse_version_is_published_and_not_activated(run, shop: Path, bundles: Path) -> None:
    before = live_name(bundles)
    ended = run("train", shop / "recall.toml", "--out", bundles, *USELESS, "--activate", "if-not-worse", "--json")
    assert ended.code == 3, ended.err
    gate = ended.json["gate"]
    assert live_name(bundles) == before == gate["live"]
    assert resolve(bundles / "versions" / gate["version"]).is_dir()
    assert gate["difference"]["high"] < 0
    assert gate["difference"]["value"] == pytest.approx(gate["new"]["value"] - gate["old"]["value"])
    evaluated = run("evaluate", shop / "recall.toml", bundles / "versions" / gate["version"], "--against", bundles, "--json")
    difference = evaluated.json["rivals"][0]["comparison"][gate["metric"]]["difference"]
    assert difference == pytest.approx(gate["difference"])


def test_an_equal_version_is_activated(run, shop: Path, bundles: Path) -> None:
    before = live_name(bundles)
    ended = run("train", shop / "recall.toml", "--out", bundles, *FAST, "--activate", "if-not-worse")
    assert ended.code == 0, ended.err
    assert live_name(bundles) != before
    assert "differs by +0.0000, with an interval that is not below 0" in ended.out
    assert "requests of the test part" in ended.out


def test_without_held_out_interactions_nothing_is_trained(run, shop: Path, bundles: Path) -> None:
    everything = ("--set", 'data.split={by="none"}')
    ended = run("train", shop / "recall.toml", "--out", bundles, *FAST, *everything, "--activate", "if-not-worse")
    assert ended.code == 78
    assert "nothing is held out to compare with the live version on" in ended.err
    assert len(versions(bundles)) == 1


def test_a_rebuilt_catalogue_passes_the_gate(run, shop: Path, bundles: Path) -> None:
    before = live_name(bundles)
    asked = ("rebuild", bundles, shop / "items.csv", "--activate", "if-not-worse")
    assert run(*asked).code == 2
    ended = run(*asked, "--config", shop / "recall.toml", "--json")
    assert ended.code == 0, ended.err
    assert ended.json["gate"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert live_name(bundles) == ended.json["version"] != before
    few = pl.read_csv(shop / "items.csv", infer_schema=False)[:5]
    few.write_csv(shop / "few.csv")
    ended = run("rebuild", bundles, shop / "few.csv", "--activate", "if-not-worse", "--config", shop / "recall.toml", "--json")
    assert ended.code == 3
    assert ended.json["gate"]["activated"] is False


def test_retraining_adds_the_new_data_once(run, made: Path, shop: Path, bundles: Path) -> None:
    before = live_name(bundles)
    asked = ("retrain", shop / "recall.toml", bundles, "--new", made / "new", "--data", shop, *FAST, "--json")
    old = pl.read_csv(shop / "interactions.csv", infer_schema=False)
    new = pl.read_csv(made / "new/interactions.csv", infer_schema=False)
    ended = run(*asked)
    assert ended.code == 0, ended.err
    assert ended.json["gate"]["live"] == before
    assert live_name(bundles) == ended.json["version"] != before
    assert "added to" in ended.err
    assert pl.read_csv(shop / "interactions.csv", infer_schema=False).equals(pl.concat([old, new]))
    again = run(*asked)
    assert again.code == 0
    assert again.json == {"folder": None, "live": ended.json["version"]}
    assert len(versions(bundles)) == 2


def test_a_retraining_that_was_killed_while_it_added_tables_adds_the_rest(run, made: Path, shop: Path, bundles: Path) -> None:
    shutil.copytree(made / "new", shop / "new")
    first = pl.read_csv(shop / "items.csv", infer_schema=False)[:1]
    pl.concat([first, first.with_columns(item_id=pl.lit("fresh"))]).write_csv(shop / "new/items.csv")
    asked = ("retrain", shop / "recall.toml", bundles, "--new", shop / "new", "--data", shop, *FAST)
    items = (shop / "items.csv").read_bytes()
    assert run(*asked).code == 0
    added = (shop / "items.csv").read_bytes()
    assert b"fresh" in added
    (shop / "items.csv").write_bytes(items)  # as if it had been killed before it wrote the items
    again = run(*asked)
    assert again.code == 0
    assert "nothing new" in again.out
    assert (shop / "items.csv").read_bytes() == added
    before = (shop / "items.csv").stat().st_ino
    assert "added to" not in run(*asked).err
    assert (shop / "items.csv").stat().st_ino == before


def test_a_full_disk_is_named(run, made: Path, shop: Path, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device (os error 28)")  # as polars does, without an errno

    monkeypatch.setattr(pl.DataFrame, "write_csv", full)
    ended = run("retrain", shop / "recall.toml", bundles, "--new", made / "new", "--data", shop, *FAST)
    assert ended.code == 73
    assert f"where: {shop / 'interactions.csv'}" in ended.err


def test_a_new_column_is_not_lost(run, made: Path, shop: Path, bundles: Path) -> None:
    shutil.copytree(made / "new", shop / "new")
    items = pl.read_csv(shop / "items.csv", infer_schema=False)
    items[:1].with_columns(colour=pl.lit("red")).write_csv(shop / "new/items.csv")
    asked = ("retrain", shop / "recall.toml", bundles, "--new", shop / "new", "--data", shop, *FAST)
    ended = run(*asked)
    assert ended.code == 65
    assert "the new items have column 'colour', which the old ones lack" in ended.err
    assert len(versions(bundles)) == 1


def test_a_root_that_is_not_there_is_not_made(run, made: Path, shop: Path, tmp_path: Path) -> None:
    ended = run("retrain", shop / "recall.toml", tmp_path / "none", "--new", made / "new")
    assert ended.code == 65
    assert not (tmp_path / "none").exists()


def test_a_table_that_lost_its_latest_rows_is_no_judge(run, made: Path, shop: Path, bundles: Path) -> None:
    whole = pl.read_csv(shop / "interactions.csv", infer_schema=False)
    asked = ("retrain", shop / "recall.toml", bundles, "--new", made / "new", "--data", shop, *FAST)
    whole[:-400].write_csv(shop / "interactions.csv")
    ended = run(*asked)
    assert ended.code == 65
    assert "it stores later interactions of these users, which the table lacks" in ended.err
    assert len(versions(bundles)) == 1
    assert run("evaluate", shop / "recall.toml", bundles).code == 65
    whole[:-1].write_csv(shop / "interactions.csv")  # one row says little
    assert run("evaluate", shop / "recall.toml", bundles).code == 0


def test_without_the_old_tables_the_same_interactions_train_once(run, made: Path, shop: Path, bundles: Path) -> None:
    asked = ("retrain", shop / "recall.toml", bundles, "--new", shop / "new", *FAST, "--activate", "always", "--json")
    shutil.copytree(made / "new", shop / "new")
    assert run(*asked).code == 0
    again = run(*asked)
    assert (again.code, again.json["folder"]) == (0, None)
    assert len(versions(bundles)) == 2
    rows = pl.read_csv(shop / "new/interactions.csv", infer_schema=False)
    later = rows[:1].with_columns(time=pl.lit("1999999999"))
    pl.concat([rows, later]).write_csv(shop / "new/interactions.csv")
    assert run(*asked).json["folder"] is not None


def test_two_retrainings_of_a_root_exclude_each_other(run, made: Path, shop: Path, bundles: Path) -> None:
    with locked(bundles / ".retrain.lock", 0.0, "held by the test"):
        ended = run("retrain", shop / "recall.toml", bundles, "--new", made / "new", *FAST)
    assert ended.code == 75
    assert "another process retrains this root" in ended.err
    assert (bundles / CURRENT).read_text().strip() == versions(bundles)[-1].name
