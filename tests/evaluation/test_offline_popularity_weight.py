import numpy as np
import pytest

from recall.config import EvaluationConfig, parse_config
from recall.errors import ConfigError
from recall.evaluation.offline import popularity_curve
from tests.conftest import TINY

SETTINGS = (0.0, 0.5, 1.0, 2.0)


def test_each_point_matches_requests_with_that_popularity(world):
    dial = popularity_curve(world.replay, EvaluationConfig(at=(1, 3), dial=(2, 0, 0.5, 1, 1), intervals=20), 0)
    assert dial.k == 3
    assert tuple(point.popularity for point in dial.points) == SETTINGS
    ids = world.dataset.items["item_id"]
    for point in dial.points:
        found, shown = [], set()
        for row in range(len(world.held)):
            answer = world.recommender.recommend(world.request(row, popularity=point.popularity, n=3))
            listed = {item.item_id for item in answer.items}
            relevant = set(ids.gather(world.held.relevant[row]).to_list())
            found.append(len(listed & relevant) / len(relevant))
            shown |= listed
        assert point.recall.value == pytest.approx(np.mean(found))
        assert point.recall.low <= point.recall.value <= point.recall.high
        assert point.coverage == len(shown) / len(world.ids)


def test_an_empty_list_omits_the_curve(world):
    assert popularity_curve(world.replay, EvaluationConfig(dial=()), 0) is None


@pytest.mark.parametrize("beta", [-0.5, 10.5, float("nan"), "much"])
def test_a_popularity_out_of_range_is_refused(beta):
    with pytest.raises(ConfigError, match=r"evaluation\.dial"):
        parse_config({**TINY, "evaluation": {"dial": [1.0, beta]}})
