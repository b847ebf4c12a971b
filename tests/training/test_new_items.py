"""New items in top lists of a generated shop with categories, tags and prices."""

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recall.config import parse_config
from recall.data.contexts import build_contexts
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.data.synthetic import SyntheticConfig, generate
from recall.evaluation.exact_topk import ItemLists, rank_values, top_rows
from recall.evaluation.protocol import held_out
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import SparseBatch
from recall.training import new_items
from recall.training.popularity import PopularityFit
from recall.training.train import train
from recall.training.validation import Validation

CONFIG = {
    "name": "shop",
    "seed": 0,
    "data": {
        "interactions": "interactions.parquet",
        "items": "items.parquet",
        "time": "time",
        "split": {"by": "items", "test": 0.1, "valid": 0},
    },
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "previous": {"kind": "history", "lags": [[1, 1], [2, 5]]},
        "item_id": {"side": "item", "kind": "categorical"},
        "category": {"side": "item", "kind": "categorical"},
        "brand": {"side": "item", "kind": "categorical"},
    },
    "model": {"k": 16},
    "train": {"sweeps": 4},
    "evaluation": {"mask": "user", "at": [20]},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    generate(SyntheticConfig(users=1_200, items=600, interactions=24_000)).write(folder)
    return folder


def changed(**sections):
    """Change values of the configuration; None removes a key, and another objective replaces the section."""
    merged = {}
    for name, section in CONFIG.items():
        if isinstance(section, dict):
            given = sections.get(name, {})
            section = {
                key: value for key, value in {**({} if "objective" in given else section), **given}.items() if value is not None
            }
        merged[name] = section
    return parse_config(merged)


class Trained:
    """A trained model of the shop, and the requests of its test part."""

    def __init__(self, config, folder):
        self.config, self.dataset = config, load_dataset(config, folder)
        self.encoder = FeatureEncoder.fit(self.dataset)
        self.result = train(config, self.dataset, self.encoder, lambda report: None)
        rows = self.encoder.encode_items(self.dataset.items)
        self.psi = self.vectors(rows)
        self.trained = np.bincount(self.dataset.events["item"].to_numpy()[self.dataset.training], minlength=len(self.psi)) > 0

    def vectors(self, rows):
        with torch.no_grad():
            return self.result.model.item_vectors(SparseBatch.of(rows, fields=self.encoder.item_fields)).numpy()

    def lists(self, n=20):
        """Compute the exact lists of the held-out requests."""
        held = held_out(self.dataset, self.config.evaluation, self.dataset.select(TEST), self.dataset.training)
        contexts = build_contexts(self.dataset, self.encoder, held.event, held.before)
        rows = SparseBatch.of(contexts.features.take(contexts.context), fields=self.encoder.user_fields)
        with torch.no_grad():
            phi = self.result.model.user_vectors(rows).numpy()
        return held, top_rows(phi, self.psi, held.masked, n), phi

    def share(self):
        """Compute the share of new items in lists relative to their share of the catalogue."""
        _, rows, _ = self.lists()
        return (~self.trained)[rows].mean(), (~self.trained).mean()


@pytest.fixture(scope="module")
def levelled(shop):
    return Trained(changed(), shop)


def test_new_items_get_about_their_share_of_top_lists(levelled, shop):
    found, fair = levelled.share()
    assert 0.5 * fair < found < 2 * fair
    as_learnt = Trained(changed(train={"new_items": 0}), shop)
    assert as_learnt.share()[0] < found
    assert as_learnt.result.new_items == "as learnt: train.new_items is 0"
    assert "by ridge regression on their features" in levelled.result.new_items
    assert "in lists at least as often as a trained one" in levelled.result.new_items
    trained = levelled.trained
    assert as_learnt.psi[trained] == pytest.approx(levelled.psi[trained], abs=1e-5)  # up to rounding


def test_unknown_users_get_the_same_share_of_new_items(levelled):
    from recall.evaluation.cold_start import unknown_user

    with torch.no_grad():
        row = SparseBatch.of(unknown_user(levelled.encoder), fields=levelled.encoder.user_fields)
        phi = levelled.result.model.user_vectors(row).numpy()
    rows = top_rows(phi, levelled.psi, ItemLists.empty(1), 100)
    fair = (~levelled.trained).mean()
    assert 0.02 < (~levelled.trained)[rows].mean() < 4 * fair


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        (
            {
                "model": {"cosine": True},
                "train": {"objective": "softmax", "epochs": 1, "candidates": "in-batch"},
                "fields": {"user_id": None, "previous": None, "device": {"side": "user", "kind": "categorical"}},
            },
            "cosine",
        ),
        ({"train": {"objective": "logistic", "epochs": 1}}, "log-odds"),
        ({"fields": {"category": None, "brand": None}}, "no field distinguishes new items from each other"),
        ({"fields": {"item_id": None}}, "no field has a row for each item id"),
        ({"fields": {"item_id": {"side": "item", "kind": "categorical", "min_count": 40}}}, "share the row of new ones"),
    ],
)
def test_the_reason_for_no_adjustment_is_given(sections, reason, shop):
    assert reason in Trained(changed(**sections), shop).result.new_items


@pytest.mark.parametrize("kind", ["fm", "fwfm", "ffm"])
def test_every_kind_of_model_is_adjusted_for_new_items(kind, shop):
    found, fair = Trained(changed(model={"kind": kind, "k": 8}, train={"sweeps": 2}), shop).share()
    assert 0.3 * fair < found < 2.5 * fair


