"""Attributes of users: kept with each user, and titles are searched."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from recall.bundle.reader import load_bundle
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.errors import RequestError
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.users.bundle_users import SqliteUsers, copy_user_store
from recall.store.users.profiles import User
from recall.training.incremental import _users
from tests.conftest import TINY, random_model, write_tiny_tables

NAMES = ["Ada  Lovelace", "Grace Hopper", "Bob Ada", "Åsa Öberg", "", None, "word " * 60 + "end", "u0", "%_'", "Ада", "Straße"]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    write_tiny_tables(folder)
    users = pl.read_parquet(folder / "users.parquet")
    users.with_columns(name=pl.Series(NAMES)).write_parquet(folder / "users.parquet")
    config = parse_config({**TINY, "data": {**TINY["data"], "user_attributes": ["name"]}})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "bundles")
    return folder / "bundles"


@pytest.fixture
def live(named: Path) -> Iterator[Recommender]:
    with Recommender.load(named) as loaded:
        yield loaded


def test_titles_are_found_by_their_beginning_and_by_words(live: Recommender) -> None:
    users = live.users
    assert users.title == "name"
    assert users.find("ada", 9) == [("u0", "Ada  Lovelace"), ("u2", "Bob Ada")]
    assert users.find("ADA LOVE", 9) == [("u0", "Ada  Lovelace")]
    assert users.find("ada", 1) == [("u0", "Ada  Lovelace")]
    assert users.find("öb", 9) == [("u3", "Åsa Öberg")]
    assert users.find("ад", 9) == [("u9", "Ада")]
    assert users.find("STRASSE", 9) == users.find("straß", 9) == [("u10", "Straße")]
    assert users.find("%", 9) == [("u8", "%_'")]
    assert users.find("u0", 9) == [("u0", "Ada  Lovelace"), ("u7", "u0")]  # the user of that id first
    assert [one for one, _ in users.find("u1", 9)] == ["u1", "u10", "u11"]
    assert users.find("word word", 9) == [("u6", NAMES[6])]
    assert users.find("nobody", 9) == []


def test_a_title_is_no_feature(live: Recommender, recommender: Recommender) -> None:
    record = live.users.get("u0")
    assert record is not None
    assert record.features["name"] == "Ada  Lovelace"
    listed = [one.recommend(Request("u0", n=9)).items for one in (live, recommender)]
    assert listed[0] == listed[1]  # the same random model, without the column
    with pytest.raises(RequestError, match="no field reads 'nam'"):  # and not the stored attribute beside it
        live.bundle.encoder.encode_user({**record.features, "nam": 1})
    with pytest.raises(RequestError, match="no field reads 'name'"):
        live.recommend(Request("u0", features={"name": "x"}))


def test_changed_titles_and_deleted_users_are_not_found_by_the_former_title(live: Recommender) -> None:
    live.users.upsert([User("u1", {"name": "Renamed"}), User("fresh", {"name": "Grace New"})])
    live.users.delete(["u3"])
    assert live.users.find("grace", 9) == []
    assert live.users.find("öb", 9) == []
    assert live.users.find("fre", 9) == [("fresh", "Grace New")]
    assert live.users.find("u1", 1) == [("u1", "Renamed")]


def test_titles_are_erased_with_their_users_and_stay_with_the_others(named: Path, tmp_path: Path) -> None:
    bundle = load_bundle(named / "versions" / (named / "CURRENT").read_text().strip())
    assert copy_user_store(bundle.users_file, tmp_path / "copy", ["u0"]) == 11
    assert b"ovelace" not in (tmp_path / "copy").read_bytes()
    with closing(SqliteUsers(tmp_path / "copy")) as users:
        assert (users.title, users.find_by_title("ada", 9), users.find_by_title("grace", 9)) == ("name", ["u2"], ["u1"])
    with closing(SqliteUsers(bundle.users_file)) as users:  # what a training continues from
        rows = _users(bundle, users).collect(["user_id", "name"])
    assert dict(rows.iter_rows())["u1"] == "Grace Hopper"
