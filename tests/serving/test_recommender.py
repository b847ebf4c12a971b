from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recall.config import IndexConfig, RunConfig, parse_config
from recall.data.dataset import Dataset
from recall.errors import RequestError
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import SparseBatch
from recall.models.torch.fm import FactorizationMachine
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.serving.request import Recommendations, Request
from recall.serving.scoring import logistic
from tests.conftest import ITEMS, TINY

LOG_LOSS = {"objective": "logistic"}


def ids_of(answer: Recommendations) -> list[str]:
    return [item.item_id for item in answer.items]


def test_a_known_user_gets_the_model_ranking(
    recommender: Recommender, tiny_model: FactorizationMachine, tiny_dataset: Dataset, tiny_encoder: FeatureEncoder
) -> None:
    user = 4
    record = recommender.users.get("u4")
    assert record is not None
    context = {"device": "web", "hour": 7}
    answer = recommender.recommend(Request("u4", context=context, n=ITEMS, exclude_seen=False))
    values = {**tiny_dataset.users.row(user, named=True), **context}
    rows = tiny_encoder.encode_user(values, record.history).rows
    items = tiny_encoder.encode_items(tiny_dataset.items)
    with torch.no_grad():
        users = SparseBatch.of(rows.take(np.zeros(len(items), dtype=np.int64)))
        scores = tiny_model.score(users, SparseBatch.of(items)).numpy()
    order = np.argsort(-scores, kind="stable")
    assert ids_of(answer) == tiny_dataset.items["item_id"].gather(order).to_list()
    np.testing.assert_allclose([item.score + answer.user_offset for item in answer.items], scores[order], atol=1e-4)
    assert answer.user == "known"
    assert answer.exact
    assert answer.unknown == answer.warnings == ()
    assert answer.bundle == recommender.bundle.folder.name


def test_seen_items_are_excluded_unless_requested(recommender: Recommender) -> None:
    record = recommender.users.get("u1")
    assert record is not None
    rest = recommender.recommend(Request("u1", n=1000))
    everything = recommender.recommend(Request("u1", n=1000, exclude_seen=False))
    assert len(everything.items) == ITEMS
    assert ids_of(rest) == [one for one in ids_of(everything) if one not in record.seen]


def test_excluded_items_are_omitted_and_unknown_ones_named(recommender: Recommender) -> None:
    strangers = [f"stranger {number}" for number in range(2000)]
    answer = recommender.recommend(Request("u1", n=1000, exclude_seen=False, exclude=["i3", "i3", *strangers, "never"]))
    assert len(answer.items) == ITEMS - 2
    assert not {"i3", "never"} & set(ids_of(answer))
    (warning,) = answer.warnings
    assert warning.startswith("2000 excluded ids are not in the catalogue: 'stranger 0', ")
    assert len(warning) < 300


def test_unknown_items_of_a_history_are_named(recommender: Recommender) -> None:
    answer = recommender.recommend(Request(history=["i1", "never"], exclude=["nowhere"]))
    assert answer.warnings == (
        "1 excluded ids are not in the catalogue: 'nowhere'",
        "1 ids in the history are not known to the model: 'never'",
    )
    assert recommender.recommend(Request(history=["i1"])).warnings == ()


def test_everything_may_be_excluded(recommender: Recommender) -> None:
    everything = recommender.bundle.item_ids.values.to_list()
    assert recommender.recommend(Request(exclude=everything)).items == ()


def test_an_unknown_user_is_answered_from_the_request(recommender: Recommender) -> None:
    stranger = recommender.recommend(Request("nobody", n=5))
    assert stranger.user == "unknown"
    assert stranger.unknown == ("user_id",)
    assert len(stranger.items) == 5
    personal = recommender.recommend(Request("nobody", features={"gender": "m", "age": 40}, history=["i1", "i2"], n=5))
    assert personal.items != stranger.items
    assert not {"i1", "i2"} & set(ids_of(personal))
    again = recommender.recommend(Request("nobody", history=["i1", "i2"], n=1000, exclude_seen=False))
    assert len(again.items) == ITEMS


def test_a_request_without_a_user_is_anonymous(recommender: Recommender) -> None:
    assert recommender.recommend(Request()).user == "anonymous"
    assert recommender.recommend(Request(features={"gender": "f"})).user == "anonymous"


def test_request_values_override_stored_ones(recommender: Recommender) -> None:
    record = recommender.users.get("u1")
    assert record is not None
    assert record.features["gender"] == "m"
    plain = recommender.recommend(Request("u1", exclude_seen=False))
    same = recommender.recommend(Request("u1", features=dict(record.features), history=record.history, exclude_seen=False))
    assert same == plain
    assert recommender.recommend(Request("u1", features={"gender": "f"}, exclude_seen=False)).items != plain.items
    assert recommender.recommend(Request("u1", history=[], exclude_seen=False)).items != plain.items


