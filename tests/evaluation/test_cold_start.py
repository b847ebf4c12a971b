import numpy as np
import pytest

from recall.evaluation.bootstrap import PerRequestMetrics
from recall.evaluation.cold_start import evaluate_cold_start
from tests.evaluation import reference
from tests.evaluation.conftest import PLAIN, world_of

CROSSED = {"device_item": {"side": "item", "kind": "cross", "of": ["item_id", "category"]}}


def cold_of(world):
    popularity = PerRequestMetrics(
        world.replay.user,
        {name: np.zeros(len(world.replay)) for name in world.replay.metrics_of(world.replay.lists(3), (1, 3)).values},
    )
    return evaluate_cold_start(world.replay, world.recommender.bundle, popularity, world.config.evaluation, 0)


def mean_recall(world, scores_of):
    """Compute recall@3 if request r scores the items with `scores_of(r)`."""
    ids = world.dataset.items["item_id"]
    values = []
    for row in range(len(world.held)):
        masked = {world.ids.index(one) for one in ids.gather(world.held.masked[row]).to_list()}
        relevant = {world.ids.index(one) for one in ids.gather(world.held.relevant[row]).to_list()}
        values.append(reference.recall(reference.top(scores_of(row, relevant), masked, 3), relevant, 3))
    return np.mean(values)


def test_the_full_model_equals_the_served_one(world):
    def scores(row, _):
        answer = world.recommender.recommend(world.request(row, exclude=()))
        by_id = {item.item_id: item.score for item in answer.items}
        return [by_id[one] for one in world.ids]

    assert cold_of(world).whole["recall@3"].value == pytest.approx(mean_recall(world, scores))


def test_a_new_item_has_an_unknown_id(world):
    bundle = world.recommender.bundle
    catalogue = bundle.items().to_dicts()

    def scores(row, relevant):
        (phi,) = world.recommender.user_vectors([world.request(row)])
        result = (bundle.item_vectors @ phi).tolist()
        for item in relevant:
            new = bundle.encoder.encode_item({**catalogue[item], "item_id": "brand new"})
            result[item] = float(bundle.tables.item_vectors(new)[0] @ phi)
        return result

    masked = cold_of(world).new_items
    assert masked.fields == ("item_id",)
    assert masked.metrics["recall@3"].value == pytest.approx(mean_recall(world, scores))


def test_a_new_user_has_an_unknown_id(world):
    def scores(row, _):
        asked = world.request(row, exclude=())
        record = world.recommender.users.get(asked.user_id)
        stranger = world.request(row, exclude=(), user_id="nobody", features=record.features)
        answer = world.recommender.recommend(stranger)
        assert answer.user == "unknown"
        by_id = {item.item_id: item.score for item in answer.items}
        return [by_id[one] for one in world.ids]

    masked = cold_of(world).new_users
    assert masked.fields == ("user_id",)
    assert masked.metrics["recall@3"].value == pytest.approx(mean_recall(world, scores))


def test_history_only_requests_contain_nothing_else(world):
    def scores(row, _):
        answer = world.recommender.recommend(world.request(row, exclude=(), user_id=None, context={}))
        by_id = {item.item_id: item.score for item in answer.items}
        return [by_id[one] for one in world.ids]

    masked = cold_of(world).history_only
    if not world.encoder.histories:
        assert masked is None
    else:
        assert "history" not in masked.fields
        assert {"user_id", "age", "gender_device"} <= set(masked.fields)
        assert masked.metrics["recall@3"].value == pytest.approx(mean_recall(world, scores))


def test_every_metric_is_compared_with_the_full_model(world):
    cold = cold_of(world)
    for part in (cold.new_items, cold.new_users):
        for name, compared in part.comparison.items():
            difference = part.metrics[name].value - cold.whole[name].value
            assert compared.difference.value == pytest.approx(difference)
    assert set(cold.popularity) == set(cold.whole)


@pytest.mark.parametrize("side", ["user", "item"])
def test_without_an_id_field_there_is_nothing_to_mask(tmp_path, side):
    fields = {name: field for name, field in PLAIN["fields"].items() if name != f"{side}_id"}
    world = world_of(tmp_path, **{**PLAIN, "fields": fields})
    cold = cold_of(world)
    world.recommender.close()
    assert (cold.new_users is None) == (side == "user")
    assert (cold.new_items is None) == (side == "item")


def test_a_cross_with_the_id_is_masked_with_it(tmp_path):
    world = world_of(tmp_path, **{**PLAIN, "fields": {**PLAIN["fields"], **CROSSED}})
    cold = cold_of(world)
    world.recommender.close()
    assert cold.new_items.fields == ("item_id", "device_item")
