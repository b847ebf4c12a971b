"""Histories of interactions without times: a bag of what else the user took."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import parse_config
from recall.data.contexts import build_contexts, items_before
from recall.data.dataset import Dataset, load_dataset
from recall.data.split import TEST, TRAIN, VALID
from recall.errors import ConfigError
from recall.evaluation.evaluate import evaluate
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.conftest import random_model

OTHERS = {"kind": "history", "lags": [[1, 50]]}


def config(**fields: Any):
    return parse_config(
        {
            "data": {"interactions": "e.csv", "split": {"by": "column"}},
            "fields": {"others": OTHERS, "item_id": {"side": "item", "kind": "categorical"}, **fields},
            "model": {"k": 4},
            "evaluation": {"mask": "user", "at": [3], "dial": [], "intervals": 10},
        }
    )


def load(folder: Path, rows: list[tuple[str, str, str]]) -> Dataset:
    pl.DataFrame(rows, schema=["user_id", "item_id", "split"], orient="row").write_csv(folder / "e.csv")
    return load_dataset(config(), folder)


def named(dataset: Dataset, longest: int) -> list[tuple[str, str, str, list[str]]]:
    """User, item, part and bag of each interaction."""
    at = np.arange(len(dataset.events))
    found = items_before(dataset, dataset.events["user"].to_numpy(), at, longest)
    users, items = dataset.users["user_id"].to_list(), dataset.items["item_id"].to_list()
    bags = [[items[item] for item in found.items[a:b]] for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)]
    parts = {TRAIN: "train", VALID: "valid", TEST: "test"}
    events = zip(dataset.events["user"], dataset.events["item"], dataset.events["split"], bags, strict=True)
    return [(users[user], items[item], parts[part], bag) for user, item, part, bag in events]


LOG = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.sampled_from(["train", "train", "valid", "test"])),
    min_size=1,
    max_size=25,
)


@given(LOG, st.sampled_from([1, 3, 50]))
def test_a_row_has_the_users_other_known_items_and_never_itself(
    tmp_path_factory: pytest.TempPathFactory, log: list[tuple[str, str, str]], longest: int
) -> None:
    log = [("u", "a", "train"), *log]
    dataset = load(tmp_path_factory.mktemp("log"), log)
    known = {"train": ("train",), "valid": ("train",), "test": ("train", "valid")}
    for user, item, part, bag in named(dataset, longest):
        taken = [other for owner, other, its in log if owner == user and its in known[part]]
        if part == "train":
            assert item not in bag
            taken.remove(item)
            whole = [other for other in taken if other != item]
        else:
            whole = taken
        assert set(bag) <= set(whole)
        if len(taken) <= longest:
            assert sorted(bag) == sorted(whole)
        assert len(bag) <= longest


def test_of_too_many_a_row_has_those_that_follow_it_round_the_end(tmp_path: Path) -> None:
    log = [("u", item, "train") for item in "abcde"] + [("u", "f", "test")]
    bags = {item: bag for _, item, _, bag in named(load(tmp_path, log), 3)}
    assert bags == {
        "a": ["b", "c", "d"],
        "b": ["c", "d", "e"],
        "c": ["d", "e", "a"],
        "d": ["e", "a", "b"],
        "e": ["a", "b", "c"],
        "f": ["e", "d", "c"],  # as stored for the user: the last first
    }


def test_after_all_interactions_a_user_has_all_that_train(tmp_path: Path) -> None:
    dataset = load(tmp_path, [("u", "a", "train"), ("u", "b", "valid"), ("v", "c", "train"), ("v", "d", "train")])
    found = items_before(dataset, np.array([0, 1]), np.array([2, 4]), 50)
    items = dataset.items["item_id"].to_list()
    assert ([items[one] for one in found.items], found.indptr.tolist()) == (["a", "d", "c"], [0, 1, 3])


def test_a_bag_has_no_ranges_decay_or_negatives() -> None:
    for changes in ({"lags": [[1, 1], [2, 5]]}, {"lags": [[2, 5]]}, {"decay": 1.0}):
        with pytest.raises(ConfigError, match=r"has one range and no decay, such as lags = \[\[1, 50\]\]"):
            config(others={**OTHERS, **changes})
    with pytest.raises(ConfigError, match="the order of the rows is unknown"):
        parse_config({"data": {"label": "taken"}, "fields": config().model_dump(mode="json")["fields"]})


def test_a_user_is_asked_once_and_served_as_evaluated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = [(f"u{user}", f"i{item:02}", "train") for user in range(8) for item in rng.choice(30, 6, replace=False)]
    log = [(user, item, "test" if number % 3 == 2 else "train") for number, (user, item, _) in enumerate(log)]
    dataset = load(tmp_path, log)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config(), tmp_path / "bundles")
    with closing(Recommender.load(tmp_path / "bundles")) as recommender:
        report = evaluate(recommender, dataset, config())
        assert (report.requests, report.users, report.relevant) == (8, 8, 16)  # two test items of each, in one request
        train = [item for user, item, part in log if user == "u3" and part == "train"]
        asked = recommender.recommend(Request("u3", history=train[::-1], n=30, exclude_seen=False))
        test = dataset.select(TEST)
        position = test[dataset.events["user"].to_numpy()[test] == dataset.users["user_id"].to_list().index("u3")][0]
        features = build_contexts(dataset, encoder, np.array([position])).features
        vector = recommender.user_vectors([Request("u3", history=train[::-1])])[0]
        assert features.indices.tolist() == sorted(features.indices.tolist())
        scores = np.asarray(recommender.bundle.item_vectors) @ vector
        best = recommender.bundle.item_ids.rows([item.item_id for item in asked.items])
        assert (np.diff(scores[best]) <= 1e-6).all()
