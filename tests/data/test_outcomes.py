from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.dataset import Dataset, load_dataset
from recall.data.incremental import load_additions
from recall.data.outcomes import parse_labels
from recall.data.split import TEST
from recall.errors import ConfigError, DataError

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
}
RATINGS = "user_id,item_id,stars,t\na,x,5,1\na,y,2,2\nb,x,,3\nb,z,4,4\nb,y,3.5,5\n"
EVENTS = "user_id,item_id,event,t\na,x,view,1\na,x,purchase,2\na,y,cart,3\nb,y,view,4\nb,z,scroll,5\n"


def config(**data: Any) -> RunConfig:
    return parse_config({"data": {"interactions": "e.csv", "time": "t", **data}, "fields": FIELDS})


def load(folder: Path, text: str, **data: Any) -> Dataset:
    (folder / "e.csv").write_text(text)
    return load_dataset(config(**data), folder)


def pairs(dataset: Dataset, frame: pl.DataFrame | None = None) -> list[tuple[str, str, float]]:
    rows = dataset.events if frame is None else frame
    users, items = (dataset.users["user_id"].gather(rows["user"]), dataset.items["item_id"].gather(rows["item"]))
    weights = (rows["weight"].cast(pl.Float64) / dataset.observation).round(
        5
    )  # the smallest training weight becomes 1: only ratios matter
    return list(zip(users, items, weights, strict=True))


def test_rows_below_a_threshold_are_dropped(tmp_path: Path) -> None:
    rule = {"column": "stars", "at_least": 3.5, "missing": "left out"}
    dataset = load(tmp_path, RATINGS, outcome=rule)
    assert pairs(dataset) == [("a", "x", 1.0), ("b", "z", 1.0), ("b", "y", 1.0)]
    assert dataset.negatives is None
    same = load(tmp_path, "user_id,item_id,stars,t\na,x,5,1\nb,z,4,4\nb,y,3.5,5\n", outcome=rule)
    assert same.fingerprint() == dataset.fingerprint()


def test_rows_below_a_threshold_may_be_negatives(tmp_path: Path) -> None:
    dataset = load(tmp_path, RATINGS, outcome={"column": "stars", "at_least": 4, "below": "not taken", "missing": "taken"})
    assert pairs(dataset) == [("a", "x", 1.0), ("b", "x", 1.0), ("b", "z", 1.0)]
    assert dataset.negatives is not None
    assert pairs(dataset, dataset.negatives) == [("a", "y", 1.0), ("b", "y", 1.0)]
    assert dataset.negatives["before"].to_list() == [1, 3]


def test_a_threshold_is_equivalent_to_the_corresponding_label(tmp_path: Path) -> None:
    full = RATINGS.replace("b,x,,3", "b,x,1,3")
    rule = load(tmp_path, full, outcome={"column": "stars", "at_least": 4, "below": "not taken"})
    label = load(tmp_path, "user_id,item_id,y,t\na,x,1,1\na,y,0,2\nb,x,0,3\nb,z,true,4\nb,y,False,5\n", label="y")
    assert rule.fingerprint() == label.fingerprint()


def test_a_missing_outcome_is_an_error_unless_configured(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 5 rows have no value.*data.outcome.missing"):
        load(tmp_path, RATINGS, outcome={"column": "stars", "at_least": 4})
    with pytest.raises(DataError, match="not a number: 'good'"):
        load(tmp_path, RATINGS.replace("3.5", "good"), outcome={"column": "stars", "at_least": 4, "missing": "taken"})
    with pytest.raises(DataError, match="every row is left out"):
        load(tmp_path, RATINGS, outcome={"column": "stars", "at_least": 9, "missing": "left out"})


def test_events_have_weights_are_dropped_or_are_negatives(tmp_path: Path) -> None:
    events = {"column": "event", "weights": {"view": 1, "cart": 3, "purchase": 10}, "left_out": ["scroll"]}
    dataset = load(tmp_path, EVENTS, events=events)
    assert pairs(dataset) == [("a", "x", 1.0), ("a", "x", 10.0), ("a", "y", 3.0), ("b", "y", 1.0)]
    assert "z" not in dataset.items["item_id"]
    shown = {"column": "event", "weights": {"cart": 1, "purchase": 2}, "left_out": ["scroll"], "not_taken": ["view"]}
    dataset = load(tmp_path, EVENTS, events=shown)
    assert pairs(dataset) == [("a", "x", 2.0), ("a", "y", 1.0)]
    assert dataset.negatives is not None
    assert [pair[:2] for pair in pairs(dataset, dataset.negatives)] == [("a", "x"), ("b", "y")]


def test_an_unlisted_event_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 rows name events that are not listed: 'scroll'.*data.events.weights") as caught:
        load(tmp_path, EVENTS, events={"column": "event", "weights": {"view": 1, "cart": 1, "purchases": 1, "purchase": 1}})
    assert caught.value.where == f"{tmp_path / 'e.csv'}, column 'event'"
    with pytest.raises(DataError, match="Did you mean 'purchases'"):
        load(
            tmp_path,
            EVENTS,
            events={"column": "event", "weights": {"view": 1, "cart": 1, "purchases": 1}, "left_out": ["scroll"]},
        )
    with pytest.raises(DataError, match="1 of 5 rows name no event"):
        load(tmp_path, EVENTS.replace("scroll", ""), events={"column": "event", "weights": {"view": 1}})


def test_rows_without_an_event_count_as_configured(tmp_path: Path) -> None:
    unnamed = EVENTS.replace("scroll", "").replace("cart", "")
    rule = {"column": "event", "weights": {"view": 1, "purchase": 10}}
    taken = load(tmp_path, unnamed, events={**rule, "missing": "taken"})
    assert pairs(taken) == [("a", "x", 1.0), ("a", "x", 10.0), ("a", "y", 1.0), ("b", "y", 1.0), ("b", "z", 1.0)]
    left = load(tmp_path, unnamed, events={**rule, "missing": "left out"})
    assert pairs(left) == [("a", "x", 1.0), ("a", "x", 10.0), ("b", "y", 1.0)]
    shown = load(tmp_path, unnamed, events={**rule, "missing": "not taken"})
    assert pairs(shown) == pairs(left)
    assert shown.negatives is not None
    assert [pair[:2] for pair in pairs(shown, shown.negatives)] == [("a", "y"), ("b", "z")]
    with pytest.raises(ConfigError, match="weights must name at least one event"):
        config(events={"column": "event", "weights": {}, "missing": "not taken"})


def test_event_and_row_weights_are_multiplied(tmp_path: Path) -> None:
    text = "user_id,item_id,event,t,w\na,x,view,1,2\na,y,cart,2,0.5\nb,x,spam,3,-7\n"
    events = {"column": "event", "weights": {"view": 1, "cart": 3}, "left_out": ["spam"]}
    dataset = load(tmp_path, text, events=events, weight="w")  # the weight of a dropped row is never read
    assert pairs(dataset) == [("a", "x", 1.33333), ("a", "y", 1.0)]
    with pytest.raises(DataError, match=r"rows are counted without those.*not positive"):
        load(tmp_path, text.replace("0.5", "-1"), events=events, weight="w")


def test_numeric_events_match_in_any_notation(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "t": [1, 2], "kind": [1.0, 2.0]})
    frame.write_parquet(tmp_path / "e.parquet")
    rule = {"column": "kind", "weights": {"1": 4}, "left_out": ["2"]}
    assert pairs(load_dataset(config(interactions="e.parquet", events=rule), tmp_path)) == [("a", "x", 1.0)]


