from pathlib import Path

import polars as pl
import pytest

from recall.config import RunConfig
from recall.data.dataset import Dataset, load_dataset
from recall.data.split import TEST
from recall.errors import DataError
from recall.evaluation.data_match import match_data
from recall.evaluation.evaluate import evaluate
from recall.serving.recommender import Recommender
from recall.training.incremental import prepare_warm_start


def changed(folder: Path, config: RunConfig, **columns: pl.Expr) -> Dataset:
    """The small data set with other interactions."""
    path = folder / "interactions.parquet"
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)
    return load_dataset(config, folder)


def test_a_bundle_recognises_its_data(recommender: Recommender, tiny_folder: Path, tiny_config: RunConfig) -> None:
    dataset = changed(tiny_folder, tiny_config, strength=pl.col("strength") + 1)
    match = match_data(dataset, recommender.bundle, len(recommender.users), recommender.users.get)
    assert (match.items, match.users, match.pairs, match.fields, match.foreign) == (1.0, 1.0, 1.0, "", False)


def test_data_with_other_ids_are_refused(recommender: Recommender, tiny_folder: Path, tiny_config: RunConfig) -> None:
    dataset = changed(tiny_folder, tiny_config, item_id="other " + pl.col("item_id"))
    with pytest.raises(DataError, match=r"was trained on other data than these tables \(it knows 0\.0% of the items, 100\.0%"):
        evaluate(recommender, dataset, tiny_config, TEST)
    dataset = changed(
        tiny_folder, tiny_config, item_id=pl.col("item_id").str.strip_prefix("other "), user_id="o" + pl.col("user_id")
    )
    with pytest.raises(DataError, match=r"100\.0% of the items, 0\.0% of the users\)"):
        evaluate(recommender, dataset, tiny_config, TEST)


def test_equal_ids_of_other_data_are_detected_by_interactions(
    recommender: Recommender, tiny_folder: Path, tiny_config: RunConfig
) -> None:
    known = pl.read_parquet(tiny_folder / "interactions.parquet").select("user_id", "item_id").unique()
    items = known["item_id"].unique().sort()
    least = known.join(items.to_frame(), how="cross", suffix="_other").group_by("user_id").agg(pl.col("item_id").unique())
    never = {user: next((i for i in items if i not in mine), items[0]) for user, mine in least.iter_rows()}
    dataset = changed(tiny_folder, tiny_config, item_id=pl.col("user_id").replace_strict(never))
    with pytest.raises(DataError, match="0% of the training interactions of known users"):
        evaluate(recommender, dataset, tiny_config, TEST)


def test_partly_common_data_are_accepted(
    published: Path, tiny_additions: Path, tiny_folder: Path, tiny_config: RunConfig
) -> None:
    config = tiny_config.model_copy(update={"model": tiny_config.model.model_copy(update={"k": 4})})
    path = tiny_additions / "interactions.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(user_id="x" + pl.col("user_id"), item_id="x" + pl.col("item_id")).write_parquet(path)
    with pytest.raises(DataError, match=r"other data than these tables \(it knows 0\.0% of the items, 0\.0% of the users"):
        prepare_warm_start(config, published, tiny_additions, None, published)
    frame.with_columns(user_id="x" + pl.col("user_id")).write_parquet(path)
    assert len(prepare_warm_start(config, published, tiny_additions, None, published).dataset.training)
