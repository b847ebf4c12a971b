"""A published model whose titles and values are hostile, its evaluation, and a real browser."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.evaluation.evaluate import EvaluationReport, evaluate
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender
from tests.cli.conftest import run as run
from tests.conftest import TINY, random_model, write_tiny_tables
from tests.service.page.conftest import browser as browser

HOSTILE = (
    "<script>window.taken = 1</script>",
    "</title><img src=x onerror='window.taken = 1'>",
    '"><svg onload="window.taken = 1">',
    "$\\frac{1}$ and $x^{",
    "line\nbreak\x00\x1b[31m\u202ereversed",
    "日本語の題名 🎬",
    "]]></svg><a href='https://example.org'>",
    "&lt;b&gt; &amp; 'quoted' " + "long " * 50,
)

CURVE = {"losses": [0.9, 0.5, 0.4], "figures": [0.1, None, 0.3], "best_sweep": 3}
RACE = {
    "metric": "ndcg@10",
    "winner": "square loss",
    "popularity": {"value": 0.05, "low": 0.01, "high": 0.1},
    "raced": [
        {"recipe": "square loss", "value": 0.3, "low": 0.2, "high": 0.4, "sweeps": 2, "seconds": 1.5, "figures": [0.2, 0.3]},
        {"recipe": "softmax", "value": 0.25, "low": 0.2, "high": 0.3, "sweeps": 1, "seconds": 2.5, "figures": [0.25]},
    ],
}


@dataclass(frozen=True)
class Judged:
    config: RunConfig
    folder: Path
    dataset: Dataset
    evaluation: EvaluationReport

    @property
    def root(self) -> Path:
        return self.folder / "bundles"


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A random model of the small data set, with hostile titles and categories."""
    folder = tmp_path_factory.mktemp("hostile")
    write_tiny_tables(folder)
    items = pl.read_parquet(folder / "items.parquet")
    items.with_columns(
        pl.Series("title", [HOSTILE[number % len(HOSTILE)] for number in range(len(items))]),
        pl.Series("category", [HOSTILE[number % 3] for number in range(len(items))]),
    ).write_parquet(folder / "items.parquet")
    values = {**TINY, "name": "<b>tiny</b>", "evaluation": {"at": [1, 3], "intervals": 50}}
    config = parse_config({**values, "data": {**TINY["data"], "attributes": ["title"]}})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "bundles", {"curve": CURVE, "race": RACE})
    with Recommender.load(folder / "bundles") as recommender:
        return Judged(config, folder, dataset, evaluate(recommender, dataset, config, ablated=True))


@pytest.fixture
def recommender(judged: Judged) -> Iterator[Recommender]:
    with Recommender.load(judged.root) as loaded:
        yield loaded
