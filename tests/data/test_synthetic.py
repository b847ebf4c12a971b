import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.data.synthetic import Synthetic, SyntheticConfig, alias_table, generate
from recall.errors import ConfigError

SMALL = SyntheticConfig(users=120, items=80, interactions=2_400, seed=3)


@pytest.fixture(scope="module")
def shop() -> Synthetic:
    return generate(SMALL)


def test_sizes_are_as_requested_and_ids_are_in_the_tables(shop: Synthetic) -> None:
    assert (len(shop.users), len(shop.items), len(shop.interactions)) == (120, 80, 2_400)
    assert shop.users["user_id"].n_unique() == 120
    assert shop.items["item_id"].n_unique() == 80
    assert shop.interactions["user_id"].is_in(shop.users["user_id"].to_list()).all()
    assert shop.interactions["item_id"].is_in(shop.items["item_id"].to_list()).all()
    assert shop.interactions["time"].is_sorted()


def test_users_choose_each_item_at_most_once(shop: Synthetic) -> None:
    assert not shop.interactions.select("user_id", "item_id").is_duplicated().any()


def test_the_tables_have_all_column_types_and_missing_values(shop: Synthetic) -> None:
    assert shop.items["title"].null_count() == 0
    assert shop.items["title"].n_unique() == 80  # what `init` keeps as an attribute
    assert shop.items.schema["tags"] == pl.List(pl.String)
    assert shop.items.schema["price"] == pl.Float64
    assert 0 < shop.users["age"].null_count() < 30
    assert set(shop.interactions["device"].unique()) == {"phone", "desktop", "tablet"}
    assert shop.interactions["daypart"].n_unique() == 4


def test_a_seed_determines_everything(shop: Synthetic) -> None:
    again, other = generate(SMALL), generate(SyntheticConfig(users=120, items=80, interactions=2_400, seed=4))
    assert again.interactions.equals(shop.interactions)
    assert again.items.equals(shop.items)
    assert again.users.equals(shop.users)
    assert not other.interactions.equals(shop.interactions)


def test_true_preferences_rank_chosen_items_above_chance(shop: Synthetic) -> None:
    """The mean rank of choices by utility, among items not chosen before, is far from the middle."""
    truth, events = shop.truth, shop.interactions
    users = np.searchsorted(np.sort(shop.users["user_id"].to_numpy()), events["user_id"].to_numpy())
    users = np.argsort(shop.users["user_id"].to_numpy())[users]
    items = np.searchsorted(np.sort(shop.items["item_id"].to_numpy()), events["item_id"].to_numpy())
    items = np.argsort(shop.items["item_id"].to_numpy())[items]
    devices = events["device"].replace_strict({"phone": 0, "desktop": 1, "tablet": 2}).to_numpy()
    dayparts = events["daypart"].replace_strict({"night": 0, "morning": 1, "afternoon": 2, "evening": 3}).to_numpy()
    vectors = truth.user_vectors(users, devices, dayparts, np.full(len(users), -1))
    scores = vectors @ truth.item_vectors().T
    assert vectors.dtype == np.float32
    rank = (scores > scores[np.arange(len(items)), items][:, None]).sum(axis=1)
    assert rank.mean() < 0.3 * 80


def test_users_of_a_large_catalogue_consider_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SyntheticConfig(users=50, items=500, interactions=600, considered=100)
    shop = generate(config)
    assert 590 < len(shop.interactions) <= 600  # a few choices found nothing new
    assert not shop.interactions.select("user_id", "item_id").is_duplicated().any()
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert generate(config).interactions.equals(shop.interactions)  # independent of the number of threads


def test_choices_among_a_part_are_drawn_by_popularity_and_utility() -> None:
    """With one item on offer, its popularity decides; with many, utility does."""
    shares = []
    for considered in (1, 200):
        shop = generate(SyntheticConfig(users=3_000, items=300, interactions=9_000, considered=considered))
        counts = shop.items.select("item_id").join(
            shop.interactions.group_by("item_id").len(), on="item_id", how="left", maintain_order="left"
        )["len"]
        expected = np.exp(shop.truth.popularity.astype(np.float64))
        shares.append(np.corrcoef(counts.fill_null(0).to_numpy(), expected)[0, 1])
    assert shares[0] > 0.9 > shares[1]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30))
def test_an_alias_table_holds_the_shares(weights: list[float]) -> None:
    kept, alias = alias_table(np.array(weights))
    shares = kept.astype(np.float64) + np.bincount(alias, 1.0 - kept, len(weights))
    assert shares / len(weights) == pytest.approx(np.array(weights) / sum(weights), abs=1e-6)


@pytest.mark.parametrize(("name", "value"), [("users", 0), ("items", 0), ("interactions", 0), ("interactions", 10_000)])
def test_invalid_sizes_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ConfigError) as refused:
        SyntheticConfig(**{"users": 10, "items": 10, "interactions": 10, name: value})
    assert refused.value.where == name
