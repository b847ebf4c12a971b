import tomllib
from pathlib import Path

from recall.config import load_config

SHOP = """# a comment of the user's own
name = "shop"

[data]
time = "time"  # seconds
users = "users.parquet"
items = "items.parquet"
split = { by = "last", test = 1, valid = 1 }

[fields]
user_id = { side = "user", kind = "categorical" }
item_id = { side = "item", kind = "categorical" }
tags = { side = "item", kind = "bag" }

[model]
k = 4

[train]
sweeps = 2
"""


def test_the_best_settings_are_written_with_their_origin(run, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP)
    ended = run("tune", file, "--minutes", 0.05, "--data", tiny_folder, "--objective", "square", "--json")
    assert ended.code == 0, ended.err
    assert "trial   0" in ended.err
    written = tmp_path / "shop.tuned.toml"
    text = written.read_text()
    assert text.startswith("# Found by `recall tune` on 20")
    assert "The test part was not used." in text
    assert "# a comment of the user's own" in text
    config = load_config(written)
    assert config.train.objective == "square"
    assert ended.json["file"] == str(written)
    assert ended.json["trials"] >= 1
    assert tomllib.loads(text)["fields"] == tomllib.loads(SHOP)["fields"]


def test_the_written_file_keeps_the_given_settings(run, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP)
    common = ("tune", file, "--minutes", 0.03, "--data", tiny_folder, "--objective", "square")
    assert run(*common).code == 0  # its trials are of another model kind and not used by the next search
    given = ("model.kind=ffm", "model.k=2", "fields.tags.min_count=2", 'data.split={by="last",test=2,valid=1}')
    ended = run(*common, *(part for one in given for part in ("--set", one)))
    assert ended.code == 0, ended.err
    written = load_config(tmp_path / "shop.tuned.toml")
    assert (written.model.kind, written.model.k) == ("ffm", 2)
    assert written.fields["tags"] == load_config(file, given).fields["tags"]
    assert written.data.split == load_config(file, [*given, "data.split.valid=0"]).data.split  # the validation part trains
    assert "--set model.kind=ffm --set model.k=2" in (tmp_path / "shop.tuned.toml").read_text()


def test_trials_are_printed_completely_and_requests_counted(run, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP.replace("sweeps = 2", 'objective = "auto"'))
    ended = run("tune", file, "--minutes", 0.05, "--data", tiny_folder, "--objective", "square")
    assert ended.code == 0, ended.err
    first = next(line for line in ended.err.splitlines() if line.startswith("trial   0"))
    assert '[square] model.kind="fm" model.k=4 train.objective="square"' in first
    assert "train.regularisation=0.001" in first
    assert "train.drop=0.05" in first
    assert "on 12 validation requests" in ended.out
    assert "on 12 requests of 12 interactions" in (tmp_path / "shop.tuned.toml").read_text()
    assert load_config(tmp_path / "shop.tuned.toml").train.objective == "square"


def test_a_corrupt_log_is_named(run, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP)
    (tmp_path / "shop.tuned.journal").write_bytes(b"\xff\x00\xd2 no JSON\n" * 9)
    ended = run("tune", file, "--minutes", 0.03, "--data", tiny_folder)
    assert ended.code == 65
    assert "the journal of trials is damaged" in ended.err
    (tmp_path / "shop.tuned.journal").write_text("no JSON\n" * 9)
    assert run("tune", file, "--minutes", 0.03, "--data", tiny_folder).code == 65


def test_an_unknown_objective_is_named(run, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP)
    ended = run("tune", file, "--minutes", 1, "--objective", "sqare")
    assert ended.code != 0
    assert "unknown objective 'sqare'" in ended.err
    assert "square" in ended.err
