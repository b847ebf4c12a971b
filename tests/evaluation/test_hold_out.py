"""The report on held-out users and items, compared with brute force over the served recommender."""

import json

import numpy as np
import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, TRAIN
from recall.errors import DataError
from recall.evaluation.baselines import Popularity, item_features
from recall.evaluation.evaluate import EvaluationReport, evaluate
from recall.serving.recommender import Request
from tests.conftest import TINY
from tests.evaluation import reference
from tests.evaluation.conftest import PLAIN, world_of

USERS = {"by": "users", "test": 0.4, "valid": 0.1}
ITEMS = {"by": "items", "test": 0.4, "valid": 0.1}


def held(folder, split, **changes):
    evaluation = {"mask": "user", "at": [1, 3], "intervals": 50, "dial": []}
    return world_of(folder, **{"data": {**TINY["data"], "split": split}, "evaluation": evaluation, **changes})


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    made = held(tmp_path_factory.mktemp("users"), USERS)
    yield made, evaluate(made.recommender, made.dataset, made.config)
    made.recommender.close()


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    made = held(tmp_path_factory.mktemp("items"), ITEMS)
    yield made, evaluate(made.recommender, made.dataset, made.config)
    made.recommender.close()


def mean_recall(world, lists, k=3):
    """Compute recall@k if the answer of request r is lists[r], rows of the bundle."""
    ids, values = world.dataset.items["item_id"], []
    for row in range(len(world.held)):
        relevant = {world.ids.index(one) for one in ids.gather(world.held.relevant[row]).to_list()}
        values.append(reference.recall(lists[row], relevant, k))
    return np.mean(values)


def answers(world, n=3, **changes):
    """Return the lists of the recommender for independently built requests."""
    listed = []
    for row in range(len(world.held)):
        event = int(world.held.event[row])
        request = Request(
            **{
                "user_id": "nobody knows",
                "exclude": world.dataset.items["item_id"].gather(world.held.masked[row]).to_list(),
                "exclude_seen": False,
                "n": n,
                **{name: change(row, event) for name, change in changes.items()},
            }
        )
        listed.append([world.ids.index(item.item_id) for item in world.recommender.recommend(request).items])
    return listed


def test_users_without_data_get_the_list_of_an_unknown_id(users):
    world, report = users
    found = report.held_out_users
    assert (report.cold, report.held_out_items) == (None, None)
    assert found.requests == len(world.held) > 10
    assert found.users == len(set(world.held.user.tolist())) > 1
    assert found.unknown.metrics["recall@3"].value == pytest.approx(mean_recall(world, answers(world)))


def test_users_known_by_features_send_columns_and_context_and_no_history(users):
    world, report = users
    columns = ("gender", "age", "zip")

    def features(row, _):
        record = world.dataset.users.row(int(world.held.user[row]), named=True)
        return {name: record[name] for name in columns if record[name] is not None}

    def context(_, event):
        values = world.dataset.events.row(event, named=True)
        return {name: values[name] for name in world.dataset.context_columns if values[name] is not None}

    lists = answers(world, features=features, context=context)
    assert report.held_out_users.features.metrics["recall@3"].value == pytest.approx(mean_recall(world, lists))


def test_users_known_by_history_send_their_oldest_items(users):
    world, report = users
    events = world.dataset.events
    user, item, part = (events[name].to_numpy() for name in ("user", "item", "split"))

    def history(row, _):
        given = item[(user == world.held.user[row]) & (part < TRAIN)][::-1]
        return world.dataset.items["item_id"].gather(given).to_list()

    lists = answers(world, history=history)
    assert report.held_out_users.history.metrics["recall@3"].value == pytest.approx(mean_recall(world, lists))


def test_each_kind_of_request_is_compared_with_popularity(users):
    world, report = users
    found = report.held_out_users
    counts = np.bincount(world.dataset.events["item"].to_numpy()[world.dataset.training], minlength=len(world.dataset.items))
    popular = Popularity.ranked(counts).top(world.held.masked, 3)
    names = world.dataset.items["item_id"].to_list()
    lists = [[world.ids.index(names[one]) for one in row if one >= 0] for row in popular]
    assert found.popularity["recall@3"].value == pytest.approx(mean_recall(world, lists))
    for way in (found.unknown, found.features, found.history):
        assert set(way.metrics) == set(found.popularity) == set(way.comparison)
        for name, compared in way.comparison.items():
            assert compared.difference.value == pytest.approx(way.metrics[name].value - found.popularity[name].value)