def test_label_threshold_and_event_must_all_be_positive(tmp_path: Path) -> None:
    text = "user_id,item_id,t,y,stars,event\na,x,1,1,5,buy\na,y,2,0,5,buy\na,z,3,1,1,buy\na,w,4,1,5,skip\n"
    data = {
        "label": "y",
        "outcome": {"column": "stars", "at_least": 4, "below": "not taken"},
        "events": {"column": "event", "weights": {"buy": 2}, "not_taken": ["skip"]},
    }
    dataset = load(tmp_path, text, **data)
    assert pairs(dataset) == [("a", "x", 1.0)]
    assert dataset.negatives is not None
    assert len(dataset.negatives) == 3
    with pytest.raises(DataError, match="no row counts as taken"):
        load(tmp_path, text.replace("a,x,1,1,5,buy", "a,x,1,1,5,skip"), **data)


def test_the_split_applies_to_the_remaining_rows(tmp_path: Path) -> None:
    rows = "".join(f"a,i{n},{5 if n % 2 else 1},{n}\n" for n in range(8))
    dataset = load(
        tmp_path, "user_id,item_id,stars,t\n" + rows, outcome={"column": "stars", "at_least": 4}, split={"by": "last"}
    )
    tested = dataset.events.filter(pl.col("split") == TEST)
    assert dataset.items["item_id"].gather(tested["item"]).to_list() == ["i7"]
    assert len(dataset.events) == 4


def test_new_interactions_follow_the_same_rules_and_alone_are_for_validation(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    rows = ["a,x,1,1", "a,y,5,2", "b,x,1,3", "b,z,5,4"]
    for folder, these in ((old, rows), (new, ["c,x,5,5", "c,y,1,6", "d,x,5,7"])):
        folder.mkdir()
        (folder / "e.csv").write_text("user_id,item_id,stars,t\n" + "\n".join(these) + "\n")
    rule = config(outcome={"column": "stars", "at_least": 4}, carve=0.5)
    dataset = load_additions(rule, new, old)
    assert sorted(pair[:2] for pair in pairs(dataset)) == [("a", "y"), ("b", "z"), ("c", "x"), ("d", "x")]
    judged = dataset.events.filter(pl.col("split") == 1)
    assert len(judged) == 1
    assert set(dataset.users["user_id"].gather(judged["user"])) <= {"c", "d"}


def test_check_counts_only_rows_that_are_kept(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,item_id,stars,t\na,x,5,1\na,x,1,1\nb,y,5,2\n")
    findings = check(config(outcome={"column": "stars", "at_least": 4}), tmp_path)
    assert not [finding for finding in findings if "repeat" in finding.message or finding.column == "stars"]
    repeated = check(config(outcome={"column": "stars", "at_least": 1}), tmp_path)
    assert [finding.count for finding in repeated if "repeat" in finding.message] == [1]


@pytest.mark.parametrize("values", [["1", "0"], ["true", "False"], [" TRUE", "0"], ["1.0", "0"]])
def test_labels_may_be_booleans_as_text(values: list[str]) -> None:
    np.testing.assert_array_equal(parse_labels(pl.Series(values), "y"), [True, False])


def test_an_invalid_label_is_shown_as_written() -> None:
    with pytest.raises(DataError, match="neither 0 nor 1: '2'"):
        parse_labels(pl.Series(["1", "2"]), "y")
    with pytest.raises(DataError, match="not a number: 'perhaps'"):
        parse_labels(pl.Series(["1", "perhaps"]), "y")
