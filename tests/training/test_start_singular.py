"""Singular vectors as the start of factors, compared with those of the dense matrix."""

import numpy as np
import pytest
import torch

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.errors import TrainingError
from recall.features.encoder import FeatureEncoder
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.training.pairs import ObservedPairs
from recall.training.start import of_ids, start_from_singular_vectors
from recall.training.train import begin
from tests.conftest import TINY
from tests.training.worlds import random_pairs

K = 3


def dense(rows):
    table = np.zeros((len(rows), rows.n_features))
    table[np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.indices] = rows.weights
    return table


def leading(pairs):
    """Return the product of the K leading left and right singular vectors, [user features, item features]."""
    observed = np.zeros((len(pairs.contexts), len(pairs.items)))
    observed[pairs.owners, pairs.observed] = pairs.weights
    matrix = dense(pairs.contexts).T @ observed @ dense(pairs.items)
    left, _, right = np.linalg.svd(matrix / np.sqrt(np.outer(matrix.sum(1), matrix.sum(0))))
    return left[:, :K] @ right[:K]


def test_factors_begin_as_the_leading_singular_vectors():
    pairs = random_pairs(0)
    model = FactorizationMachine(12, 9, K)
    start_from_singular_vectors(model, pairs, 0)
    users, items = model.user_factors.detach().numpy(), model.item_factors.detach().numpy()
    for factors in (users, items):
        assert np.linalg.norm(factors, axis=1).mean() == pytest.approx(0.3, rel=1e-5)
    found, expected = users @ items.T, leading(pairs)
    np.testing.assert_allclose(found / np.linalg.norm(found), expected / np.linalg.norm(expected), atol=1e-3)


def test_every_field_of_a_field_aware_machine_begins_alike():
    pairs = random_pairs(0)
    one, many = FactorizationMachine(12, 9, K), FieldAwareFM(12, 9, K, 1, 1)
    for model in (one, many):
        start_from_singular_vectors(model, pairs, 0)
    for field in range(2):
        assert torch.equal(many.user_factors[:, field], one.user_factors)
        assert torch.equal(many.item_factors[:, field], one.item_factors)


def test_more_factors_than_features_and_features_without_rows_stay_as_they_were():
    pairs = random_pairs(1)
    model = FactorizationMachine(15, 9, 20)
    model.initialise(1.0, torch.Generator().manual_seed(0))
    before = model.user_factors.detach().clone()
    wider = pairs.contexts.shifted(0, 15)
    start_from_singular_vectors(model, ObservedPairs(wider, pairs.items, pairs.indptr, pairs.observed, pairs.weights), 0)
    assert torch.equal(model.user_factors[12:], before[12:])
    assert torch.equal(model.user_factors[:, 9:], before[:, 9:])
    assert not torch.equal(model.user_factors[:12, :9], before[:12, :9])


def run(tiny_folder, train, fields=TINY["fields"]):
    config = parse_config({**TINY, "fields": fields, "train": train})
    dataset = load_dataset(config, tiny_folder)
    encoder = FeatureEncoder.fit(dataset)
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    return begin(config, encoder, pairs).model, encoder, pairs


def test_ids_begin_as_singular_vectors_and_other_features_at_random(tiny_folder):
    random, encoder, pairs = run(tiny_folder, {"sweeps": 1})
    singular, _, _ = run(tiny_folder, {"sweeps": 1, "start": "singular"})
    opened, _, _ = run(tiny_folder, {"objective": "softmax", "opening": {"start": "singular"}})
    assert torch.equal(singular.item_factors, opened.item_factors)
    ids = np.zeros(encoder.n_item_features, dtype=bool)
    for block in encoder.id_blocks("item"):
        ids[block.offset : block.offset + block.size] = True
    changed = (singular.item_factors != random.item_factors).any(1).numpy()
    met = np.bincount(pairs.items.indices, minlength=encoder.n_item_features) > 0
    assert (changed <= (ids & met)).all()
    assert changed.sum() > 10
    assert (of_ids(pairs, encoder).items.indices < encoder.n_item_features).all()


def test_a_start_from_interactions_needs_a_field_on_each_side(tiny_folder):
    fields = {name: field for name, field in TINY["fields"].items() if name != "item_id"}
    with pytest.raises(TrainingError, match="no field of the item's id"):
        run(tiny_folder, {"sweeps": 1, "start": "singular"}, fields)
