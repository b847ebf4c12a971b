from pathlib import Path

from recall.config import load_config
from recall.data.dataset import load_dataset


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


def test_an_id_column_of_another_name_must_be_given(run, tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("userId,item_id\n1,2\n")
    ended = run("init", tmp_path)
    assert ended.code == 65
    assert "Did you mean 'userId'? Name the column with --user-id" in " ".join(ended.err.split())
    assert run("init", tmp_path, "--user-id", "userId").code == 0
