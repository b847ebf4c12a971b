"""Labelled negatives, from tables to probabilities."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.evaluation.calibration import discriminate
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.training.pairs import ObservedPairs
from recall.training.train import train
from tests.features.rows import as_sets

ROWS = """user_id,item_id,w,y,split
a,x,1,1,train
a,y,2,0,train
a,y,3,0,train
b,x,1,0,train
b,z,1,1,train
b,y,1,0,test
"""
FIELDS = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}


def dataset_of(folder, **data):
    (folder / "e.csv").write_text(ROWS)
    values = {"interactions": "e.csv", "weight": "w", "split": {"by": "column"}, **data}
    return load_dataset(parse_config({"data": values, "fields": FIELDS}), folder)


def test_negatives_have_separate_contexts(tmp_path):
    dataset = dataset_of(tmp_path, label="y")
    encoder = FeatureEncoder.fit(dataset)
    users, items = dataset.users["user_id"].to_list(), dataset.items["item_id"].to_list()
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    both = pairs.with_shown(dataset, encoder)
    features = as_sets(both.contexts)
    found = [
        (features[context], items[item], weight)
        for context, item, weight in zip(both.shown.contexts, both.shown.items, both.shown.weights, strict=True)
    ]
    a, b = (as_sets(encoder.encode_user({"user_id": user}).rows)[0] for user in users)
    assert found == [(a, "y", 2.0), (a, "y", 3.0), (b, "x", 1.0)]
    assert both.shown.contexts.min() == len(pairs.contexts)
    np.testing.assert_array_equal(both.owners, pairs.owners)
    assert [items[item] for item in both.observed] == ["x", "z"]


def test_features_of_negatives_alone_are_trained_and_replaced_by_no_mean(tmp_path):
    (tmp_path / "f.csv").write_text(ROWS + "c,x,1,0,train\n")
    dataset = dataset_of(tmp_path, label="y", interactions="f.csv")
    encoder = FeatureEncoder.fit(dataset)
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    (block,) = encoder.user_blocks
    assert block.offset + UNKNOWN in pairs.untrained.features
    both = pairs.with_shown(dataset, encoder)
    assert block.offset + UNKNOWN in both.contexts.indices  # the id of c, which has taken nothing
    (mean,) = both.untrained.means
    assert mean.feature == block.offset + MISSING
    (weights,) = (weights for _, weights in mean.parts)
    assert weights[[UNKNOWN, *encoder.columns["user_id"].vocabulary.rows(dataset.users["user_id"])]] == pytest.approx(
        [1 / 6, 3 / 6, 2 / 6, 1 / 6]
    )


def test_without_labels_nothing_changes(tmp_path):
    dataset = dataset_of(tmp_path)
    encoder = FeatureEncoder.fit(dataset)
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    assert pairs.with_shown(dataset, encoder) is pairs


def shop(folder, **changes):
    """Generate impressions: users choose three in four items of their own kind and one in four others."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 60, 6000), rng.integers(0, 30, 6000)
    taken = rng.random(6000) < np.where(user % 3 == item % 3, 0.75, 0.25)
    rows = "".join(f"u{u},i{i},{n},{int(y)}\n" for n, (u, i, y) in enumerate(zip(user, item, taken, strict=True)))
    (folder / "e.csv").write_text("user_id,item_id,t,y\n" + rows)
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    values = {
        "data": {"interactions": "e.csv", "time": "t", "label": "y", "split": {"by": "time", "test": 0.8}},
        "fields": fields,
        "model": {"k": 4},
        "train": {"objective": "logistic", "epochs": 10, "batch": 256, "learning_rate": 0.03, "dropout": 0.0, "scale": 0.3},
        "evaluation": {"intervals": 50},
    }
    config = parse_config({**values, **changes})
    return config, load_dataset(config, folder)


def test_probabilities_are_trained_on_impressions(tmp_path):
    config, dataset = shop(tmp_path)
    encoder = FeatureEncoder.fit(dataset)
    trained = train(config, dataset, encoder, lambda _: None)
    export(trained.model, encoder, dataset, config, tmp_path / "bundles")
    recommender = Recommender.load(tmp_path / "bundles")
    judged = discriminate(recommender.bundle, dataset, TEST, config.evaluation, 0)
    recommender.close()
    assert judged.source == "labels"
    assert judged.auc.value > 0.7  # the true probabilities reach .73 on average
    assert judged.calibration.log_loss.value < judged.calibration.constant - 0.02
    assert judged.calibration.error.value < 0.1


@pytest.mark.parametrize(("objective", "same"), [("bpr", True), ("logistic", False)])
def test_only_log_loss_uses_labels(tmp_path, objective, same):
    config, dataset = shop(tmp_path, train={"objective": objective, "epochs": 1})
    encoder = FeatureEncoder.fit(dataset)
    models = [train(config, one, encoder, lambda _: None).model for one in (dataset, replace(dataset, negatives=None))]
    assert torch.equal(*(model.item_factors for model in models)) == same
