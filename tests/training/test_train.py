import numpy as np
import polars as pl
import pytest
import torch

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import VALID
from recall.errors import TrainingError
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import SparseBatch
from recall.training.pairs import ObservedPairs
from recall.training.start import WarmStart
from recall.training.train import train
from recall.training.validation import Validation
from tests.conftest import TINY

OBJECTIVES = [
    {"sweeps": 3, "unobserved": 5.0},
    {"objective": "softmax", "epochs": 3, "batch": 8},
    {"objective": "softmax", "epochs": 3, "batch": 8, "top": 5, "top_temperature": 0.5},
    {"objective": "softmax", "epochs": 3, "batch": 8, "candidates": "sampled", "samples": 16},
    {"objective": "softmax", "epochs": 3, "batch": 32, "candidates": "in-batch"},
    {"objective": "bpr", "epochs": 3, "batch": 32},
    {"objective": "warp", "epochs": 3, "batch": 32},
    {"objective": "logistic", "epochs": 3, "batch": 32},
    {"objective": "bpr", "epochs": 3, "batch": 32, "hard": 0.5, "pool": 5, "optimiser": "adagrad"},
]
GRADIENTS = OBJECTIVES[1:]


def config_with(train_section, **evaluation):
    return parse_config({**TINY, "model": {"k": 4}, "train": train_section, "evaluation": evaluation})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_kind_of_field_trains_deterministically(objective, tiny_dataset, tiny_encoder):
    reports = []
    results = [train(config_with(objective), tiny_dataset, tiny_encoder, reports.append) for _ in range(2)]
    assert len(reports) == 6
    assert reports[2].loss < reports[0].loss
    assert results[0].metrics == results[1].metrics
    assert 0 <= results[0].metrics["ndcg@10"] <= 1
    for first, second in zip(*(result.model.parameters() for result in results), strict=True):
        assert torch.isfinite(first).all()
        assert torch.equal(first, second)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("kind", ["fm", "fwfm", "ffm"])
def test_every_kind_of_model_trains(kind, cosine, tiny_dataset, tiny_encoder):
    values = {"model": {"kind": kind, "k": 4, "cosine": cosine}, "train": {"objective": "logistic", "epochs": 3, "batch": 32}}
    config, reports = parse_config({**TINY, **values}), []
    model = train(config, tiny_dataset, tiny_encoder, reports.append).model
    assert reports[2].loss < reports[0].loss
    assert all(torch.isfinite(table).all() for table in model.parameters())
    if kind == "fwfm":
        assert model.field_weights.triu().ne(torch.ones_like(model.field_weights).triu()).any()


def test_without_factors_all_users_get_the_same_list(tiny_dataset, tiny_encoder):
    values = {"model": {"kind": "lr"}, "train": {"objective": "logistic", "epochs": 3, "batch": 32}}
    model = train(parse_config({**TINY, **values}), tiny_dataset, tiny_encoder, lambda report: None).model
    assert model.dim == 1


