"""Ranks that are sent their parts of prepared data train the model of one process."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, dataset_of, open_tables
from recall.data.prepare import prepare
from recall.data.split import TRAIN
from recall.data.synthetic import SyntheticConfig, generate
from recall.data.tables import read_tables
from recall.errors import TrainingError
from recall.features.encoder import FeatureEncoder
from recall.training.distribute import give, on_disk, receive
from recall.training.ranks import Ranks
from recall.training.train import TrainResult, train
from tests.training.thread_ranks import on_threads

PLAIN = {"dropout": 0.0, "drop": 0.0, "epochs": 2, "batch": 200, "optimiser": "sgd"}
OBJECTIVES = {
    "square": {"objective": "square", "sweeps": 3},
    "softmax": {"objective": "softmax", "learning_rate": 1.0, **PLAIN},
    "bpr": {"objective": "bpr", "learning_rate": 0.5, **PLAIN},
    "logistic": {"objective": "logistic", "learning_rate": 0.5, **PLAIN},
}
CONTEXTS = {
    "device": {"side": "user", "kind": "categorical"},
    "daypart": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
}
FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "age": {"side": "user", "kind": "numeric"},
    "interests": {"side": "user", "kind": "bag"},
    "previous": {"kind": "history", "lags": [[1, 1]]},
    "category": {"side": "item", "kind": "categorical"},
    **CONTEXTS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated shop in which a seventh of the rows was shown and not taken, prepared in three shards."""
    folder = tmp_path_factory.mktemp("shop")
    generate(SyntheticConfig(120, 60, 1_500)).write(folder)
    rows = pl.read_parquet(folder / "interactions.parquet")
    rows.with_columns(pl.Series("taken", np.arange(len(rows)) % 7 > 0)).write_parquet(folder / "interactions.parquet")
    config = configured()
    prepare(config, read_tables(config.data, folder), folder, folder / "prepared", shards=3)
    return folder / "prepared"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def configured(objective: str = "square", fields: dict = FIELDS) -> RunConfig:
    tables = {f"{name}s": f"{name}s.parquet" for name in ("interaction", "user", "item")}
    data = {**tables, "time": "time", "label": "taken", "split": {"by": "last", "test": 1, "valid": 1}}
    return parse_config({"data": data, "fields": fields, "model": {"k": 6}, "train": OBJECTIVES[objective]})


def loaded(config: RunConfig, folder: Path) -> tuple[Dataset, FeatureEncoder]:
    dataset = dataset_of(config, open_tables(config.data, folder))
    return dataset, FeatureEncoder.fit(dataset)


def assert_alike(config: RunConfig, folder: Path, count: int) -> None:
    """Train on one rank and on several, and compare the models."""
    dataset, encoder = loaded(config, folder)
    alone = train(config, dataset, encoder, lambda _: None)

    def trained(ranks: Ranks) -> TrainResult:
        part, own = (dataset, encoder) if ranks.rank == 0 else receive(config, ranks)
        return train(config, part, own, lambda _: None, ranks=ranks)

    found = on_threads(count, trained)[0]
    assert found.losses == pytest.approx(alone.losses, rel=1e-4)
    one, several = (dict(result.model.named_parameters()) for result in (alone, found))
    largest = max(float(table.detach().abs().max()) for table in one.values() if table.numel())
    for name, table in several.items():
        assert not table.numel() or float((table - one[name]).detach().abs().max()) <= 1e-4 * largest, name


@pytest.mark.parametrize(("objective", "count"), [("square", 3), ("softmax", 2), ("bpr", 2), ("logistic", 3)])
def test_the_model_is_that_of_one_process(objective: str, count: int, folder: Path) -> None:
    assert_alike(configured(objective), folder, count)


def test_contexts_without_users_are_divided_by_their_values(folder: Path) -> None:
    assert_alike(configured("square", CONTEXTS), folder, 2)


def test_shown_items_without_users_and_times_are_divided(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {"user_id": np.arange(300), "device": np.repeat(["app", "web", "tv"], 100), "taken": rng.integers(0, 2, 300)}
    pl.DataFrame({**rows, "item_id": rng.integers(0, 20, 300)}).write_csv(tmp_path / "rows.csv")
    data = {"interactions": "rows.csv", "label": "taken", "split": {"by": "none"}}
    fields = {name: CONTEXTS[name] for name in ("device", "item_id")}
    train = OBJECTIVES["logistic"]
    assert_alike(parse_config({"data": data, "fields": fields, "model": {"k": 6}, "train": train}), tmp_path, 3)


def test_each_rank_has_the_interactions_of_its_users_and_the_items_of_all(folder: Path) -> None:
    config = configured()
    dataset, encoder = loaded(config, folder)

    def part(ranks: Ranks) -> Dataset:
        return receive(config, ranks)[0] if ranks.rank else give(config, dataset, encoder, ranks)

    parts = on_threads(3, part)
    assert pl.concat([one.events for one in parts]).equals(dataset.events)
    assert sum(len(one.negatives) for one in parts) == len(dataset.negatives)
    for one in parts:
        assert (one.events["split"] == TRAIN).sum() > 200
        assert np.array_equal(one.offered, dataset.offered)
        assert one.negatives["before"].max() <= len(one.events)
        assert one.negatives["user"].is_in(one.events["user"].implode()).mean() > 0.9


def test_interactions_on_disk_are_read_again_after_they_left_memory(folder: Path) -> None:
    dataset, _ = loaded(configured(), folder)
    moved = on_disk(dataset)
    assert moved.mapped is not None
    assert len(moved.mapped) == 13 * len(dataset.events) + 1
    for _ in range(2):
        assert moved.events.equals(dataset.events)
        assert moved.events.schema == dataset.events.schema
        moved.unload()


def test_a_full_disk_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, _ = loaded(configured(), folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(TrainingError, match="the interactions cannot be written") as refused:
        on_disk(dataset)
    assert "TMPDIR" in refused.value.hint


def test_other_settings_are_refused(folder: Path) -> None:
    dataset, encoder = loaded(configured(), folder)

    def part(ranks: Ranks) -> object:
        return receive(configured("bpr"), ranks) if ranks.rank else give(configured(), dataset, encoder, ranks)

    with pytest.raises(TrainingError, match="rank 1 has another configuration than rank 0"):
        on_threads(2, part)
