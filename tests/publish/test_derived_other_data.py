"""A version of another data set does not replace the live one unless requested."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve, versions
from recall.config import parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.errors import BundleError
from recall.evaluation.data_match import differences
from recall.features.encoder import FeatureEncoder
from recall.pipeline import replaced_data
from recall.publish.derived import adopt
from recall.publish.export import export
from tests.conftest import random_model

CONFIG = """
name = "{name}"
[data]
split = {{ by = "none" }}
{data}
[fields]
{user} = {{ side = "user", kind = "categorical" }}
{item} = {{ side = "item", kind = "categorical" }}
[model]
k = 2
"""


def shop(
    folder: Path, *, prefix: str = "", user: str = "user_id", item: str = "item_id", seed: int = 0, more: int = 0
) -> tuple[Path, Dataset]:
    """Publish a version of 30 users, 400 items and 600 interactions of a seed, and `more` of another; return root and data."""
    rng = np.random.default_rng(seed)
    later = np.random.default_rng(99)
    pairs = {name: rng.integers(0, size, 600) for name, size in ((user, 30), (item, 400))}
    added = {name: later.integers(0, size, more) for name, size in ((user, 30), (item, 520))}
    table = pl.DataFrame({name: np.concatenate([pairs[name], added[name]]) for name in pairs})
    folder.mkdir()
    table.with_columns(pl.col(item).cast(pl.String).str.replace("^", prefix)).write_parquet(folder / "interactions.parquet")
    data = f'user_id = "{user}"\nitem_id = "{item}"\n'
    config = parse_config(tomllib.loads(CONFIG.format(name=folder.name, data=data, user=user, item=item)))
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "root")
    return folder / "root", dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return shop(tmp_path / "served")[0]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"prefix": "b"}, "0.0% of the item ids are in both catalogues"),
        ({"item": "movie"}, "its ids are in a column 'movie', and those of the served version in 'item_id'"),
        ({"user": "member"}, "its ids are in a column 'member', and those of the served version in 'user_id'"),
        ({"seed": 1}, "% of the interactions of common users are the same"),  # the same numbers for other users and items
    ],
)
def test_a_version_of_another_data_set_is_refused_unless_requested(
    root: Path, tmp_path: Path, other: dict[str, int], why: str
) -> None:
    elsewhere, _ = shop(tmp_path / "other", **other)  # type: ignore[arg-type]
    before = resolve(root)
    with pytest.raises(BundleError, match="the version comes from another data set") as error:
        adopt(elsewhere, root)
    assert before.name in error.value.what
    assert why in error.value.why
    assert "--other-data" in error.value.hint
    assert resolve(root) == before
    assert len(versions(root)) == 1
    assert adopt(elsewhere, root, other_data=True).folder == resolve(root) != before


def test_a_version_of_extended_data_is_accepted(root: Path, tmp_path: Path) -> None:
    elsewhere, _ = shop(tmp_path / "later", more=2000)
    assert list(differences(load_bundle(elsewhere), load_bundle(root))) == []
    assert adopt(elsewhere, root).unmatched == ""
    assert len(versions(root)) == 2


def test_the_first_version_is_not_compared(root: Path, tmp_path: Path) -> None:
    assert adopt(root, tmp_path / "empty").unmatched == ""


def test_replacing_a_corrupt_version_reports_that_data_were_not_compared(root: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(root, tmp_path / "copy")
    items = resolve(root) / "items.parquet"
    items.write_bytes(b"damaged")
    assert adopt(elsewhere, root).unmatched.startswith("the live version cannot be read")


def test_training_reports_that_it_replaces_a_version_of_other_data(root: Path, tmp_path: Path) -> None:
    _, dataset = shop(tmp_path / "other", prefix="b")
    said = replaced_data(dataset, root)
    assert said.startswith(f"{root} serves {resolve(root).name}, which comes from other data (it knows 0.0% of the items")
    _, dataset = shop(tmp_path / "later", more=100)
    assert replaced_data(dataset, root) == ""
    assert replaced_data(dataset, tmp_path / "nothing") == ""
