"""Unknown users: a reserved axis, trained unknown rows, and lists close to popularity."""

import numpy as np
import pytest
import torch

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.synthetic import SyntheticConfig, generate
from recall.evaluation.cold_start import unknown_user
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.torch.batch import SparseBatch
from recall.models.torch.registry import new_model
from recall.training.als.solver import ImplicitALS
from recall.training.pairs import ObservedPairs
from recall.training.train import train

CONFIG = {
    "name": "shop",
    "seed": 0,
    "data": {
        "interactions": "interactions.parquet",
        "items": "items.parquet",
        "users": "users.parquet",
        "time": "time",
        "split": {"by": "last", "test": 1, "valid": 0},
    },
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "gender": {"side": "user", "kind": "categorical"},
        "previous": {"kind": "history", "lags": [[1, 1], [2, 5]]},
        "item_id": {"side": "item", "kind": "categorical"},
        "category": {"side": "item", "kind": "categorical"},
    },
    "model": {"k": 16},
    "train": {"sweeps": 4, "new_items": 0},
    "evaluation": {"mask": "user", "at": [20]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("shop")
    generate(SyntheticConfig(users=1_000, items=400, interactions=20_000)).write(made)
    return made


@pytest.fixture(scope="module")
def world(folder):
    config = parse_config(CONFIG)
    dataset = load_dataset(config, folder)
    return config, dataset, FeatureEncoder.fit(dataset)


@pytest.fixture(scope="module")
def model(world):
    return train(*world, lambda report: None).model


def offsets(encoder):
    return {block.name: block.offset for block in encoder.user_blocks}


def test_only_an_empty_history_is_on_the_reserved_axis(world, model):
    _, _, encoder = world
    last = model.user_factors[:, -1].detach()
    carrier = offsets(encoder)["previous[1]"] + MISSING
    assert last[carrier] == pytest.approx(10.0)
    others = torch.ones(len(last), dtype=torch.bool)
    others[carrier] = False
    assert last[others].abs().max() < 1e-4
    assert model.item_factors[:, -1].abs().max() > 1e-3


def test_without_a_history_the_unknown_id_is_on_the_reserved_axis(folder):
    fields = {name: field for name, field in CONFIG["fields"].items() if name != "previous"}
    config = parse_config({**CONFIG, "fields": fields})
    encoder = FeatureEncoder.fit(dataset := load_dataset(config, folder))
    last = train(config, dataset, encoder, lambda report: None).model.user_factors[:, -1].detach()
    assert last.abs().argmax() == offsets(encoder)["user_id"] + UNKNOWN


def test_an_unknown_user_gets_popular_items(world, model):
    _, dataset, encoder = world
    counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(dataset.items))
    with torch.no_grad():
        phi = model.user_vectors(SparseBatch.of(unknown_user(encoder), fields=encoder.user_fields))[0]
        psi = model.item_vectors(SparseBatch.of(encoder.encode_items(dataset.items), fields=encoder.item_fields))
        found = (psi @ phi).masked_fill(torch.from_numpy(counts == 0), -torch.inf).topk(20).indices.numpy()
    assert counts[found].mean() > 0.9 * np.sort(counts)[-20:].mean()


def test_an_empty_history_in_the_data_trains_no_separate_row(world):
    _, dataset, encoder = world
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    assert offsets(encoder)["previous[1]"] + MISSING not in pairs.contexts.indices


def test_a_continued_model_keeps_its_axes(world):
    config, dataset, encoder = world
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    model = new_model(config.model, encoder.user_fields, encoder.item_fields)
    model.initialise(1.0, torch.Generator().manual_seed(0))
    before = model.user_factors[:, -1].detach().clone()
    ImplicitALS(model, pairs, config.train, warm=True).sweep()
    assert (model.user_factors[:, -1] != 0).float().mean() > 0.5
    assert (before != 0).all()


def test_a_resumed_run_keeps_its_reserved_axis(world):
    config, dataset, encoder = world
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)

    def started():
        model = new_model(config.model, encoder.user_fields, encoder.item_fields)
        model.initialise(0.1, torch.Generator().manual_seed(0))
        return model

    whole = ImplicitALS(started(), pairs, config.train)
    for _ in range(3):
        whole.sweep()
    first = ImplicitALS(started(), pairs, config.train)
    first.sweep()
    second = ImplicitALS(first.model, pairs, config.train)
    second.restore(first.state())
    for _ in range(2):
        second.sweep()
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
