from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recall
from recall import BundleError, ConfigError, DataError, Model, Pin, RequestError
from tests.api.conftest import CONFIG, ITEMS, TAKEN, USERS, items


def seen(taken: pl.DataFrame, user: int) -> set[int]:
    return set(taken.filter(pl.col("user_id") == user)["item_id"])


def test_lists_hold_new_items_of_the_users_taste_with_titles(model: Model, taken: pl.DataFrame) -> None:
    answer = model.recommend(n=3)
    assert answer.schema == {
        "user_id": pl.Int32,
        "rank": pl.UInt32,
        "item_id": pl.Int64,
        "score": pl.Float64,
        "title": pl.String,
    }
    assert sorted(set(answer["user_id"])) == list(range(USERS))
    for (user,), rows in answer.group_by("user_id", maintain_order=True):
        assert rows["rank"].to_list() == [1, 2, 3]
        assert not set(rows["item_id"]) & seen(taken, user)
        assert rows["score"].is_sorted(descending=True)
        assert rows["title"].to_list() == [f"The Film {item}" for item in rows["item_id"]]
    own_taste = (answer["item_id"] % 2 == answer["user_id"] % 2).mean()
    assert own_taste > 0.95


@pytest.mark.parametrize("users", [7, [7], np.array([7]), pl.Series([7]), pl.DataFrame({"user_id": [7]}), "7", (7,)])
def test_users_may_be_given_in_any_form(model: Model, users: object) -> None:
    expected = model.recommend().filter(pl.col("user_id") == 7)  # of all users
    answer = model.recommend(users)
    assert answer.drop("user_id").equals(expected.drop("user_id"))
    assert answer["user_id"].unique().to_list() == ["7" if isinstance(users, str) else 7]


def test_requests_can_be_narrowed(model: Model, taken: pl.DataFrame) -> None:
    some = model.recommend(7, n=ITEMS, filter={"title": {"in": ["The Film 1", "The Film 4"]}}, exclude_seen=False)
    assert set(some["item_id"]) == {1, 4}
    everything = model.recommend(7, n=ITEMS, exclude_seen=False)
    assert set(everything["item_id"]) == set(range(ITEMS))
    left = model.recommend(7, n=ITEMS)
    assert set(left["item_id"]) == set(range(ITEMS)) - seen(taken, 7)
    pinned = model.recommend(7, n=2, rules=[Pin({"2": 1})])
    assert (pinned["item_id"][0], len(pinned)) == (2, 2)


def test_what_all_users_get_can_be_weighed(model: Model) -> None:
    def scores(user: int, popularity: float) -> pl.Series:
        return model.recommend(user, n=ITEMS, exclude_seen=False, popularity=popularity).sort("item_id")["score"]

    parts = [scores(user, 1.0) - scores(user, 0.0) for user in (7, 8)]
    assert float(parts[0].std()) > 0  # type: ignore[arg-type]
    np.testing.assert_allclose(parts[0], parts[1], atol=1e-5)  # of an item, the same for everyone


