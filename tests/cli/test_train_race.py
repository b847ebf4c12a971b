import json
from pathlib import Path

import pytest

from recall.bundle.reader import load_bundle
from recall.config import load_config
from recall.data.dataset import load_dataset
from recall.data.synthetic import SyntheticConfig, generate
from recall.pipeline import run as train
from recall.training.checkpoint import checkpoint_path
from recall.training.race.decide import save_race
from recall.training.train import run_fingerprint


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop whose objective is chosen by a race."""
    folder = tmp_path_factory.mktemp("shop")
    generate(SyntheticConfig(users=80, items=60, interactions=1_500)).write(folder)
    text = (folder / "recall.toml").read_text()
    head, _, tail = text.partition("[train]")
    rest = tail.partition("\n[")
    (folder / "recall.toml").write_text(f'{head}[train]\nobjective = "auto"\n\n{rest[1]}{rest[2]}')
    return folder


@pytest.fixture(scope="module")
def published(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    train(load_config(shop / "recall.toml"), shop, root, race=2.0)
    return root


def test_train_races_and_reports_and_records_it(run, shop: Path, tmp_path: Path) -> None:
    ended = run("train", shop / "recall.toml", "--out", tmp_path, "--race", "2s", "--json")
    assert ended.code == 0, ended.err
    raced = ended.json["race"]
    assert raced["metric"] == "ndcg@10"
    assert raced["winner"] == raced["raced"][0]["recipe"]
    assert raced["raced"][0]["low"] < raced["raced"][0]["value"] < raced["raced"][0]["high"]
    assert "popularity, without training" in ended.err
    manifest = load_bundle(tmp_path).manifest
    assert manifest.metrics["race"] == raced
    assert manifest.objective in ("square", "softmax", "bpr")
    assert not list(tmp_path.glob("*.race.json"))


def test_a_resolved_bundle_goes_on_and_evaluates_with_the_same_file(run, shop: Path, published: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    generate(SyntheticConfig(users=80, items=60, interactions=300, seed=1)).write(new)
    ended = run("evaluate", shop / "recall.toml", published, "--json", "--set", "evaluation.intervals=0")
    assert ended.code == 0, ended.err
    ended = run("evaluate", shop / "recall.toml", published, "--part", "valid")
    assert ended.code == 65  # it was trained on it
    assert "was trained on" in ended.err
    resumed = run("train", shop / "recall.toml", "--resume", published, "--new", new, "--data", shop, "--out", tmp_path)
    assert resumed.code == 0, resumed.err
    old, grown = load_bundle(published).manifest, load_bundle(tmp_path).manifest
    assert grown.config["train"] == old.config["train"]
    assert grown.config["fields"] == old.config["fields"]


def test_an_interrupted_run_keeps_its_race(run, shop: Path, tmp_path: Path) -> None:
    config = load_config(shop / "recall.toml")
    kept = checkpoint_path(tmp_path, run_fingerprint(config, load_dataset(config, shop))).with_suffix(".race.json")
    record = {"winner": "kept", "metric": "ndcg@10", "requests": 1, "lead": None, "over_default": None, "over_popularity": None}
    save_race(kept, {"model": {"k": 4}, "train": {"objective": "square", "sweeps": 1}}, record)
    ended = run("train", shop / "recall.toml", "--out", tmp_path)
    assert ended.code == 0, ended.err
    assert "the race of an interrupted run was kept" in ended.err
    assert "recipe         kept" in ended.out
    assert load_bundle(tmp_path).manifest.config["train"]["sweeps"] == 1
    assert not kept.exists()
    kept.write_text(json.dumps({}))
    assert "the kept race is damaged" in run("train", shop / "recall.toml", "--out", tmp_path).err


@pytest.mark.parametrize(("option", "code"), [("0s", 2), ("soon", 2), ("1d", 2)])
def test_a_race_needs_a_duration(run, shop: Path, tmp_path: Path, option: str, code: int) -> None:
    assert run("train", shop / "recall.toml", "--out", tmp_path, "--race", option).code == code


def test_a_race_needs_the_objective_auto(run, shop: Path, tmp_path: Path) -> None:
    ended = run("train", shop / "recall.toml", "--out", tmp_path, "--race", "2m", "--set", "train.objective=square")
    assert ended.code == 78
    assert '--race needs train.objective = "auto"' in ended.err


def test_init_drafts_a_race(run, shop: Path, tmp_path: Path) -> None:
    for file in shop.glob("*.parquet"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert run("init", tmp_path).code == 0
    config = load_config(tmp_path / "recall.toml")
    assert config.train.objective == "auto"
    assert "k" not in config.model.model_fields_set
