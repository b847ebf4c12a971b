from pathlib import Path

import polars as pl

from recall.config import load_config
from recall.data.dataset import load_dataset
from recall.serving.recommender import Recommender
from recall.serving.request import Request


def test_init_fills_an_empty_folder_with_a_trainable_shop(run, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    ended = run("init", folder)
    assert (ended.code, ended.out) == (0, f"{folder / 'recall.toml'}\n")
    assert len(load_dataset(load_config(folder / "recall.toml"), folder).events) == 4_000


def test_init_drafts_a_loadable_configuration_for_existing_tables(run, tiny_folder: Path) -> None:
    ended = run("init", tiny_folder)
    assert ended.code == 0
    config = load_config(tiny_folder / "recall.toml")
    assert config.data.users == "users.parquet"
    assert load_dataset(config, tiny_folder).context_columns == ("device", "hour")


def test_a_configuration_is_never_overwritten(run, tiny_folder: Path) -> None:
    (tiny_folder / "recall.toml").write_text("mine")
    ended = run("init", tiny_folder)
    assert ended.code == 73
    assert (tiny_folder / "recall.toml").read_text() == "mine"


def test_a_folder_without_interactions_is_explained(run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    ended = run("init", tmp_path)
    assert ended.code == 65
    assert "there is no interactions.parquet" in ended.err
    assert not (tmp_path / "recall.toml").exists()


def test_a_missing_folder_is_an_error_and_not_created(run, tmp_path: Path) -> None:
    ended = run("init", tmp_path / "shpo")
    assert ended.code == 65
    assert f"there is no such folder\nwhere: {tmp_path / 'shpo'}" in ended.err
    assert not (tmp_path / "shpo").exists()
    (tmp_path / "file").write_text("x")
    assert run("init", tmp_path / "file").code == 65


def test_an_id_column_is_found_by_its_name_or_given(run, tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("usrId,item_id\n1,2\n")
    ended = run("init", tmp_path)
    assert ended.code == 65
    assert "Did you mean 'usrId'? Name the column with --user-id" in " ".join(ended.err.split())
    assert run("init", tmp_path, "--user-id", "usrId").code == 0
    (tmp_path / "recall.toml").unlink()
    (tmp_path / "interactions.csv").write_text("userId,item_id\n1,2\n")
    assert run("init", tmp_path).code == 0
    assert 'user_id = "userId"  # the name says user' in (tmp_path / "recall.toml").read_text()


def test_users_that_are_mostly_missing_are_warned_of(run, tmp_path: Path) -> None:
    rows = "".join(f"{f'u{n}' if n % 5 == 0 else ''},s{n // 3},{n % 7}\n" for n in range(100))
    (tmp_path / "interactions.csv").write_text("user_id,session_id,item_id\n" + rows)
    ended = run("init", tmp_path)
    assert ended.code == 0
    assert "warning: 80% of the interactions have no user_id: they are not read" in " ".join(ended.err.split())
    assert "session_id is empty in 0%" in " ".join(ended.err.split())


def test_files_may_be_elsewhere_and_anyhow_written(run, tmp_path: Path) -> None:
    rows = [(user, item, f"{1 + (user + item) % 28:02}.01.2024") for user in range(12) for item in range(user % 3, 20, 2)]
    (tmp_path / "ratings.csv").write_text("Nutzer;Film;Tag\n" + "".join(f"{u};{i};{day}\n" for u, i, day in rows))
    (tmp_path / "movies.csv").write_text("Film;Preis\n" + "".join(f"{item};{item},5\n" for item in range(20)))
    files = ("--interactions", tmp_path / "ratings.csv", "--items", tmp_path / "movies.csv")
    config = tmp_path / "shop" / "recall.toml"
    assert run("init", tmp_path / "shop", "--items", tmp_path / "movies.csv").code == 2
    assert run("init", tmp_path / "shop", *files).code == 0
    assert run("data", "check", config).code == 0
    assert run("train", config, "--out", tmp_path / "bundles").code == 0
    with Recommender.load(tmp_path / "bundles") as recommender:
        assert recommender.items.current().items().filter(pl.col("Film") == "7")["Preis"].to_list() == [7.5]
        seen = {str(item) for user, item, _ in rows if user == 3}
        answer = recommender.recommend(Request(user_id="3", n=20))
        assert set(answer.ids) == {str(item) for item in range(20)} - seen
