"""A remote engine in one module, registered here; tests/index/test_base.py runs the contract tests."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recall.bundle import files
from recall.bundle.reader import load_bundle
from recall.config import IndexConfig
from recall.errors import IndexFileError
from recall.index.record import IndexRecord
from recall.index.registry import ENGINES, candidates, open_index, register
from recall.index.tuning.recall import QuerySplit
from recall.index.tuning.tuner import tune
from recall.publish.index import QuerySample, write_index
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.index.remote_engine import RemoteCollection, RemoteEngine, RemoteIndex, collections, running_server
from tests.index.test_base import users_like_a_model, vectors_like_a_model

DELAY = 0.001


@pytest.fixture(scope="module")
def far() -> Iterator[str]:
    """A server with a delay of `DELAY`."""
    with running_server(DELAY) as url:
        register(RemoteEngine(url))
        yield url
        del ENGINES["toy"]


def test_the_tuner_measures_a_remote_engine_by_wall_clock_time(far: str) -> None:
    vectors, users = vectors_like_a_model(2000, 9, 0), users_like_a_model(300, 9, 1)
    assert RemoteCollection(far) in candidates(len(vectors))
    config = IndexConfig(target=0.9, n=10)
    tried = [one for one in candidates(len(vectors)) if one.name in ("toy remote", "cells 31")]
    tuning = tune(vectors, QuerySplit.make(users, 0), config, 0, 1, tried)
    (trial,) = (one for one in tuning.trials if one.name == "toy remote")
    assert (trial.kind, trial.bytes) == ("toy_remote", 0)
    (point,) = trial.curve
    assert point.recall == 1.0
    assert point.microseconds >= 1e6 * DELAY  # during which this process is idle
    assert trial.note.startswith("given up: much slower")
    assert tuning.name != "toy remote"
    assert collections(far) == {}  # candidates that were not chosen are removed


def test_a_configuration_may_name_a_remote_engine(far: str, tmp_path: Path) -> None:
    vectors, users = vectors_like_a_model(400, 9, 2), users_like_a_model(300, 9, 3)
    config = IndexConfig(n=10, kind="toy", target=0.9, exact_up_to=0)
    record = write_index(tmp_path, vectors, QuerySample(users, "random", 0), config)
    assert [one.name for one in record.candidates] == ["exact", "toy remote"]


def test_a_bundle_names_a_remote_engine_without_a_file(far: str, tmp_path: Path) -> None:
    vectors, users = vectors_like_a_model(400, 9, 2), users_like_a_model(50, 9, 3)
    config = IndexConfig(n=10, kind="toy_remote")
    record = write_index(tmp_path, vectors, QuerySample(users, "random", 0), config)
    read = IndexRecord.model_validate_json(record.model_dump_json())
    assert (read.engine, read.kind, read.file, read.recall) == ("toy", "toy_remote", None, 1.0)
    assert read.params["url"] == far
    assert [one.name for one in tmp_path.iterdir()] == [files.CHECKS]
    opened = open_index(None, read.engine, read.kind, read.params, vectors)
    expected = np.argsort(-(users @ vectors.T), axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(opened.search(users, 10).rows, expected)
    opened.discard()
    with pytest.raises(IndexFileError, match="there is no collection"):
        open_index(None, read.engine, read.kind, read.params, vectors)


def test_a_remote_engine_receives_the_filter_and_the_bitmap(far: str, published: Path) -> None:
    bundle, local = load_bundle(published), Recommender.load(published)
    vectors = np.asarray(bundle.item_vectors)
    index = RemoteCollection(far).build(vectors, vectors[:1], 0, 1)
    assert isinstance(index, RemoteIndex)
    categories = bundle.item_column("category").to_list()
    index.call("PUT", "/columns", json.dumps({"category": categories}).encode())
    remote = Recommender(bundle, index, local.users)
    for wanted in (Request("u1"), Request("u1", filter={"category": "c3"}), Request("u2", filter={"category": "c1"}, n=3)):
        assert remote.recommend(wanted).items == local.recommend(wanted).items
    assert collections(far)[str(index.params["collection"])]["filtered"] == 2
    narrowed = Request("u1", filter={"category": "c3"}, allow=list(local.recommend(Request("u1", n=50)).ids))
    assert remote.recommend(narrowed).items == local.recommend(narrowed).items
    index.discard()
    local.close()
