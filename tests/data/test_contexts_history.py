import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recall.config.schema import Schema
from recall.data.contexts import previous_items
from recall.data.dataset import Dataset

SCHEMA = Schema.model_validate(
    {"fields": {"u": {"side": "user", "kind": "categorical"}, "i": {"side": "item", "kind": "categorical"}}}
)


def dataset(user: list[int], item: list[int]) -> Dataset:
    events = pl.DataFrame(
        {"user": user, "item": item, "weight": [1.0] * len(user), "split": [0] * len(user)},
        schema={"user": pl.Int32, "item": pl.Int32, "weight": pl.Float32, "split": pl.Int8},
    )
    return Dataset(SCHEMA, events, pl.DataFrame(), pl.DataFrame(), (), (), ())


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 5), st.randoms(use_true_random=False))
def test_history_is_the_users_own_items_latest_first(lengths: list[int], longest: int, random: object) -> None:
    user = [row for row, length in enumerate(lengths) for _ in range(length)]
    item = list(range(100, 100 + len(user)))  # every interaction has a different item
    positions = np.random.default_rng(len(user)).permutation(len(user)).astype(np.int64)
    history = previous_items(dataset(user, item), positions, longest)
    assert len(history) == len(positions)
    assert history.items.dtype == np.int32
    for number, position in enumerate(positions):
        before = [item[p] for p in range(position) if user[p] == user[position]]
        found = history.items[history.indptr[number] : history.indptr[number + 1]].tolist()
        assert found == before[::-1][:longest]


def test_a_history_excludes_the_row_itself_later_rows_and_other_users(tiny_dataset: Dataset) -> None:
    events = tiny_dataset.events
    history = previous_items(tiny_dataset, np.arange(len(events)), 1000)
    lengths = np.diff(history.indptr)
    assert (lengths == events.select(pl.int_range(pl.len()).over("user")).to_series().to_numpy()).all()


def test_no_lag_gives_empty_histories() -> None:
    history = previous_items(dataset([0, 0, 1], [4, 5, 6]), np.arange(3), 0)
    assert history.indptr.tolist() == [0, 0, 0, 0]