def test_without_columns_or_history_only_the_unknown_id_is_requested(tmp_path):
    fields = {name: PLAIN["fields"][name] for name in ("user_id", "item_id")}
    world = held(tmp_path, USERS, fields=fields)
    found = evaluate(world.recommender, world.dataset, world.config).held_out_users
    world.recommender.close()
    assert (found.features, found.history) == (None, None)


def test_new_items_are_ranked_among_all_and_among_new_items(items):
    world, report = items
    found = report.held_out_items
    events = world.dataset.events
    new_ids = world.dataset.items["item_id"].gather(events.filter(events["split"] == TEST)["item"].unique().sort()).to_list()
    assert (report.cold, report.held_out_users) == (None, None)
    assert (found.new, found.items, found.k) == (len(new_ids), len(world.ids), 3)
    assert found.k_new == max(1, round(3 * found.new / found.items))
    assert found.among_all == found.model["recall@3"] == report.model.metrics["recall@3"]
    lists = []
    for row in range(len(world.held)):
        event = int(world.held.event[row])
        before = events[:event].filter((events["user"][:event] == world.held.user[row]) & (events["split"][:event] == TRAIN))
        history = world.dataset.items["item_id"].gather(before["item"].reverse()).to_list()
        answer = world.recommender.recommend(world.request(row, history=history, allow=new_ids, n=found.k_new))
        lists.append([world.ids.index(item.item_id) for item in answer.items])
    assert found.among_new.value == pytest.approx(mean_recall(world, lists, found.k_new))
    assert found.ratio.value == pytest.approx(found.among_all.value / found.among_new.value)


def test_the_content_baseline_is_the_cosine_to_the_users_training_items(items):
    world, report = items
    encoder, catalogue = world.encoder, world.recommender.bundle.items()
    block = next(one for one in encoder.item_blocks if one.name == "item_id")
    dense = np.zeros((len(catalogue), encoder.n_item_features))
    for row, values in enumerate(catalogue.to_dicts()):
        one = encoder.encode_item({name: value for name, value in values.items() if value is not None})
        dense[row, one.indices] = one.weights
    dense[:, block.offset : block.offset + block.size] = 0
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    assert item_features(world.recommender.bundle).weighted_sum(np.eye(encoder.n_item_features)) == pytest.approx(
        dense, abs=1e-6
    )
    events, ids = world.dataset.events, world.dataset.items["item_id"]
    lists = []
    for row in range(len(world.held)):
        mine = events.filter((events["user"] == world.held.user[row]) & (events["split"] == TRAIN))["item"].unique()
        profile = dense[[world.ids.index(ids[one]) for one in mine]].sum(axis=0)
        cosine = dense @ profile / max(np.linalg.norm(profile), 1e-12)
        masked = {world.ids.index(one) for one in ids.gather(world.held.masked[row]).to_list()}
        lists.append(reference.top(np.round(cosine, 6).tolist(), masked, 3) if len(mine) else [])
    assert report.held_out_items.content.metrics["recall@3"].value == pytest.approx(mean_recall(world, lists), abs=0.02)


def test_items_with_only_an_id_have_no_content_baseline(tmp_path):
    fields = {name: PLAIN["fields"][name] for name in ("user_id", "item_id")}
    world = held(tmp_path, ITEMS, fields=fields)
    found = evaluate(world.recommender, world.dataset, world.config).held_out_items
    world.recommender.close()
    assert found.content is None
    assert set(found.popularity.metrics) == set(found.model)


@pytest.mark.parametrize(("split", "side"), [(USERS, "user"), (ITEMS, "item")])
def test_a_bundle_trained_on_held_out_data_is_refused(users, tiny_folder, split, side, recommender):
    config = parse_config({**TINY, "data": {**TINY["data"], "split": split}})
    with pytest.raises(DataError, match=rf"the bundle was trained on \d+ of the \d+ {side}s that the split holds out"):
        evaluate(recommender, load_dataset(config, tiny_folder), config)


def test_the_report_is_json(users, items):
    for _, report in (users, items):
        assert EvaluationReport.model_validate(json.loads(report.model_dump_json())) == report
