import numpy as np
import polars as pl
import pytest

from recall.config import EvaluationConfig, parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, TRAIN, VALID
from recall.evaluation.protocol import held_out, requests
from recall.features.encoder import FeatureEncoder

VISITS = [  # user, item, hour, split; in order of time
    ("ann", "a", 1, "train"),
    ("ann", "b", 2, "train"),
    ("ann", "c", 1, "valid"),
    ("ann", "b", 1, "test"),
    ("ann", "d", 1, "test"),
    ("ann", "d", 2, "test"),
    ("bob", "c", 1, "train"),
    ("bob", "a", 1, "test"),
    ("bob", "a", 1, "test"),
]


def dataset_of(folder, history=False):
    users, items, hours, parts = zip(*VISITS, strict=True)
    pl.DataFrame({"user_id": users, "item_id": items, "hour": hours, "split": parts, "time": range(len(users))}).write_parquet(
        folder / "interactions.parquet"
    )
    fields = {
        "user_id": {"side": "user", "kind": "categorical"},
        "hour": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
    }
    if history:
        fields["before"] = {"kind": "history", "lags": [[1, 2]]}
    config = parse_config({"data": {"time": "time", "split": {"by": "column"}}, "fields": fields})
    return load_dataset(config, folder)


def asked(dataset, mask, request, split=TEST):
    known = np.flatnonzero(dataset.events["split"].to_numpy() < split)
    held = held_out(dataset, EvaluationConfig(mask=mask, request=request), dataset.select(split), known)
    items = dataset.items["item_id"]
    return [
        (
            dataset.users["user_id"][int(held.user[row])],
            dataset.events["hour"][int(held.event[row])],
            set(items.gather(held.relevant[row]).to_list()),
            set(items.gather(held.masked[row]).to_list()),
        )
        for row in range(len(held))
    ], held


def test_one_request_per_row_with_the_same_context_masked(tmp_path):
    got, held = asked(dataset_of(tmp_path), "context", "row")
    assert got == [
        ("ann", 1, {"b"}, {"a", "c"}),
        ("ann", 1, {"d"}, {"a", "c"}),
        ("ann", 2, {"d"}, {"b"}),
        ("bob", 1, {"a"}, {"c"}),
        ("bob", 1, {"a"}, {"c"}),
    ]
    assert held.hidden.sum() == 0


def test_one_request_per_context_with_the_users_items_masked(tmp_path):
    got, held = asked(dataset_of(tmp_path), "user", "context")
    assert sorted(got, key=str) == sorted(
        [("ann", 1, {"b", "d"}, {"a", "b", "c"}), ("ann", 2, {"d"}, {"a", "b", "c"}), ("bob", 1, {"a"}, {"c"})], key=str
    )
    assert held.hidden.sum() == 1  # ann had b before, in another context


def test_the_validation_part_is_not_masked(tmp_path):
    got, _ = asked(dataset_of(tmp_path), "user", "row", VALID)
    assert got == [("ann", 1, {"c"}, {"a", "b"})]


def test_masking_can_be_disabled(tmp_path):
    got, _ = asked(dataset_of(tmp_path), "none", "row")
    assert all(not masked for *_, masked in got)


@pytest.mark.parametrize("request_", ["row", "context"])
def test_with_a_history_each_row_is_a_request_with_its_earlier_items(tmp_path, request_):
    dataset = dataset_of(tmp_path, history=True)
    got, held = asked(dataset, "context", request_)
    assert [(user, relevant) for user, _, relevant, _ in got] == [
        ("ann", {"b"}), ("ann", {"d"}), ("ann", {"d"}), ("bob", {"a"}), ("bob", {"a"})
    ]  # fmt: skip
    assert got[0][3] == {"a", "c"}  # the mask uses the context without the history
    sent = requests(dataset, held, FeatureEncoder.fit(dataset), 4)
    assert [list(request.history) for request in sent] == [["c", "b"], ["b", "c"], ["d", "b"], ["c"], ["a", "c"]]
    assert all(not request.exclude_seen and request.n == 4 for request in sent)
    assert [dict(request.context) for request in sent] == [{"hour": 1}, {"hour": 1}, {"hour": 2}, {"hour": 1}, {"hour": 1}]
    assert {*sent[0].exclude} == {"a", "c"}


def test_a_sample_keeps_complete_requests(tmp_path):
    _, held = asked(dataset_of(tmp_path), "user", "row")
    part = held.take(held.drawn(3, seed=1))
    assert len(part) == len(part.relevant) == len(part.masked) == 3
    assert set(part.event.tolist()) < set(held.event.tolist())
    assert held.drawn(99, seed=1).tolist() == list(range(len(held)))
    assert len(held_out(dataset_of(tmp_path), EvaluationConfig(), np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0
    assert TRAIN == 0


@pytest.mark.parametrize("history", [False, True])
def test_held_out_users_send_known_interactions_and_are_evaluated_on_the_rest(tmp_path, history):
    dataset_of(tmp_path)  # writes the table
    fields = {name: {"side": name[:4], "kind": "categorical"} for name in ("user_id", "item_id")}
    fields["hour"] = {"side": "user", "kind": "categorical"}
    if history:
        fields["before"] = {"kind": "history", "lags": [[1, 2]]}
    split = {"by": "users", "test": 0.98, "valid": 0, "given": 0.5}
    frame = pl.read_parquet(tmp_path / "interactions.parquet")
    others = [pl.DataFrame({"user_id": f"u{n}", "item_id": "a", "hour": 1, "split": "", "time": 0}) for n in range(300)]
    pl.concat([frame, *others], how="vertical_relaxed").write_parquet(tmp_path / "interactions.parquet")
    dataset = load_dataset(parse_config({"data": {"time": "time", "split": split}, "fields": fields}), tmp_path)
    got, held = asked(dataset, "user", "context")
    assert [one for one in got if one[0] in ("ann", "bob")] == [
        ("ann", 1, {"b", "d"}, {"a", "b", "c"}),
        ("ann", 2, {"d"}, {"a", "b", "c"}),
        ("bob", 1, {"a"}, {"c"}),
    ]
    sent = requests(dataset, held, FeatureEncoder.fit(dataset), 5)
    assert [one.history for one in sent[:3]] == ([["c", "b"], ["c", "b"], ["c"]] if history else [None] * 3)
    by_row, _ = asked(dataset, "user", "row")
    assert [one[:3] for one in by_row[:4]] == [("ann", 1, {"b"}), ("ann", 1, {"d"}), ("ann", 2, {"d"}), ("bob", 1, {"a"})]