def test_unknown_values_are_named(recommender: Recommender) -> None:
    answer = recommender.recommend(Request("u1", features={"gender": "robot"}, context={"device": "fridge"}))
    assert set(answer.unknown) == {"gender", "device"}


@pytest.mark.parametrize("n", [0, -1, 1001, 10**400, True, 2.0, "10", "1" * 400])
def test_n_is_limited(recommender: Recommender, n: object) -> None:
    with pytest.raises(RequestError, match="n must be an integer from 1 to 1000") as raised:
        recommender.recommend(Request("u1", n=n))  # type: ignore[arg-type]
    assert raised.value.where == "/n"
    assert len(raised.value.what) < 100  # a value is not repeated in full


@pytest.mark.parametrize(
    ("request_", "where", "message"),
    [
        (Request("u1", features={"gendre": "f"}), "/features/gendre", "Did you mean 'gender'"),
        (Request("u1", context={"devise": "web"}), "/context/devise", "Did you mean 'device'"),
        (Request("u1", context={"a/b": "web"}), "/context/a~1b", "no field reads"),
        (Request("u1", context={"hour": "noon"}), "/context/hour", "number"),
        (Request("u1", features={"age": float("nan")}), "/features/age", "number"),
        (Request("u1", exclude=["i1", 3]), "/exclude/1", "an id must be text"),  # type: ignore[list-item]
        (Request("u1", exclude="i1"), "/exclude", "list of ids"),
        (Request("u1", history=["i1", None]), "/history/1", "an id must be text"),  # type: ignore[list-item]
        (Request("\ud800"), "/user_id", "Unicode"),
        (Request("u1", exclude=["i1", "\ud800"]), "/exclude/1", "Unicode"),
    ],
)
def test_invalid_requests_are_named(recommender: Recommender, request_: Request, where: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        recommender.recommend(request_)
    assert raised.value.where == where


@pytest.mark.parametrize("user_id", ["u1 ", "u1\0", "' OR 1=1 --", "../u1", "🦊", "u" * 100_000])
def test_unusual_ids_are_unknown_users(recommender: Recommender, user_id: str) -> None:
    assert recommender.recommend(Request(user_id, exclude=[user_id])).user == "unknown"


def batch_of_requests() -> list[Request]:
    return [
        Request("u1"),
        Request("u2", n=3, exclude=["i1"]),
        Request("nobody", history=["i4"]),
        Request(),
        Request("u1", features={"gender": "f"}, context={"hour": 3}, n=1000, exclude_seen=False),
        Request("u1", popularity=0.0),
        Request("u1"),
    ]


@pytest.mark.parametrize("beta", [0, 0.25, 1, 1.7, 10])
def test_popularity_weighs_the_item_bias(recommender: Recommender, beta: float) -> None:
    asked = Request("u4", context={"device": "web"}, n=ITEMS, exclude_seen=False)
    dialled = replace(asked, popularity=beta)
    plain, vector = recommender.user_vectors([asked, dialled])
    assert plain[0] == 1.0
    assert vector[0] == np.float32(beta)
    np.testing.assert_array_equal(vector[1:], plain[1:])
    scores = recommender.bundle.item_vectors @ vector
    answer = recommender.recommend(dialled)
    order = np.argsort(-scores, kind="stable")
    assert ids_of(answer) == recommender.bundle.item_ids.values.gather(order).to_list()
    np.testing.assert_allclose([item.score for item in answer.items], scores[order], atol=1e-4)
    assert answer.user_offset == recommender.recommend(asked).user_offset


@pytest.mark.parametrize("popularity", [-0.1, 10.01, float("nan"), float("inf"), 10**400, True, "1", "1" * 400, None])
def test_popularity_is_limited(recommender: Recommender, popularity: object) -> None:
    with pytest.raises(RequestError, match="popularity must be a number from 0 to 10") as raised:
        recommender.recommend(Request("u1", popularity=popularity))  # type: ignore[arg-type]
    assert raised.value.where == "/popularity"
    assert len(raised.value.what) < 100


def test_a_prediction_equals_the_model_score(
    recommender: Recommender, tiny_model: FactorizationMachine, tiny_dataset: Dataset, tiny_encoder: FeatureEncoder
) -> None:
    first, second = Request("u1", context={"hour": 3}), Request("nobody", history=["i4"])
    pairs = [(first, "i2"), (second, "i2"), (first, "never"), (first, "i2")]
    predicted = recommender.predict(pairs)
    for (request, item_id), one in zip(pairs, predicted, strict=True):
        answer = recommender.recommend(replace(request, n=1000, exclude_seen=False))
        score = next(item.score for item in answer.items if item.item_id == item_id)
        assert one.score == pytest.approx(score + answer.user_offset, abs=1e-5)
        assert one.probability is None  # the square loss does not give probabilities
    assert predicted[0] == predicted[3]
    assert recommender.predict([]) == []


def test_models_with_log_loss_give_probabilities(
    tiny_model: FactorizationMachine, tiny_encoder: FeatureEncoder, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    config = parse_config({**TINY, "train": LOG_LOSS})
    export(tiny_model, tiny_encoder, tiny_dataset, config, tmp_path)
    recommender = Recommender.load(tmp_path)
    assert recommender.bundle.manifest.objective == "logistic"
    ids = recommender.bundle.item_ids.values.to_list()
    predicted = recommender.predict([(Request("u1"), one) for one in ids])
    assert recommender.score(Request("u1"), ids).probabilities == pytest.approx(
        [one.probability for one in predicted], abs=1e-6
    )
    assert recommender.score(Request("u1", popularity=0.5), ids).probabilities is None
    recommender.close()
    for one in predicted:
        assert one.probability == pytest.approx(1 / (1 + np.exp(-one.score)))


@given(st.floats(-800, 800))
def test_the_logistic_function_does_not_overflow(score: float) -> None:
    (low,) = logistic(np.array([-abs(score)]))
    (high,) = logistic(np.array([abs(score)]))
    assert 0 <= low <= 0.5 <= high <= 1
    assert low + high == pytest.approx(1)


def test_invalid_pairs_are_named(recommender: Recommender) -> None:
    with pytest.raises(RequestError, match="1 items are not in the catalogue: 'nothing'"):
        recommender.predict([(Request("u1"), "i1"), (Request("u1"), "nothing"), (Request("u2"), "nothing")])
    with pytest.raises(RequestError, match="an id must be text"):
        recommender.predict([(Request("u1"), 3)])  # type: ignore[list-item]
    with pytest.raises(RequestError, match="without popularity"):
        recommender.predict([(Request("u1", popularity=0.5), "i1")])
    with pytest.raises(RequestError, match="no field reads"):
        recommender.predict([(Request("u1", features={"gendre": "f"}), "i1")])


def test_a_batch_equals_its_requests_one_by_one(recommender: Recommender) -> None:
    requests = batch_of_requests()
    assert recommender.recommend_batch(requests) == [recommender.recommend(request) for request in requests]
    assert recommender.recommend_batch([]) == []


def test_threads_share_a_recommender(recommender: Recommender) -> None:
    requests = batch_of_requests() * 10
    expected = recommender.recommend_batch(requests)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(recommender.recommend, requests)) == expected


def test_approximate_answers_are_flagged(
    tiny_model: FactorizationMachine,
    tiny_encoder: FeatureEncoder,
    tiny_dataset: Dataset,
    tiny_config: RunConfig,
    tmp_path: Path,
) -> None:
    config = tiny_config.model_copy(update={"index": IndexConfig(kind="ivf")})
    export(tiny_model, tiny_encoder, tiny_dataset, config, tmp_path)
    recommender = Recommender.load(tmp_path)
    answer = recommender.recommend(Request("u1", n=1000, exclude_seen=False))
    recommender.close()
    assert not answer.exact
    assert len(answer.items) == ITEMS


def test_each_request_of_a_batch_is_answered_or_refused_separately(recommender: Recommender) -> None:
    good = [Request("u1"), Request("nobody", n=3), Request("u2", n=3, filter={"category": "c1"}), Request(n=5, explain=True)]
    far = {"age": 1e30}  # each value is valid for its field, but the vector of such a user overflows
    bad = [Request(n=0), Request(features={"aeg": 1}), Request(n=3, filter={"x": 1}), Request("u1", features=far, n=3)]
    answers = recommender.recommend_each([one for pair in zip(bad, good, strict=True) for one in pair])
    assert answers[1::2] == [recommender.recommend(one) for one in good]
    for one, request in zip(answers[::2], bad, strict=True):
        if isinstance(one, Recommendations):
            assert request.features == far
            continue
        with pytest.raises(RequestError) as raised:
            recommender.recommend(request)
        assert (one.what, one.where) == (raised.value.what, raised.value.where)
    assert sum(isinstance(one, RequestError) for one in answers) >= 3
    with pytest.raises(RequestError, match="n must be an integer from 1 to 1000, got 0"):
        recommender.recommend_batch([good[0], bad[0]])


def test_a_non_finite_vector_refuses_only_its_request(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    good, strange = Request("u1", n=3), Request("u2", n=3)
    expected = recommender.recommend(good)
    prepare = type(recommender._query_builder)._build_query

    def infinite(self: object, request: Request, *rest: object) -> object:
        prepared = prepare(self, request, *rest)  # type: ignore[arg-type]
        return prepared._replace(vector=prepared.vector * np.float32(np.inf)) if request is strange else prepared

    monkeypatch.setattr(type(recommender._query_builder), "_build_query", infinite)
    first, wrong, last = recommender.recommend_each([good, strange, good])
    assert (first, last) == (expected, expected)
    assert isinstance(wrong, RequestError)
    assert "NaN or an infinity" in wrong.what
