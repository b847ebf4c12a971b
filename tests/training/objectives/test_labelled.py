import numpy as np
import pytest
import torch
from torch.nn import functional

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, TRAIN
from recall.evaluation.discrimination import discriminate
from recall.export import export
from recall.features.encoder import FeatureEncoder
from recall.models.family import new_model
from recall.recommender import Recommender
from recall.training.labelled import LabelledNegatives
from recall.training.learning import new_learner
from recall.training.objectives.labelled import LabelledLogistic
from recall.training.pairs import ObservedPairs
from recall.training.train import train
from tests.training.worlds import random_pairs


def rows_of(seed=0):
    """Observed pairs, and negatives whose contexts are copies of some of theirs."""
    rng = np.random.default_rng(seed)
    pairs = random_pairs(seed, 11, 9, 0.3)
    owners, items = rng.integers(0, 4, 15).astype(np.int32), rng.integers(0, 9, 15).astype(np.int32)
    negatives = LabelledNegatives(pairs.contexts.take(np.arange(4)), owners, items, rng.random(15).astype(np.float32) + 0.5)
    return pairs, negatives, negatives.beside(pairs)


def test_contexts_of_negatives_follow_and_are_observed_with_nothing():
    pairs, negatives, both = rows_of()
    assert len(both.contexts) == len(pairs.contexts) + 4
    np.testing.assert_array_equal(both.owners, pairs.owners)
    np.testing.assert_array_equal(both.observed, pairs.observed)
    np.testing.assert_array_equal(both.contexts.indices[pairs.contexts.nnz :], negatives.contexts.indices)
    assert both.indptr[-5:].tolist() == [len(pairs.observed)] * 5


@pytest.mark.parametrize("part", [slice(None), slice(1, None, 3)])
def test_loss_and_gradients_are_those_of_the_definition(part):
    pairs, negatives, both = rows_of(1)
    objective = LabelledLogistic(both, negatives)
    assert objective.size == len(pairs.observed) + 15
    assert objective.weight == pytest.approx(pairs.weights.sum() + negatives.weights.sum())
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(len(both.contexts), 5, generator=generator).requires_grad_()
    psi = torch.randn(9, 5, generator=generator).requires_grad_()
    offset = torch.randn(len(both.contexts), generator=generator).requires_grad_()
    chosen = np.random.default_rng(0).permutation(objective.size)[part]
    owner = np.concatenate([pairs.owners, len(pairs.contexts) + negatives.owners])[chosen]
    item = np.concatenate([pairs.observed, negatives.items])[chosen].astype(np.int64)
    label = torch.from_numpy((chosen < len(pairs.observed)).astype(np.float32))
    weight = torch.from_numpy(np.concatenate([pairs.weights, negatives.weights])[chosen])
    scores = (phi[owner] * psi[item]).sum(1) + offset[owner]
    loss = functional.binary_cross_entropy_with_logits(scores, label, weight, reduction="sum")
    expected = torch.autograd.grad(loss, [phi, psi, offset])

    batch = objective.draw(chosen, np.random.default_rng(0))
    assert len(np.unique(batch.contexts)) == len(batch.contexts)
    with torch.no_grad():
        found = objective.gradients(batch, phi[batch.contexts], psi[batch.items], offset[batch.contexts])
    assert found.loss == pytest.approx(float(loss.detach()))
    for gradient, rows, whole in ((found.phi, batch.contexts, expected[0]), (found.psi, batch.items, expected[1])):
        spread = torch.zeros_like(whole)
        spread[rows] = gradient
        torch.testing.assert_close(spread, whole)
    spread = torch.zeros_like(expected[2])
    spread[batch.contexts] = found.offset
    torch.testing.assert_close(spread, expected[2])


def shop(folder, **changes):
    """Users of three kinds are shown items of three kinds, and take three in four of their own kind and one in four others."""
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


def test_probabilities_are_learnt_from_what_was_shown(tmp_path):
    config, dataset = shop(tmp_path)
    encoder = FeatureEncoder.fit(dataset)
    trained = train(config, dataset, encoder, lambda _: None)
    export(trained.model, encoder, dataset, config, tmp_path / "bundles")
    recommender = Recommender.load(tmp_path / "bundles")
    judged = discriminate(recommender.bundle, dataset, TEST, config.evaluation, 0)
    recommender.close()
    assert judged.source == "labels"
    assert judged.auc.value > 0.7  # the truth itself comes to .73 on average
    assert judged.calibration.log_loss.value < judged.calibration.constant - 0.02
    assert judged.calibration.error.value < 0.1


@pytest.mark.parametrize(("objective", "same"), [("bpr", True), ("logistic", False)])
def test_only_log_loss_looks_at_labels(tmp_path, objective, same):
    config, dataset = shop(tmp_path, train={"objective": objective, "epochs": 1})
    encoder = FeatureEncoder.fit(dataset)
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    tables = []
    for negatives in (LabelledNegatives.of(dataset, encoder, TRAIN), None):
        model = new_model(config.model, encoder.user_fields, encoder.item_fields)
        model.initialise(0.3, torch.Generator().manual_seed(0))
        new_learner(config.train, model, pairs, 0, negatives=negatives).sweep()
        tables.append(model.item_factors.detach())
    assert torch.equal(*tables) == same
