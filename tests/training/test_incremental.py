"""Continued training of a published model, on tables with a field of every kind."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recall.bundle.reader import load_bundle
from recall.config import RunConfig, parse_config
from recall.data.contexts import build_contexts
from recall.data.dataset import load_dataset
from recall.data.split import REMEMBERED, TRAIN
from recall.errors import ConfigError, TrainingError, TrainingInterruptedError
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import SparseBatch
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.registry import new_model
from recall.publish.export import export
from recall.serving.recommender import Recommender, Request
from recall.training.incremental import WarmStartRun, prepare_warm_start, retrain
from recall.training.loop import SweepReport
from recall.training.start import shares
from recall.training.train import TrainResult, train
from tests.conftest import TINY

CONFIG = {**TINY, "model": {"k": 4}, "train": {"sweeps": 3}}


@pytest.fixture
def config() -> RunConfig:
    return parse_config(CONFIG)


@pytest.fixture
def root(config: RunConfig, tiny_folder: Path, tmp_path: Path) -> Path:
    """A root with a trained, published model."""
    dataset = load_dataset(config, tiny_folder)
    encoder = FeatureEncoder.fit(dataset)
    trained = train(config, dataset, encoder, lambda report: None)
    export(trained.model, encoder, dataset, config, tmp_path / "bundles", {"validation": dict(trained.metrics)})
    return tmp_path / "bundles"


@pytest.fixture(params=["old and new", "new alone"])
def ground(
    request: pytest.FixtureRequest, config: RunConfig, root: Path, tiny_folder: Path, tiny_additions: Path
) -> WarmStartRun:
    return prepare_warm_start(config, root, tiny_additions, tiny_folder if request.param == "old and new" else None, root)


def trained_from(ground: WarmStartRun, config: RunConfig) -> TrainResult:
    return train(config, ground.dataset, ground.encoder, lambda report: None, start=ground.start)


def begun(ground: WarmStartRun, config: RunConfig) -> FactorizationMachine:
    model = FactorizationMachine(ground.encoder.n_user_features, ground.encoder.n_item_features, config.model.k)
    ground.start.give(model)
    return model


def test_known_items_and_users_keep_their_vectors_before_training(ground: WarmStartRun, config: RunConfig, root: Path) -> None:
    bundle = load_bundle(root)
    model = begun(ground, config)
    catalogue = bundle.items()
    with torch.no_grad():
        items = model.item_vectors(SparseBatch.of(ground.encoder.encode_items(catalogue))).numpy()
        users = model.user_vectors(SparseBatch.of(ground.encoder.users.encode(ground.dataset.users))).numpy()
    assert np.allclose(items, bundle.item_vectors, atol=1e-5)
    before = bundle.tables.user_vectors(bundle.encoder.users.encode(ground.dataset.users))
    assert np.allclose(users, before, atol=1e-5)  # a new user starts from the unknown row


def test_new_values_start_from_the_unknown_row(ground: WarmStartRun, root: Path) -> None:
    bundle = load_bundle(root)
    assert ground.encoder.n_item_features > bundle.encoder.n_item_features
    assert ground.values["item_id"] == 2
    assert ground.values["user_id"] == 1
    assert ground.values["history"] == 2
    unknown = ground.encoder.item_blocks[0]
    new = ground.encoder.columns["item_id"].encode_one({"item_id": "fresh"})[0][0] + unknown.offset
    table = ground.start.parameters["item_factors"]
    assert torch.equal(table[new], torch.from_numpy(bundle.tables.item_factors[0].copy()))


def test_the_next_version_serves_new_values_and_names_its_parent(ground: WarmStartRun, config: RunConfig, root: Path) -> None:
    trained = trained_from(ground, config)
    metrics = {"growth": ground.record(trained, None)}
    done = export(trained.model, ground.encoder, ground.dataset, config, root, metrics, ground.source.sequence, ground.expected)
    assert (done.manifest.sequence, done.manifest.parent) == (2, 1)
    assert done.manifest.metrics["growth"]["from"] == ground.source.version
    recommender = Recommender.load(root)
    answer = recommender.recommend(Request(user_id="new", n=50, exclude_seen=False))
    assert answer.user == "known"
    assert {"fresh", "fresher", "i0"} <= {item.item_id for item in answer.items}
    recommender.close()


def test_users_are_kept_without_the_old_interactions(
    config: RunConfig, root: Path, tiny_folder: Path, tiny_additions: Path
) -> None:
    """The state of a user is the same with the old tables and with the bundle alone."""
    stores = []
    for old in (tiny_folder, None):
        ground = prepare_warm_start(config, root, tiny_additions, old, root)
        trained = trained_from(ground, config)
        done = export(trained.model, ground.encoder, ground.dataset, config, root.parent / f"{old is None}")
        recommender = Recommender.load(done.folder)
        stores.append({name: recommender.users.get(name) for name in ("u0", "u2", "u9", "new")})
        recommender.close()
    assert stores[0] == stores[1]


def test_metrics_before_after_and_from_scratch_are_recorded(ground: WarmStartRun, config: RunConfig) -> None:
    trained = trained_from(ground, config)
    retrained = retrain(config, ground, trained, lambda report: None)
    full = train(config, ground.dataset, FeatureEncoder.fit(ground.dataset), lambda report: None)
    assert retrained.trained.metrics == full.metrics
    record = ground.record(trained, retrained)
    assert set(record["before"]) == set(record["after"]) == set(record["gap"])
    gap = record["gap"]["ndcg@10"]
    assert gap["value"] == pytest.approx(full.metrics["ndcg@10"] - trained.metrics["ndcg@10"])
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert trained.metrics["ndcg@10"] >= trained.start["ndcg@10"]
    assert record["full"]["seconds"] == round(retrained.trained.seconds, 3)
    assert record["new values"]["device"] == 1


def test_the_gap_is_between_models_as_published(tiny_folder: Path, tiny_additions: Path, tmp_path: Path) -> None:
    """Users that are held out are unknown, and a popularity factor changes their lists."""
    split = {"by": "users", "test": 0.2, "valid": 0.4}
    config = parse_config({**CONFIG, "data": {**CONFIG["data"], "split": split}})
    dataset = load_dataset(config, tiny_folder)
    encoder = FeatureEncoder.fit(dataset)
    export(train(config, dataset, encoder, lambda report: None).model, encoder, dataset, config, tmp_path / "bundles")
    ground = prepare_warm_start(config, tmp_path / "bundles", tiny_additions, tiny_folder, tmp_path / "bundles")
    trained = trained_from(ground, config)
    retrained = retrain(config, ground, trained, lambda report: None)
    for name, one in retrained.gap.items():
        assert one.difference.value == pytest.approx(retrained.trained.metrics[name] - trained.metrics[name])


def test_remembered_interactions_count_towards_popularity(config: RunConfig, root: Path, tiny_additions: Path) -> None:
    ground = prepare_warm_start(config, root, tiny_additions, None, root)
    factor = trained_from(ground, config).popularity
    assert factor is not None
    known = np.isin(ground.dataset.events["split"].to_numpy(), (REMEMBERED, TRAIN))
    items = ground.encoder.encode_items(ground.dataset.items)
    levels = factor.beside_items(np.zeros((len(items), 0), np.float32), items)[:, 0]
    counts = np.bincount(ground.dataset.events["item"].to_numpy()[known], minlength=len(items))
    assert np.corrcoef(levels[counts > 0], np.log1p(counts[counts > 0]))[0, 1] == pytest.approx(1, abs=1e-5)


def test_remembered_interactions_are_in_the_counts_of_the_bundle(
    config: RunConfig, root: Path, tiny_additions: Path, tmp_path: Path
) -> None:
    ground = prepare_warm_start(config, root, tiny_additions, None, root)
    trained = trained_from(ground, config)
    exported = export(trained.model, ground.encoder, ground.dataset, config, tmp_path / "bundles")
    known = ground.dataset.events["item"].to_numpy()[np.isin(ground.dataset.events["split"].to_numpy(), (REMEMBERED, TRAIN))]
    assert load_bundle(exported.folder).counts().tolist() == np.bincount(known, minlength=len(ground.dataset.items)).tolist()


def test_a_repeated_run_is_bit_identical(ground: WarmStartRun, config: RunConfig) -> None:
    first, second = (trained_from(ground, config).model for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_is_bit_identical(ground: WarmStartRun, config: RunConfig, tmp_path: Path) -> None:
    whole = trained_from(ground, config)
    checkpoint = tmp_path / "checkpoint.safetensors"

    def interrupt(report: SweepReport) -> None:
        if report.sweep == 1:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterruptedError):
        train(config, ground.dataset, ground.encoder, interrupt, checkpoint, start=ground.start)
    with pytest.raises(TrainingError, match="belongs to another run"):
        train(config, ground.dataset, ground.encoder, lambda report: None, checkpoint, resume=True)
    resumed = train(config, ground.dataset, ground.encoder, lambda report: None, checkpoint, resume=True, start=ground.start)
    assert (resumed.sweeps, resumed.best_sweep, resumed.metrics) == (whole.sweeps, whole.best_sweep, whole.metrics)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("remember", [1.0, 0.25, 0.0])
def test_rows_move_by_their_share_of_new_observations(
    remember: float, config: RunConfig, root: Path, tiny_additions: Path
) -> None:
    ground = prepare_warm_start(config, root, tiny_additions, None, root)
    found = shares(ground.dataset, ground.encoder, remember)
    block = ground.encoder.user_blocks[0]
    events = ground.dataset.events
    for row, user_id in enumerate(ground.dataset.users["user_id"]):
        feature = block.offset + ground.encoder.columns["user_id"].encode_one({"user_id": user_id})[0][0]
        mine = events.filter(events["user"] == row)["split"]
        old, new = int((mine == REMEMBERED).sum()), int((mine == 0).sum())
        if feature >= block.offset + 2:
            assert float(found["user"][feature]) == pytest.approx(new / (new + remember * old) if new else 0.0)


@pytest.mark.parametrize(
    "model",
    [{"kind": "fwfm", "k": 2}, {"kind": "ffm", "k": 2}, {"kind": "fm", "k": 2, "cosine": True}, {"kind": "lr"}],
    ids=lambda model: model["kind"],
)
@pytest.mark.parametrize("alone", [False, True])
def test_every_kind_of_model_can_be_continued(
    alone: bool, model: dict[str, object], tiny_folder: Path, tiny_additions: Path, tmp_path: Path
) -> None:
    """Before training, a continued model scores like the bundle, including field weights and factors."""
    values = {"model": model, "train": {"objective": "softmax", "epochs": 1, "batch": 64}}
    config = parse_config({**TINY, **values})
    dataset = load_dataset(config, tiny_folder)
    encoder = FeatureEncoder.fit(dataset)
    trained = train(config, dataset, encoder, lambda report: None)
    root = tmp_path / "bundles"
    export(trained.model, encoder, dataset, config, root)
    bundle = load_bundle(root)
    ground = prepare_warm_start(config, root, tiny_additions, None if alone else tiny_folder, root)
    started = new_model(config.model, ground.encoder.user_fields, ground.encoder.item_fields)
    ground.start.give(started)
    tables = started.tables(ground.encoder.user_fields, ground.encoder.item_fields)
    positions = np.arange(len(dataset.events))
    before = bundle.tables.scores(
        build_contexts(dataset, bundle.encoder, positions).features, bundle.encoder.encode_items(dataset.items)
    )
    after = tables.scores(
        build_contexts(dataset, ground.encoder, positions).features, ground.encoder.encode_items(dataset.items)
    )
    assert np.allclose(before, after, atol=1e-4)
    done = export(trained_from(ground, config).model, ground.encoder, ground.dataset, config, root)
    assert done.manifest.sequence == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": {"k": 8}}, "k = 4, the configuration 8"),
        ({"fields": {**TINY["fields"], "age": {"side": "user", "kind": "categorical"}}}, "field 'age' has kind 'categorical'"),
    ],
)
def test_another_model_is_refused(change, what: str, root: Path, tiny_additions: Path) -> None:
    with pytest.raises(ConfigError, match=what):
        prepare_warm_start(parse_config({**CONFIG, **change}), root, tiny_additions, None, root)