@pytest.mark.parametrize(
    "sections",
    [
        {},
        pytest.param({"model": {"cosine": True}, "train": {"objective": "softmax", "epochs": 2}}, marks=pytest.mark.slow),
        {"fields": {"category": None, "brand": None}},
    ],
)
def test_known_users_lose_nothing_if_half_of_the_catalogue_is_unavailable(sections, shop, tmp_path):
    config = changed(data={"split": {"by": "last", "test": 1, "valid": 0}}, **sections)
    alive = Trained(config, shop)
    items = pl.read_parquet(shop / "items.parquet")
    dead = items.with_columns(pl.format("dead-{}", pl.col("item_id")).alias("item_id"))
    for table in shop.glob("*.parquet"):
        (tmp_path / table.name).symlink_to(table)
    (tmp_path / "items.parquet").unlink()
    pl.concat([items, dead]).write_parquet(tmp_path / "items.parquet")
    half = Trained(config, tmp_path)
    assert "taken to be no longer on offer" in half.result.new_items
    figures = []
    for one in (alive, half):
        held, _, phi = one.lists()
        figures.append(rank_values(phi, one.psi, held.relevant, held.masked, (20,))["ndcg@20"])
    lost = figures[0] - figures[1]
    error = lost.std() / np.sqrt(len(lost))
    assert lost.mean() <= max(1.96 * error, 0.01 * figures[0].mean())


@given(
    arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=16)),
    st.sampled_from([1, 10, 19, 20, 25]).flatmap(lambda n: arrays(np.float32, (n, 4), elements=st.floats(-1, 1, width=16))),
    st.sampled_from([1, 4, 30]).flatmap(lambda m: arrays(np.float32, (m, 4), elements=st.floats(-1, 1, width=16))),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 24)), max_size=30),
    st.floats(-2, 2),
)
def test_a_shift_admits_the_requested_number_of_new_items(phi, old, new, taken, shift):
    lists = []
    scores = []
    for psi in (old, new):
        owners, rows = np.array([one for one in taken if one[1] < len(psi)], dtype=np.int64).reshape(-1, 2).T
        lists.append(ItemLists.from_pairs(owners, rows, 3))
        scores.append((phi @ psi.T).astype(np.float64))
        scores[-1][lists[-1].owners, lists[-1].items] = -np.inf
    tops = [new_items._top(phi, psi, masked)[1] for psi, masked in zip((old, new), lists, strict=True)]
    entries = new_items._entry_levels(*tops)
    old_scores, new_scores = scores
    for row in range(3):
        merged = np.concatenate([old_scores[row], new_scores[row] + shift])
        if np.isclose(entries[row], shift, atol=1e-5).any():
            continue  # equal up to rounding
        place = np.argsort(-merged, kind="stable")[:20]
        place = place[~np.isneginf(merged[place])]
        assert (place >= len(old)).sum() == (entries[row] < shift).sum()


def test_a_catalogue_with_few_trained_items_can_be_trained(tmp_path):
    users, items = np.repeat(np.arange(20), 6), np.concatenate([np.arange(user, user + 6) % 10 for user in range(20)])
    pl.DataFrame({"user_id": users, "item_id": items, "time": np.arange(120)}).write_parquet(tmp_path / "interactions.parquet")
    pl.DataFrame({"item_id": np.arange(30)}).write_parquet(tmp_path / "items.parquet")
    config = parse_config(
        {
            "name": "few",
            "data": {"interactions": "interactions.parquet", "items": "items.parquet", "time": "time"},
            "fields": {name: CONFIG["fields"][name] for name in ("user_id", "item_id")},
            "model": {"k": 4},
            "train": {"sweeps": 1},
        }
    )
    dataset = load_dataset(config, tmp_path)
    trained = train(config, dataset, FeatureEncoder.fit(dataset), lambda _: None)
    assert "67% of all items have no interactions" in trained.new_items
    assert trained.model.item_weights.abs().max() < 10  # they fill the remaining positions at any level


def test_validation_includes_the_adjustment(shop):
    config = changed(data={"split": {"by": "last", "test": 1, "valid": 1}})
    trained = Trained(config, shop)
    popularity = PopularityFit.of(trained.dataset, trained.encoder, config)
    validation = Validation.of(config, trained.dataset, trained.encoder, popularity)
    assert trained.result.metrics == dict(validation(trained.result.model))


def test_new_items_of_a_cosine_model_are_scaled(shop):
    config = changed(model={"cosine": True}, train={"objective": "softmax", "epochs": 2, "candidates": "in-batch"})
    trained = Trained(config, shop)
    factor = trained.result.popularity
    scaled = np.flatnonzero(factor.levels)
    assert len(scaled) <= 1
    assert (factor.levels[scaled] < 0).all()
    rows = trained.encoder.encode_items(trained.dataset.items)
    lengths = np.linalg.norm(factor.beside_items(trained.psi, rows)[:, :-1], axis=1)
    new = ~trained.dataset.offer.candidates
    assert lengths[~new] == pytest.approx(1.0, abs=1e-5)
    assert (lengths[new] <= 1 + 1e-5).all()
    assert f"{lengths[new].mean():.3g}" in trained.result.new_items
