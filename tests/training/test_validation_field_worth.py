"""Worth of fields of a small model on its validation part."""

import numpy as np
import pytest
import torch

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.training.train import observed_pairs, train
from recall.training.validation import Validation, field_shares, field_worths
from tests.conftest import TINY

CONFIG = parse_config({**TINY, "model": {"k": 4}, "train": {"sweeps": 2}})


@pytest.fixture
def trained(tiny_dataset, tiny_encoder):
    return train(CONFIG, tiny_dataset, tiny_encoder, lambda _: None, worths=True)


def worths(model, dataset, encoder, config=CONFIG):
    validation = Validation.of(config, dataset, encoder)
    pairs = observed_pairs(config, dataset, encoder)
    seconds = {name: 10 * share for name, share in field_shares(config.method, encoder, pairs).items()}
    return {one.name: one for one in field_worths(model, validation, seconds, 0)}


def test_each_field_is_worth_what_is_lost_without_it(trained, tiny_dataset, tiny_encoder):
    assert [one.name for one in trained.fields] == list(tiny_encoder.schema.fields)
    validation = Validation.of(CONFIG, tiny_dataset, tiny_encoder)
    found = worths(trained.model, tiny_dataset, tiny_encoder)
    rows = validation.users.without([block for block in tiny_encoder.user_blocks if block.field == "user_id"])
    phi = trained.model.embed("user", rows, tiny_encoder.user_fields)
    psi = trained.model.embed("item", validation.items, tiny_encoder.item_fields)
    rest = validation.judge_vectors(phi, psi).values["ndcg@10"]
    assert found["user_id"].loss == pytest.approx(validation.judge(trained.model).values["ndcg@10"].mean() - rest.mean())


def test_seconds_are_in_proportion_to_values_and_pairs(trained, tiny_dataset, tiny_encoder):
    found = worths(trained.model, tiny_dataset, tiny_encoder)
    pairs = observed_pairs(CONFIG, tiny_dataset, tiny_encoder)
    total = pairs.contexts.nnz + pairs.items.nnz + len(pairs.observed)
    assert found["user_id"].seconds == pytest.approx(10 * len(pairs.contexts) / total)
    assert sum(one.seconds for one in found.values()) == pytest.approx(10 * (total - len(pairs.observed)) / total)
    softmax = parse_config({**TINY, "model": {"k": 4}, "train": {"objective": "softmax"}})
    assert all(one.seconds is None for one in worths(trained.model, tiny_dataset, tiny_encoder, softmax).values())


def test_a_field_of_zeros_does_not_help(trained, tiny_dataset, tiny_encoder):
    model = trained.model
    (block,) = (block for block in tiny_encoder.user_blocks if block.field == "user_id")
    rows = slice(block.offset, block.offset + block.size)
    kept = model.user_factors[rows].clone()
    with torch.no_grad():
        model.user_factors[rows] = 0
        found = worths(model, tiny_dataset, tiny_encoder)["user_id"]
        model.user_factors[rows] = kept
    assert (found.loss, found.helps) == (0, False)
    assert str(found).startswith("user_id +0.0000 without it (no help shown), ")


def test_there_is_nothing_to_say_without_a_validation_part(tiny_folder):
    config = parse_config({**TINY, "model": {"k": 4}, "train": {"sweeps": 1}})
    data = config.data.model_copy(update={"split": config.data.split.model_copy(update={"valid": 0})})
    config = config.model_copy(update={"data": data})
    dataset = load_dataset(config, tiny_folder)
    assert np.unique(dataset.events["split"].to_numpy()).size > 1
    assert train(config, dataset, FeatureEncoder.fit(dataset), lambda _: None, worths=True).fields == ()
