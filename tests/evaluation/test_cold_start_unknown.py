import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.errors import TrainingError
from recall.evaluation.cold_start import UnknownUsers, fair_figure, unknown_user, upper_end
from recall.evaluation.exact_topk import rank_values
from recall.evaluation.protocol import held_out
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.serving.recommender import Request
from tests.conftest import TINY, write_tiny_tables
from tests.evaluation import reference


def test_unknown_users_are_encoded_as_in_the_service(world):
    row = unknown_user(world.encoder)
    (served,) = world.recommender.user_vectors([Request(user_id="never met before")])
    assert world.recommender.bundle.tables.user_vectors(row)[0] == pytest.approx(served, rel=1e-6)
    blocks = {block.name: block for block in world.encoder.user_blocks}
    stands = {name: set(row.indices - block.offset) & {UNKNOWN, MISSING} for name, block in blocks.items()}
    assert UNKNOWN in stands["user_id"]
    assert blocks["gender"].offset + MISSING in row.indices


@pytest.mark.parametrize("taken", ["unknown", "u0"])
def test_an_id_named_unknown_is_not_the_unknown_user(tmp_path, taken):
    write_tiny_tables(tmp_path)
    fields = {name: TINY["fields"][name] for name in ("user_id", "item_id")}
    dataset = load_dataset(parse_config({**TINY, "fields": fields}), tmp_path)
    dataset.users[0, "user_id"] = taken
    row = unknown_user(FeatureEncoder.fit(dataset))
    assert row.indices.tolist() == [UNKNOWN]


def test_all_requests_are_evaluated_for_the_unknown_user(world):
    phi = world.recommender.bundle.tables.user_vectors(unknown_user(world.encoder))
    psi = world.recommender.bundle.item_vectors
    asked = UnknownUsers.of(world.dataset, world.encoder, world.held, (1, 3))
    repeated = np.repeat(phi, len(world.held), axis=0)
    expected = rank_values(repeated, psi, world.held.relevant, world.held.masked, (1, 3))
    judged = asked.metrics_of(phi, psi)
    assert set(judged.values) == set(expected)
    for name, values in expected.items():
        assert judged.values[name] == pytest.approx(values), name


def test_popularity_counts_training_interactions_under_the_same_masks(world):
    asked = UnknownUsers.of(world.dataset, world.encoder, world.held, (3,))
    counts = np.bincount(world.dataset.events["item"].to_numpy()[world.dataset.training], minlength=len(world.dataset.items))
    for row in range(len(world.held)):
        relevant, masked = set(world.held.relevant[row].tolist()), set(world.held.masked[row].tolist())
        found = reference.top(counts.tolist(), masked, 3)
        assert asked.popularity.values["recall@3"][row] == pytest.approx(reference.recall(found, relevant, 3))


def test_popularity_has_margin_0_and_its_reverse_a_negative_one(tmp_path):
    write_tiny_tables(tmp_path)
    config = parse_config({**TINY, "data": {**TINY["data"], "split": {"by": "last", "test": 3, "valid": 0}}})
    dataset = load_dataset(config, tmp_path)
    held = held_out(dataset, config.evaluation, dataset.select(TEST), dataset.training)
    asked = UnknownUsers.of(dataset, FeatureEncoder.fit(dataset), held, (10,))
    counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(dataset.items))
    psi, phi = counts[:, None].astype(np.float32), np.ones((1, 1), dtype=np.float32)
    figures = asked.figures(phi, psi)
    assert figures["unknown_margin_ndcg@10"] == 0
    assert figures["unknown_ndcg@10"] == asked.popularity.values["ndcg@10"].mean() > 0
    worst = held.relevant.items.astype(np.int64)
    psi[worst] = -1
    assert asked.figures(phi, psi)["unknown_margin_ndcg@10"] < 0
    with pytest.raises(TrainingError, match="scores for an unknown user are not finite"):
        asked.metrics_of(phi, np.full_like(psi, np.nan))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1, 1)), min_size=1, max_size=30))
def test_the_interval_is_over_users_not_requests(pairs):
    user = np.array([one for one, _ in pairs])
    differences = np.array([value for _, value in pairs])
    mean = differences.mean()
    sums = [sum(value - mean for other, value in pairs if other == one) for one in set(user.tolist())]
    expected = mean
    if len(sums) > 1:
        expected += 1.96 * np.sqrt(sum(one**2 for one in sums) * len(sums) / (len(sums) - 1)) / len(pairs)
    assert upper_end(differences, user) == pytest.approx(expected)


def test_the_stopping_metric_subtracts_the_lead_of_popularity_for_unknown_users():
    assert fair_figure({"ndcg@10": 0.25, "unknown_margin_ndcg@10": -0.125}, "ndcg@10") == 0.125
    assert fair_figure({"ndcg@10": 0.25, "unknown_margin_ndcg@10": 0.125}, "ndcg@10") == 0.25
    assert fair_figure({"ndcg@10": 0.25, "unknown_margin_recall@10": -0.125}, "ndcg@10") == 0.25
