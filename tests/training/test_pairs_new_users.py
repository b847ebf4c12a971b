"""Lists of users with little data: means, popularity, and the interpolation between the two."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recall.bundle.reader import load_bundle
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.synthetic import SyntheticConfig, generate
from recall.evaluation.cold_start import unknown_user
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.serving.layout import entry_parts, field_parts
from recall.models.torch.base import SparseBatch
from recall.models.torch.registry import new_model
from recall.publish.export import export
from recall.training.als.solver import ImplicitALS
from recall.training.pairs import ObservedPairs
from recall.training.popularity import PopularityFit, without_factor
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
def trained(world):
    return train(*world, lambda report: None)


def offsets(encoder):
    return {block.name: block.offset for block in encoder.user_blocks}


def counts_of(dataset):
    return np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(dataset.items))


def test_a_popularity_factor_does_not_affect_known_users(world, trained):
    _, dataset, encoder = world
    factor = trained.popularity
    contexts = ObservedPairs.of(dataset, encoder, dataset.training).contexts
    assert not factor.users[np.unique(contexts.indices)].any()
    at = offsets(encoder)
    expected = [at["user_id"] + UNKNOWN, at["user_id"] + MISSING, at["previous[1]"] + MISSING]
    assert np.flatnonzero(factor.users).tolist() == sorted(expected)


def test_items_have_the_logarithm_of_their_count(world, trained):
    _, dataset, encoder = world
    counts = counts_of(dataset)
    levels = trained.popularity.beside_items(np.zeros((len(counts), 0), np.float32), encoder.encode_items(dataset.items))[:, 0]
    logs = np.log1p(counts[counts > 0])
    assert levels[counts > 0] == pytest.approx((logs - logs.mean()) / logs.std(), abs=1e-5)
    assert not levels[counts == 0].any()  # an item without interactions has the average of the others


def test_an_unknown_user_gets_popular_items(world, trained):
    _, dataset, encoder = world
    counts, rows = counts_of(dataset), unknown_user(encoder)
    with torch.no_grad():
        phi = trained.model.user_vectors(SparseBatch.of(rows, fields=encoder.user_fields)).numpy()
        items = encoder.encode_items(dataset.items)
        psi = trained.model.item_vectors(SparseBatch.of(items, fields=encoder.item_fields)).numpy()
    scores = trained.popularity.beside_items(psi, items) @ trained.popularity.beside_users(phi, rows)[0]
    scores[counts == 0] = -np.inf
    found = np.argsort(-scores)[:20]
    assert counts[found].mean() > 0.9 * np.sort(counts)[-20:].mean()


def test_a_request_without_an_id_is_scored_as_that_of_an_unknown_user(world, trained):
    _, _, encoder = world
    rows = unknown_user(encoder), encoder.encode_user({}).rows
    with torch.no_grad():
        unknown, anonymous = (
            trained.popularity.beside_users(
                trained.model.user_vectors(SparseBatch.of(one, fields=encoder.user_fields)).numpy(), one
            )
            for one in rows
        )
    assert anonymous == pytest.approx(unknown, abs=1e-6)


@pytest.mark.parametrize(("items", "times"), [(10, 2), (3, 5)])  # standard deviations that are not exactly zero
def test_items_taken_equally_often_are_equally_popular(world, items, times):
    config, dataset, encoder = world
    taken = pl.Series("item", np.repeat(np.arange(items, dtype=np.int32), times))
    events = dataset.events[dataset.training[: len(taken)]].with_columns(taken)
    fit = PopularityFit.of(replace(dataset, events=events), encoder, config)
    assert fit is not None
    assert np.abs(fit.weights).max() < 1e-6


def test_users_with_one_interaction_each_can_be_trained_on(world):
    """Then there are no requests for the choice of the lengths."""
    config, dataset, _ = world
    dataset = replace(dataset, events=dataset.events.unique("user", keep="first", maintain_order=True))
    trained = train(config, dataset, FeatureEncoder.fit(dataset), lambda report: None)
    assert trained.popularity.users.any()


def test_of_several_fields_of_one_kind_the_first_carries_the_factor(folder):
    fields = {
        **CONFIG["fields"],
        "same_id": {"side": "user", "kind": "categorical", "column": "user_id"},
        "latest": {"kind": "history", "lags": [[1, 3]]},
    }
    config = parse_config({**CONFIG, "fields": fields})
    encoder = FeatureEncoder.fit(dataset := load_dataset(config, folder))
    fit = PopularityFit.of(dataset, encoder, config)
    assert fit is not None
    at = offsets(encoder)
    assert [one.tolist() for one in fit.carriers] == [
        [at["user_id"] + UNKNOWN, at["user_id"] + MISSING],
        [at["previous[1]"] + MISSING],
    ]


def test_an_empty_history_in_the_data_trains_no_separate_row(world):
    _, dataset, encoder = world
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    assert offsets(encoder)["previous[1]"] + MISSING not in pairs.contexts.indices


def test_a_published_bundle_serves_what_was_trained(world, trained, tmp_path):
    config, dataset, encoder = world
    export(trained.model, encoder, dataset, config, tmp_path, popularity=trained.popularity)
    bundle = load_bundle(tmp_path)
    assert bundle.manifest.model.popularity
    assert bundle.manifest.sizes.dim == config.model.k + 2
    rows = unknown_user(encoder)
    tables = bundle.tables
    scores = tables.user_vectors(rows)[0] @ bundle.item_vectors.T
    items = encoder.encode_items(bundle.items())
    fields = encoder.user_fields, encoder.item_fields
    explained = [field_parts(tables, rows, items.take(np.array([row])), *fields).total for row in range(10)]
    assert scores[:10] == pytest.approx(explained, rel=1e-4, abs=1e-4)
    assert tables.split(rows, items.take(np.arange(10)))[1][0] == pytest.approx(explained, rel=1e-9)
    parts = entry_parts(tables, rows, items.take(np.array([3])))
    assert parts.across.sum() + parts.first.sum() + parts.second.sum() == pytest.approx(explained[3], rel=1e-9)


def test_selection_uses_one_request_per_user(world):
    config, dataset, encoder = world
    fit = PopularityFit.of(dataset, encoder, config)
    assert fit is not None
    assert len(np.unique(fit.held.user)) == len(fit.held)
    assert np.isin(fit.held.event, dataset.training).all()
    assert not fit.held.hidden.all()
    assert sorted(kind.carrier for kind in fit.kinds) == [0, 0, 1, 1]


def test_values_of_few_users_are_replaced(world):
    """The row of a rare value has learnt from its few users, which must not apply to a new one."""
    _, dataset, _ = world
    names = pl.Series("gender", [f"of {row // 2}" for row in range(len(dataset.users))])
    dataset = replace(dataset, users=dataset.users.with_columns(names))
    config = world[0]
    encoder = FeatureEncoder.fit(dataset)
    fit = PopularityFit.of(dataset, encoder, config)
    assert fit is not None
    block = next(one for one in encoder.user_blocks if one.name == "gender")
    (by_features,) = [kind.rows for kind in fit.kinds if kind.carrier == 1 and len(kind.rows) > 1]
    inside = (by_features.indices >= block.offset) & (by_features.indices < block.offset + block.size)
    own = encoder.columns["gender"].vocabulary.rows(names)[fit.held.user]
    assert inside.sum() == len(own)
    assert (by_features.indices[inside] - block.offset == own).mean() < 0.05


@pytest.mark.parametrize(
    ("fields", "carriers"),
    [
        ({"user_id"}, [True, False]),
        ({"user_id", "previous"}, [True, True]),
        ({"previous"}, [False, True]),
        ({"gender"}, None),
    ],
)
def test_fields_that_can_carry_the_factor(folder, fields, carriers):
    chosen = {name: one for name, one in CONFIG["fields"].items() if one.get("side") == "item" or name in fields}
    config = parse_config({**CONFIG, "fields": chosen})
    encoder = FeatureEncoder.fit(dataset := load_dataset(config, folder))
    fit = PopularityFit.of(dataset, encoder, config)
    assert (None if fit is None else [len(one) > 0 for one in fit.carriers]) == carriers


@pytest.mark.parametrize(
    ("changed", "dropped", "reason"),
    [
        ({"train": {"objective": "logistic"}}, (), "scores are log-odds, which popularity would falsify"),
        ({}, ("item_id",), "no field has a row for each item id, which could hold an item's popularity"),
        ({}, ("user_id", "previous"), "no field distinguishes unknown users from known ones"),
    ],
)
def test_a_model_without_a_factor_says_why(folder, changed, dropped, reason):
    fields = {name: one for name, one in CONFIG["fields"].items() if name not in dropped}
    config = parse_config({**CONFIG, **changed, "fields": fields})
    encoder = FeatureEncoder.fit(dataset := load_dataset(config, folder))
    assert PopularityFit.of(dataset, encoder, config) is None
    assert without_factor(encoder, config) == f"by the mean of the learnt users: {reason}"


def test_rare_ids_share_a_row_that_training_keeps(folder):
    fields = {**CONFIG["fields"], "user_id": {"side": "user", "kind": "categorical", "min_count": 20}}
    config = parse_config({**CONFIG, "fields": fields})
    encoder = FeatureEncoder.fit(dataset := load_dataset(config, folder))
    fit = PopularityFit.of(dataset, encoder, config)
    assert fit is not None
    assert not len(fit.carriers[0])  # users with few interactions have the unknown row, and their scores do not change


def test_a_resumed_run_is_bit_identical(world):
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
