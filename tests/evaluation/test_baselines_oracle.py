from pathlib import Path

import pytest

from recall.config import load_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.data.synthetic import SyntheticConfig, generate
from recall.evaluation.baselines import oracle


def test_true_preferences_beat_shuffled_ones_and_chance(tmp_path: Path) -> None:
    shop = generate(SyntheticConfig(users=150, items=100, interactions=3_000))
    shop.write(tmp_path)
    config = load_config(tmp_path / "recall.toml")
    dataset = load_dataset(config, tmp_path)
    best = oracle(shop, dataset, config.evaluation, TEST)
    other = generate(SyntheticConfig(users=150, items=100, interactions=3_000, seed=1))
    wrong = oracle(type(shop)(shop.interactions, shop.users, shop.items, other.truth), dataset, config.evaluation, TEST)
    assert best["recall@10"] > 0.35
    assert wrong["recall@10"] < 0.25
    assert best["recall@20"] == pytest.approx(best["hit_rate@20"])  # one relevant item per request
