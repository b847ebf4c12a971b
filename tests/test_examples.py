import ast
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from recall.config import load_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.features.encoder import FeatureEncoder
from recall.training.train import train

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.toml"))


def test_examples_exist():
    assert {"frappe", "ml-100k", "ml-1m", "ml-1m-history", "amazon-book-kg"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid_and_named_like_its_file(path):
    assert load_config(path).name == path.stem


def test_the_spark_job_imports_names_that_exist():
    tree = ast.parse((EXAMPLES[0].parent / "spark_prepare.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and str(node.module).startswith("recall.")]
    missing = [name.name for node in imports for name in node.names if not hasattr(import_module(str(node.module)), name.name)]
    assert imports
    assert not missing


@pytest.mark.slow
def test_training_on_frappe_beats_popularity(real_data):
    config = load_config(
        EXAMPLES[[path.stem for path in EXAMPLES].index("frappe")],
        ["model.k=16", "train.epochs=2", "data.carve=0.05", "train.stopping.requests=1000"],
    )
    dataset = load_dataset(config, real_data / "frappe")
    encoder = FeatureEncoder.fit(dataset)
    assert len(dataset.select(TEST)) == 3387
    assert (len(dataset.users), len(dataset.items)) == (957, 4082)
    reports = []
    result = train(config, dataset, encoder, reports.append)
    # popularity reaches .35 on the public test rows; two small epochs after the opening are past it
    assert result.metrics["hit_rate@10"] > 0.45
    assert np.isfinite([report.loss for report in reports]).all()