def test_dropping_values_trains_the_unknown_row_of_items(tiny_dataset, tiny_encoder):
    items = tiny_encoder.item_blocks[0]
    assert items.name == "item_id"
    norms = [
        train(config_with({"sweeps": 3, "drop": share, "new_items": 0}), tiny_dataset, tiny_encoder, lambda report: None)
        .model.item_factors[items.offset]
        .norm()
        .item()
        for share in (0.0, 0.5)
    ]
    assert norms[0] == 0
    assert norms[1] > 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_unknown_user_has_the_mean_of_the_interactions(objective, tiny_dataset, tiny_encoder):
    model = train(config_with({**objective, "drop": 0.0}), tiny_dataset, tiny_encoder, lambda report: None).model
    users = tiny_encoder.user_blocks[0]
    assert users.name == "user_id"
    ids = model.user_factors[users.offset + 2 : users.offset + users.size].detach()
    assert torch.all(ids.norm(dim=1) > 0)
    pairs = ObservedPairs.of(tiny_dataset, tiny_encoder, tiny_dataset.training)
    own = pairs.contexts.indices[pairs.contexts.indptr[:-1]] - users.offset - 2
    times = np.bincount(own, np.diff(pairs.indptr), users.size - 2)
    mean = torch.from_numpy(times / times.sum()).float() @ ids.flatten(1)
    for stand_in in model.user_factors[users.offset : users.offset + 2].detach():  # neither is in the training rows
        torch.testing.assert_close(stand_in.flatten(), mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask", ["none", "context", "user"])
@pytest.mark.parametrize("request_", ["row", "context"])
def test_validation_ranks_the_whole_catalogue_by_model_scores(mask, request_, tiny_folder):
    values = {**TINY, "fields": {name: field for name, field in TINY["fields"].items() if name not in ("history", "hour")}}
    config = parse_config({**values, "evaluation": {"mask": mask, "request": request_}, "train": {"stopping": {"at": 3}}})
    dataset = load_dataset(config, tiny_folder)
    encoder = FeatureEncoder.fit(dataset)
    model = train(config, dataset, encoder, lambda report: None).model
    validation = Validation.of(config, dataset, encoder)

    events = dataset.events.with_row_index("event")
    valid, known = events.filter(pl.col("split") == VALID), events.filter(pl.col("split") == 0)
    asked = [("user", "device")] if request_ == "context" else [("event",)]
    figures = []
    for _, rows in valid.group_by(*asked[0]):
        user, device = rows["user"][0], rows["device"][0]
        same = {"none": pl.lit(False), "user": pl.col("user") == user}
        same["context"] = (pl.col("user") == user) & (pl.col("device") == device)
        masked = set(known.filter(same[mask])["item"].to_list())
        values = dataset.users.row(user, named=True) | {"device": device}
        encoded = encoder.encode_user(values).rows
        users = SparseBatch.of(encoded.take(np.zeros(len(dataset.items), dtype=np.int64)))
        with torch.no_grad():
            scores = model.score(users, SparseBatch.of(encoder.encode_items(dataset.items))).numpy()
        ranked = [item for item in np.argsort(-scores, kind="stable") if item not in masked]
        relevant = set(rows["item"].to_list())
        figures.append(len(relevant & set(ranked[:3])) / len(relevant))
    assert validation(model)["recall@3"] == pytest.approx(np.mean(figures))


def test_the_number_of_validation_requests_is_limited(tiny_dataset, tiny_encoder):
    config = config_with({"stopping": {"requests": 5}})
    assert len(Validation.of(config, tiny_dataset, tiny_encoder).held) == 5


def test_a_trained_model_is_continued_for_as_many_epochs_as_configured(tiny_dataset, tiny_encoder):
    config = config_with({"objective": "softmax", "epochs": 2, "batch": 16, "opening": {"sweeps": 1}})
    first = train(config, tiny_dataset, tiny_encoder, lambda report: None)
    tables = {name: table.detach().clone() for name, table in first.model.named_parameters()}
    again = train(config, tiny_dataset, tiny_encoder, lambda report: None, start=WarmStart(tables, "test"))
    assert (first.sweeps, again.sweeps) == (3, 2)  # the opening counts as one


WEIGHED = [
    ({"sweeps": 2, "popularity": 1.0, "activity": 1.0}, None),
    ({"sweeps": 2, "popularity": 1.0, "activity": 1.0}, 2.0),
    ({"objective": "softmax", "epochs": 1, "batch": 16, "activity": 0.5, "opening": {"sweeps": 1}}, 2.0),
    ({"objective": "softmax", "epochs": 1, "batch": 16, "candidates": "sampled", "samples": 16}, None),
    ({"objective": "softmax", "epochs": 1, "batch": 32, "candidates": "in-batch"}, None),
    ({"objective": "warp", "epochs": 1, "batch": 32, "optimiser": "sgd", "regularisation": 0.01}, None),
    ({"objective": "logistic", "epochs": 1, "batch": 32, "optimiser": "adagrad", "first_order": {}}, 2.0),
]


@pytest.mark.parametrize(("objective", "half_life"), WEIGHED)
def test_a_constant_factor_on_all_weights_changes_nothing(objective, half_life, tiny_folder):
    events = pl.read_parquet(tiny_folder / "interactions.parquet")
    base = config_with(objective)
    config = base.model_copy(update={"data": base.data.model_copy(update={"half_life": half_life})})
    models = []
    for factor in (1.0, 2.0**-7, 0.01, 77.0):
        events.with_columns(pl.col("strength") * factor).write_parquet(tiny_folder / "interactions.parquet")
        dataset = load_dataset(config, tiny_folder)
        models.append(train(config, dataset, FeatureEncoder.fit(dataset), lambda report: None).model)
    for one, same, small, large in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, same)
        torch.testing.assert_close(one, small, rtol=0.02, atol=0.002)
        torch.testing.assert_close(one, large, rtol=0.02, atol=0.002)


def test_huge_weights_train_the_same_model_as_ones(tiny_folder):
    events = pl.read_parquet(tiny_folder / "interactions.parquet")
    config = config_with({"sweeps": 2})
    models = []
    for weight in (1.0, 1e20, 1e-300):
        events.with_columns(strength=pl.lit(weight)).write_parquet(tiny_folder / "interactions.parquet")
        dataset = load_dataset(config, tiny_folder)
        models.append(train(config, dataset, FeatureEncoder.fit(dataset), lambda report: None).model)
    for tables in zip(*(model.parameters() for model in models), strict=True):
        assert all(torch.equal(tables[0], table) for table in tables)


def test_a_weight_that_breaks_training_names_column_and_row(tiny_folder):
    events = pl.read_parquet(tiny_folder / "interactions.parquet")
    row = int(events["time"].arg_min())  # the first interaction of the user is for training
    heavy = pl.Series("strength", [1e35 if place == row else 1.0 for place in range(len(events))])
    events.with_columns(heavy).write_parquet(tiny_folder / "interactions.parquet")
    config = config_with({"objective": "bpr", "epochs": 1, "batch": 1, "optimiser": "sgd", "learning_rate": 1e36})
    dataset = load_dataset(config, tiny_folder)
    with pytest.raises(TrainingError, match=rf"\(row {row + 1}, .*interactions\.parquet, column 'strength'"):
        train(config, dataset, FeatureEncoder.fit(dataset), lambda report: None)


def test_validation_includes_unknown_users(tiny_dataset, tiny_encoder):
    config = config_with({"sweeps": 1})
    model = train(config, tiny_dataset, tiny_encoder, lambda report: None).model
    validation = Validation.of(config, tiny_dataset, tiny_encoder)
    metrics = validation(model)
    asked = validation.unknown
    (row,) = asked.features.weighted_sum(model.user_factors.detach().numpy())
    assert (row != 0).any()
    phi = model.embed("user", asked.features, tiny_encoder.user_fields)
    psi = model.embed("item", validation.items, tiny_encoder.item_fields)
    expected = asked.metrics_of(phi, psi)
    assert metrics["unknown_ndcg@10"] == pytest.approx(expected.values["ndcg@10"].mean())
    worse = expected.values["ndcg@10"].mean() - asked.popularity.values["ndcg@10"].mean()
    assert metrics["unknown_margin_ndcg@10"] > worse
    assert metrics["ndcg@10"] == pytest.approx(validation.judge(model).values["ndcg@10"].mean())
