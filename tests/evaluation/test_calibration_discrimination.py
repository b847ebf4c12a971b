import numpy as np
import polars as pl
import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.evaluation.calibration import discriminate, draw_untaken, labelled
from recall.evaluation.evaluate import evaluate
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender, Request
from recall.serving.scoring import logistic
from tests.conftest import TINY, random_model, write_tiny_tables
from tests.evaluation.test_metrics_probability import auc

LOG_LOSS = {"objective": "logistic", "popularity": 0.5}


def published(folder, labels, **changes):
    """A random model marked as trained with log loss, and its data; with labels, every third row has label 0."""
    write_tiny_tables(folder)
    events = pl.read_parquet(folder / "interactions.parquet")
    events.with_columns(y=(pl.int_range(pl.len()) % 3 > 0).cast(pl.Int8)).write_parquet(folder / "interactions.parquet")
    data = {**TINY["data"], "split": {"by": "last", "test": 4}, **({"label": "y"} if labels else {})}
    config = parse_config({**TINY, "data": data, "train": LOG_LOSS, "evaluation": {"intervals": 50}, **changes})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "bundles")
    return config, dataset, Recommender.load(folder / "bundles")


@pytest.fixture(params=[True, False], ids=["labels", "draws"])
def world(request, tmp_path):
    config, dataset, recommender = published(tmp_path, request.param)
    yield config, dataset, recommender
    recommender.close()


def predicted(dataset, recommender, rows, before):
    """Compute scores with the recommender's `predict` for rows of user, item, context and number of earlier events."""
    users, items = dataset.users["user_id"].to_list(), dataset.items["item_id"].to_list()
    user = dataset.events["user"].to_list()
    pairs = []
    for row, place in zip(rows.iter_rows(named=True), before, strict=True):
        history = [items[dataset.events["item"][at]] for at in range(place - 1, -1, -1) if user[at] == row["user"]]
        context = {name: row[name] for name in dataset.context_columns}
        pairs.append((Request(users[row["user"]], context=context, history=history), items[row["item"]]))
    return [one.score for one in recommender.predict(pairs)]


def test_rows_are_scored_like_predict(world):
    _, dataset, recommender = world
    rows = labelled(recommender.bundle, dataset, TEST, 10**6, 0)
    events = dataset.select(TEST)
    np.testing.assert_allclose(
        rows.score[rows.taken], predicted(dataset, recommender, dataset.events[events], events.tolist()), rtol=1e-5, atol=1e-5
    )
    if dataset.negatives is not None:
        negatives = dataset.negatives.filter(pl.col("split") == TEST)
        expected = predicted(dataset, recommender, negatives, negatives["before"].to_list())
        assert len(negatives) > 3
        np.testing.assert_allclose(rows.score[~rows.taken], expected, rtol=1e-5, atol=1e-5)
    assert rows.source == ("draws" if dataset.negatives is None else "labels")
    assert rows.left_out == 0


def test_drawn_negatives_are_unobserved_and_depend_on_the_seed(tmp_path):
    _, dataset, recommender = published(tmp_path, labels=False)
    taken = {(user, item) for user, item in dataset.events.select("user", "item").rows()}
    power = labelled(recommender.bundle, dataset, TEST, 10**6, 0).power
    assert power == 0.5
    scores = set()
    for seed in range(3):
        rows = labelled(recommender.bundle, dataset, TEST, 10**6, seed)
        assert rows.taken.sum() == (~rows.taken).sum() == len(dataset.select(TEST))
        again = labelled(recommender.bundle, dataset, TEST, 10**6, seed)
        np.testing.assert_array_equal(rows.score, again.score)
        scores.add(rows.score.tobytes())
    recommender.close()
    assert len(scores) == 3
    user = np.repeat(np.arange(len(dataset.users)), 50).astype(np.int32)
    drawn = draw_untaken(dataset, user, 0.5, np.random.default_rng(0))
    assert not taken & set(zip(user.tolist(), drawn.tolist(), strict=True))
    assert (drawn >= 0).all()


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_draws_follow_the_power_of_the_count_of_unobserved_items(tmp_path, power):
    taken = [("a", "x")] + [(f"u{n}", "y") for n in range(3)] + [("v", "z")]
    pl.DataFrame(taken, schema=["user_id", "item_id"], orient="row").write_parquet(tmp_path / "e.parquet")
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    dataset = load_dataset(parse_config({"data": {"interactions": "e.parquet"}, "fields": fields}), tmp_path)
    drawn = draw_untaken(dataset, np.zeros(4000, dtype=np.int32), power, np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=3) / 4000
    np.testing.assert_allclose(shares, [0, 0.5, 0.5] if power == 0 else [0, 0.75, 0.25], atol=0.03)


def test_a_user_with_all_items_has_no_negatives(tmp_path):
    pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "x"]}).write_parquet(tmp_path / "e.parquet")
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    dataset = load_dataset(parse_config({"data": {"interactions": "e.parquet"}, "fields": fields}), tmp_path)
    assert draw_untaken(dataset, np.array([0, 1], dtype=np.int32), 0.0, np.random.default_rng(0)).tolist() == [-1, 1]


def test_metrics_match_the_rows(world):
    config, dataset, recommender = world
    rows = labelled(recommender.bundle, dataset, TEST, 10**6, 3)
    found = discriminate(recommender.bundle, dataset, TEST, config.evaluation, 3)
    assert found.auc.value == pytest.approx(auc(rows.score, rows.taken))
    assert found.auc.low <= found.auc.value <= found.auc.high
    by_user = []
    for user in np.unique(rows.user):
        mine = rows.user == user
        one = auc(rows.score[mine], rows.taken[mine])
        if np.isfinite(one):
            by_user.append((one, mine.sum()))
    values, weights = zip(*by_user, strict=True)
    assert found.gauc.value == pytest.approx(np.average(values, weights=weights))
    assert found.gauc_users == len(by_user)
    probability = logistic(rows.score)
    loss = -np.log(np.where(rows.taken, probability, 1 - probability)).mean()
    assert found.calibration.log_loss.value == pytest.approx(loss)
    assert sum(one.rows for one in found.calibration.bins) == found.rows == len(rows.score)
    gaps = [one.rows * abs(one.predicted - one.observed) for one in found.calibration.bins]
    assert found.calibration.error.value == pytest.approx(sum(gaps) / found.rows)
    assert found.calibration.error.low <= found.calibration.error.high
    rate = rows.taken.mean()
    assert found.calibration.constant == pytest.approx(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))


def test_the_report_includes_probabilities(world):
    config, dataset, recommender = world
    expected = discriminate(recommender.bundle, dataset, TEST, config.evaluation, config.seed)
    found = evaluate(recommender, dataset, config).discrimination
    assert found.model_copy(update={"seconds": 0.0}) == expected.model_copy(update={"seconds": 0.0})


def test_a_row_limit_keeps_complete_users(world):
    _, dataset, recommender = world
    every = labelled(recommender.bundle, dataset, TEST, 10**6, 0)
    few = labelled(recommender.bundle, dataset, TEST, 20, 0)
    assert 0 < len(few.user) <= 20
    for user in np.unique(few.user):
        assert (few.user == user).sum() == (every.user == user).sum()


def test_only_log_loss_models_are_evaluated_for_probabilities(tmp_path):
    for labels in (True, False):
        folder = tmp_path / str(labels)
        folder.mkdir()
        config, dataset, recommender = published(folder, labels, train={})
        found = discriminate(recommender.bundle, dataset, TEST, config.evaluation, 0)
        recommender.close()
        assert (found is not None) == labels
        assert found is None or found.calibration is None