def test_a_frame_may_hold_context(taken: pl.DataFrame) -> None:
    rng = np.random.default_rng(1)
    night = rng.random(len(taken)) < 0.5
    by_time = taken.with_columns(
        item_id=pl.Series(np.where(night, 0, 1) + 2 * (taken["item_id"].to_numpy() // 2)),
        at=pl.Series(night).replace_strict({True: "night", False: "day"}),
    )
    fields = {
        "user_id": {"side": "user", "kind": "categorical"},
        "at": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
    }
    fitted = recall.fit(by_time, config={**CONFIG, "fields": fields}, progress=False)
    assert fitted.recommender.bundle.encoder.context_columns == ("at",)
    asked = pl.DataFrame({"user_id": [3, 3], "at": ["night", "day"]})
    answer = fitted.recommend(asked, n=1)
    assert (answer["item_id"] % 2).to_list() == [0, 1]
    with pytest.raises(RequestError, match="att"):
        fitted.recommend(asked.rename({"at": "att"}))
    with pytest.raises(DataError, match="there is no column 'user_id'"):
        fitted.recommend(asked.drop("user_id"))


def test_unknown_users_are_answered_and_told(model: Model) -> None:
    with pytest.warns(UserWarning, match="1 of 2 users are not known"):
        answer = model.recommend([7, 999], n=2)
    assert answer["user_id"].to_list() == [7, 7, 999, 999]
    anonymous = model.recommend(pl.Series([None], dtype=pl.Int64), n=2)
    assert anonymous["item_id"].to_list() == answer["item_id"].to_list()[2:]


def test_similar_items_share_a_taste(model: Model) -> None:
    answer = model.similar([2, 3], n=4)
    assert answer.columns == ["similar_to_item_id", "rank", "item_id", "score", "title"]
    assert answer["similar_to_item_id"].to_list() == [2] * 4 + [3] * 4
    assert (answer["item_id"] % 2 == answer["similar_to_item_id"] % 2).mean() > 0.7
    assert not (answer["item_id"] == answer["similar_to_item_id"]).any()
    with pytest.raises(RequestError, match="99"):
        model.similar(99)


def test_an_explanation_adds_up_to_the_score(model: Model) -> None:
    first = model.recommend(7, n=1)
    parts = model.explain(7, first["item_id"][0])
    assert parts["value"].sum() == pytest.approx(first["score"][0], abs=1e-5)
    assert ("user_id", "item_id") in parts.select("user_field", "item_field").rows()


def test_an_evaluation_counts_what_lists_find(model: Model, taken: pl.DataFrame) -> None:
    rows = [(user, item) for user in range(USERS) for item in range(user % 2, ITEMS, 2) if item not in seen(taken, user)]
    test = pl.DataFrame(rows, schema={"user_id": pl.Int32, "item_id": pl.Int64}, orient="row")
    report = model.evaluate(test)
    lists = model.recommend(n=5).join(test, on=["user_id", "item_id"], how="semi")
    assert (report.requests, report.users, report.relevant) == (USERS, USERS, len(test))
    assert report.model.metrics["recall@5"].value == pytest.approx(len(lists) / len(test))
    frame = report.frame()
    assert frame.row(0, named=True)["value"] == report.model.metrics["recall@5"].value
    assert "recall@5" in report._repr_html_()


def test_without_test_rows_the_held_out_part_is_judged(model: Model) -> None:
    report = model.evaluate()
    assert (report.part, report.unreachable) == ("test", 0)
    assert 0.05 * USERS * TAKEN < report.relevant < 0.15 * USERS * TAKEN  # a tenth, by hash


def test_a_saved_model_answers_the_same(model: Model, taken: pl.DataFrame, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "bundles")
    assert folder.parent == tmp_path / "bundles" / "versions"
    with recall.load(tmp_path / "bundles") as loaded:
        assert loaded.recommend(7).equals(model.recommend(7).with_columns(pl.col("user_id")))
        assert loaded.users == model.users == sorted(model.users, key=str)
        with pytest.raises(ConfigError, match="are not given"):
            loaded.evaluate()
        again = loaded.evaluate(interactions=taken, items=items())
        assert again.frame().equals(model.evaluate().frame())
    with pytest.raises(BundleError):
        recall.load(tmp_path / "none")


def test_a_model_shows_itself(model: Model) -> None:
    page = model._repr_html_()
    assert f"<th>users</th><td>{USERS}</td>" in page
    assert "<th>validation recall@10</th>" in page
    assert repr(model).startswith(f"<recall.Model version: {model.recommender.bundle.manifest.version}")


def test_findings_about_the_tables_are_kept(taken: pl.DataFrame) -> None:
    leaking = taken.with_columns(answer=pl.col("item_id") * 7)
    fields = {
        "user_id": {"side": "user", "kind": "categorical"},
        "answer": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
    }
    fitted = recall.fit(leaking, config={"fields": fields, "train": {"sweeps": 1}, "model": {"k": 4}}, progress=False)
    assert any("interactions.answer" in line for line in fitted.findings)
    assert "interactions.answer" in fitted._repr_html_()
