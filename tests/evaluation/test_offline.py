from dataclasses import replace
from functools import partialmethod

import numpy as np
import polars as pl
import pytest

from recall.evaluation.exact_topk import Replaced
from recall.evaluation.offline import OfflineReplay
from recall.evaluation.protocol import HeldOutRequests
from tests.evaluation import reference


def test_rankings_equal_served_lists(world):
    rows = world.replay.lists(1000)
    for row in range(len(world.replay)):
        answer = world.recommender.recommend(world.request(row))
        assert [world.ids[item] for item in rows[row] if item >= 0] == [item.item_id for item in answer.items]


def test_metrics_match_the_lists(world):
    rows = world.replay.lists(3)
    judged = world.replay.metrics_of(rows, (1, 3))
    assert set(judged.values) == {f"{name}@{k}" for name in ("recall", "hit_rate", "ndcg") for k in (1, 3)}
    ids = world.dataset.items["item_id"]
    for name in ("recall", "hit_rate", "ndcg"):
        for row in range(len(rows)):
            answer = [world.ids[item] for item in rows[row] if item >= 0]
            relevant = set(ids.gather(world.held.relevant[row]).to_list())
            assert judged.values[f"{name}@3"][row] == pytest.approx(reference.METRICS[name](answer, relevant, 3))


def test_chunking_does_not_change_results(world, monkeypatch):
    monkeypatch.setattr(HeldOutRequests, "batches", partialmethod(HeldOutRequests.batches, 3))
    again = OfflineReplay.of(world.recommender, world.dataset, world.held)
    np.testing.assert_array_equal(again.user_vectors, world.replay.user_vectors)


def test_replaced_scores_respect_the_mask(world):
    trial = world.replay
    everything = Replaced(trial.masked, np.full(len(trial.masked.items), 1e9, dtype=np.float32))
    np.testing.assert_array_equal(trial.lists(5, replaced=everything), trial.lists(5))
    best = Replaced(trial.relevant, np.full(len(trial.relevant.items), 1e9, dtype=np.float32))
    open_ = trial.relevant.lengths - np.bincount(
        trial.relevant.owners[trial.relevant.shared(trial.masked)], minlength=len(trial)
    )
    recall = trial.metrics_of(trial.lists(1000, replaced=best), (20,)).values["recall@20"]
    np.testing.assert_allclose(recall, open_ / trial.relevant.lengths)


def test_a_relevant_item_missing_in_the_bundle_is_a_miss(world):
    lacking = int(world.held.relevant.items[0])
    items = world.dataset.items.with_columns(
        item_id=pl.when(pl.int_range(pl.len()) == lacking).then(pl.lit("brand new")).otherwise("item_id")
    )
    trial = OfflineReplay.of(world.recommender, replace(world.dataset, items=items), world.held)
    lost = world.held.relevant.items == lacking
    assert (trial.relevant.items[lost] >= len(world.ids)).all()
    np.testing.assert_array_equal(trial.relevant.items[~lost], world.replay.relevant.items[~lost])
    np.testing.assert_array_equal(trial.relevant.lengths, world.replay.relevant.lengths)
    assert not trial.relevant.contains(trial.lists(1000))[0].all()
