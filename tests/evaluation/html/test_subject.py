import numpy as np
import pytest

from recall.evaluation.html.charts import clean
from recall.evaluation.html.subject import PAIRS, Subject
from recall.models.serving.layout import field_parts
from recall.serving.recommender import Recommender
from tests.evaluation.html.conftest import HOSTILE


@pytest.fixture
def subject(recommender: Recommender) -> Subject:
    return Subject.of(recommender)


def test_the_map_has_the_principal_components_of_the_vectors(subject: Subject, recommender: Recommender) -> None:
    vectors = np.asarray(recommender.bundle.item_vectors, dtype=np.float64)[:, 1:]
    values = np.sort(np.linalg.eigvalsh(np.cov(vectors.T)))[::-1]
    assert subject.explained == pytest.approx(values[:2].sum() / values.sum())
    places = np.array([one[:2] for group in subject.map.values() for one in group.values()])
    assert np.var(places, axis=0, ddof=1) == pytest.approx(values[:2])


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
