import polars as pl
import pytest

from recall.serving.batch import Lists, known_users, requests_of, title_column
from recall.serving.recommender import Recommender
from recall.serving.request import Request


def test_lists_are_those_of_the_recommender(recommender: Recommender) -> None:
    requests = [Request(user_id="u1", n=3), Request(user_id="nobody", n=2), Request(user_id="u2", n=1, allow=[])]
    answered = Lists(recommender).answer(requests)
    answers = [recommender.recommend(one) for one in requests]
    expected = [
        (number, rank, item.item_id, pytest.approx(item.score, abs=1e-6))
        for number, answer in enumerate(answers)
        for rank, item in enumerate(answer.items, start=1)
    ]
    assert answered.frame.rows() == expected
    assert (len(expected), answered.strangers) == (5, 1)


def test_rows_become_requests_with_context_and_features(recommender: Recommender) -> None:
    frame = pl.DataFrame({"user_id": ["u1", None], "device": ["tv", None], "age": [30.0, 20.0]})
    first, second = requests_of(recommender, frame, Request(n=7))
    assert (first.user_id, first.context, first.features, first.n) == ("u1", {"device": "tv"}, {"age": 30.0}, 7)
    assert (second.user_id, second.context, second.features) == (None, {}, {"age": 20.0})


def test_context_and_features_of_the_template_hold_where_the_frame_has_none(recommender: Recommender) -> None:
    frame = pl.DataFrame({"user_id": ["u1", "u2"], "device": ["tv", None]})
    template = Request(context={"device": "phone"}, features={"age": 30.0})
    first, second = requests_of(recommender, frame, template)
    assert (first.context, second.context) == ({"device": "tv"}, {"device": "phone"})
    assert first.features == second.features == {"age": 30.0}


def test_all_known_users_are_named_once(recommender: Recommender) -> None:
    assert list(known_users(recommender)) == sorted(f"u{number}" for number in range(12))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(["item_id", "Movie-Title", "name"], "Movie-Title"), (["name"], "name"), (["untitled"], None), (["title"], "title")],
)
def test_titles_are_found_by_name(columns: list[str], expected: str | None) -> None:
    items = pl.DataFrame({name: ["x"] for name in columns})
    assert title_column(items, "item_id") == expected
    assert title_column(pl.DataFrame({"title": [1]}), "item_id") is None
