from pathlib import Path

import numpy as np
import pytest

from recall.evaluation.html.charts import clean
from recall.evaluation.html.subject import PAIRS, Subject
from recall.features.encoder import FeatureEncoder
from recall.models.serving.layout import field_parts
from recall.models.serving.popularity import PopularityFactor
from recall.publish.export import export
from recall.serving.recommender import Recommender
from tests.conftest import random_model
from tests.evaluation.html.conftest import HOSTILE, Judged


@pytest.fixture
def subject(recommender: Recommender) -> Subject:
    return Subject.of(recommender)


def test_the_map_has_the_principal_components_of_the_vectors(subject: Subject, recommender: Recommender) -> None:
    vectors = np.asarray(recommender.bundle.item_vectors, dtype=np.float64)[:, 1:]
    values = np.sort(np.linalg.eigvalsh(np.cov(vectors.T)))[::-1]
    assert subject.explained == pytest.approx(values[:2].sum() / values.sum())
    places = np.array([one[:2] for group in subject.map.values() for one in group.values()])
    assert np.var(places, axis=0, ddof=1) == pytest.approx(values[:2])


def test_a_popularity_factor_moves_no_item_of_the_map(subject: Subject, judged: Judged, tmp_path: Path) -> None:
    encoder = FeatureEncoder.fit(judged.dataset)
    users, items = np.zeros((2, encoder.n_user_features), np.float32), np.zeros((2, encoder.n_item_features), np.float32)
    items[0] = np.arange(encoder.n_item_features)
    factor = PopularityFactor(users[0], *items)
    export(random_model(encoder), encoder, judged.dataset, judged.config, tmp_path, popularity=factor)
    with Recommender.load(tmp_path) as popular:
        assert Subject.of(popular, timed=False).map == subject.map


def test_the_map_has_each_item_once_under_its_title(subject: Subject, recommender: Recommender) -> None:
    titles = recommender.bundle.items()["title"].to_list()
    ids = recommender.bundle.item_ids.values.to_list()
    shown = sorted(one[2] for group in subject.map.values() for one in group.values())
    assert shown == sorted(title if title is not None else id_ for title, id_ in zip(titles, ids, strict=True))
    assert sorted(id_ for group in subject.map.values() for id_ in group) == sorted(ids)
    assert subject.column == "category"
    assert set(subject.map) == {"", *HOSTILE[:3]}


def test_the_strength_of_a_pair_is_how_much_its_part_varies(subject: Subject, recommender: Recommender) -> None:
    bundle = recommender.bundle
    layouts = bundle.encoder.user_fields.names, bundle.encoder.item_fields.names
    assert set(subject.pairs) <= {f"{user} × {item}" for user in layouts[0] for item in layouts[1]} | {
        f"{item} alone" for item in layouts[1]
    }
    assert list(subject.pairs.values()) == sorted(subject.pairs.values(), reverse=True)
    rows = np.random.default_rng(0).integers(0, len(bundle.item_ids), PAIRS)
    users = recommender.users.sample(PAIRS, 0)
    found = []
    for number, row in enumerate(rows.tolist()):
        user_id = users[number % len(users)]
        record = recommender.users.get(user_id)
        user = bundle.encoder.encode_user({**record.features, "user_id": user_id}, record.history).rows
        item = bundle.encoder.encode_items(bundle.some_items(np.array([row])))
        parts = field_parts(bundle.tables, user, item, bundle.encoder.user_fields, bundle.encoder.item_fields)
        found.append(parts.across[layouts[0].index("age"), layouts[1].index("price")])
    assert subject.pairs["age × price"] == pytest.approx(np.std(found))


def test_latencies_rise(subject: Subject) -> None:
    assert len(subject.milliseconds) > 0
    assert (np.diff(subject.milliseconds) >= 0).all()


def test_texts_of_charts_have_no_control_characters_and_are_short() -> None:
    assert clean("a\x00b\nc\u202ed") == "a b c d"
    assert clean("x" * 100, 10) == "x" * 9 + "…"
