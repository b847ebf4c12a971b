import numpy as np
import pytest
import torch

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.torch.registry import new_model
from recall.training.pairs import ObservedPairs, mean_rows
from tests.conftest import TINY


@pytest.fixture(params=["fm", "fwfm", "ffm"])
def model(request, tiny_encoder):
    made = new_model(
        parse_config({**TINY, "model": {"kind": request.param, "k": 3}}).model,
        tiny_encoder.user_fields,
        tiny_encoder.item_fields,
    )
    made.initialise(1.0, torch.Generator().manual_seed(2))
    return made


def test_a_request_of_which_nothing_is_known_is_the_mean_of_all(tiny_dataset, tiny_encoder: FeatureEncoder, model):
    pairs = ObservedPairs.of(tiny_dataset, tiny_encoder, tiny_dataset.training)
    pairs.untrained.fill(model)
    times = np.diff(pairs.indptr)
    for name, table in model.named_parameters():
        if not name.startswith("user_"):
            continue
        flat = table.detach().view(len(table), -1).numpy()
        for block in tiny_encoder.user_blocks:
            if block.field in tiny_encoder.histories or block.offset + MISSING not in pairs.untrained.features:
                continue
            inside = (pairs.contexts.indices >= block.offset) & (pairs.contexts.indices < block.offset + block.size)
            owners = np.repeat(np.arange(len(pairs.contexts)), np.diff(pairs.contexts.indptr))
            weights = pairs.contexts.weights * inside * times[owners]
            expected = (weights[:, None] * flat[pairs.contexts.indices]).sum(axis=0) / times.sum()
            assert flat[block.offset + MISSING] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_features_that_train_are_left_to_training(tiny_dataset, tiny_encoder, model):
    pairs = ObservedPairs.of(tiny_dataset, tiny_encoder, tiny_dataset.training)
    assert not np.isin(pairs.untrained.features, pairs.contexts.indices).any()
    before = model.user_factors.detach().clone()
    pairs.untrained.fill(model)
    moved = (model.user_factors != before).flatten(1).any(dim=1).nonzero().flatten().numpy()
    assert np.isin(moved, pairs.untrained.features).all()
    assert len(moved)


def test_without_interactions_there_is_no_mean(tiny_dataset, tiny_encoder):
    pairs = ObservedPairs.of(tiny_dataset, tiny_encoder, tiny_dataset.training)
    nothing = mean_rows(pairs.contexts.take(np.zeros(0, np.int64)), np.zeros(0, np.int64), tiny_encoder)
    assert nothing == ()


def test_unknown_values_have_the_mean_of_known_ones(tiny_dataset, tiny_encoder, model):
    pairs = ObservedPairs.of(tiny_dataset, tiny_encoder, tiny_dataset.training)
    pairs.untrained.fill(model)
    block = tiny_encoder.user_blocks[0]
    rows = model.user_factors[[block.offset + UNKNOWN, block.offset + MISSING]].detach()
    torch.testing.assert_close(rows[0], rows[1])  # each context has one id


@pytest.mark.parametrize("weights", [[1.0, -1.06], [1.0, -1.2], [-1.0, -1.0]])
@pytest.mark.parametrize("shared", [True, False])
def test_unknown_items_of_weights_of_both_signs_have_a_mean_of_known_ones(weights, shared, tiny_folder):
    history = {"kind": "history", "lags": [[1, 1], [2, 2]], "shared": shared, "weights": weights, "norm": "none"}
    config = parse_config({**TINY, "fields": {**TINY["fields"], "history": history}})
    dataset = load_dataset(config, tiny_folder)
    encoder = FeatureEncoder.fit(dataset)
    means = ObservedPairs.of(dataset, encoder, dataset.training).untrained.means
    for block in encoder.history_blocks:
        (mean,) = (one for one in means if one.feature == block.offset + UNKNOWN)
        ((part, shares),) = mean.parts
        assert part == slice(block.offset, block.offset + block.size)
        assert shares.min() >= 0
        assert shares.sum() == pytest.approx(1)
