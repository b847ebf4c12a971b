"""Validation by a sample of its requests."""

import numpy as np
import pytest
import torch

from recall.config import parse_config
from recall.features.csr import SparseRows
from recall.models.torch.registry import new_model
from recall.pipeline import line
from recall.training.loop import SweepReport
from recall.training.pairs import ObservedPairs
from recall.training.popularity import PopularityFit
from recall.training.train import train
from recall.training.validation import Validation, affordable_requests
from tests.conftest import TINY


def config_with(**train_section):
    return parse_config({**TINY, "model": {"k": 4}, "train": train_section})


def pairs_of(contexts, items, observed, each=1):
    """Pairs of which only the sizes matter, with a number of features in each context."""
    rows = SparseRows(
        np.arange(contexts + 1) * each, np.zeros(contexts * each, np.int32), np.ones(contexts * each, np.float32), 9
    )
    catalogue = SparseRows.one_hot(np.zeros(items, dtype=np.int32), 9)
    indptr = np.linspace(0, observed, contexts + 1).astype(np.int64)
    return ObservedPairs(rows, catalogue, indptr, np.zeros(observed, np.int32), np.ones(observed, np.float32))


@pytest.mark.parametrize(
    ("section", "shape", "expected"),
    [
        ({"objective": "square", "steps": 5}, (1_000, 100, 1_000_000), 187_600),  # 2 x 5 x 64 x 1e6 ns for a score of 3.4 ns
        ({"objective": "square", "steps": 5}, (1_000, 100, 1_000_000, 1_000), 375_200),  # as many values as pairs
        ({"objective": "square"}, (10, 10_000, 1_000), 1_000),  # the fewest
        ({"objective": "softmax"}, (100_000, 50_000, 100_000), 30_000),  # three products with the whole catalogue
        ({"objective": "softmax", "candidates": "sampled", "samples": 500}, (1_000_000, 50_000, 1_000), 3_000),
        ({"objective": "bpr"}, (10, 1_000, 1_000_000), 29_000),
    ],
)
def test_a_tenth_of_a_sweep_is_affordable(section, shape, expected):
    assert affordable_requests(config_with(**section).method, pairs_of(*shape), 64) == pytest.approx(expected, rel=0.05)


def test_a_sample_has_the_figures_of_its_requests(tiny_dataset, tiny_encoder):
    config = config_with(sweeps=1)
    model = new_model(config.model, tiny_encoder.user_fields, tiny_encoder.item_fields)
    model.initialise(1.0, torch.Generator().manual_seed(0))
    popularity = PopularityFit.of(tiny_dataset, tiny_encoder, config)
    whole = Validation.of(config, tiny_dataset, tiny_encoder, popularity)
    assert whole.sampled(len(whole.held.user), 0) is whole
    part = whole.sampled(5, 0)
    chosen = np.flatnonzero(np.isin(whole.held.user, part.held.user))
    values = whole.judge(model).values["ndcg@10"][chosen]
    assert len(part.held.user) == len(chosen) == 5
    assert part.judge(model).values["ndcg@10"] == pytest.approx(values)
    figures = part(model)
    assert figures["ndcg@10"] == pytest.approx(values.mean())
    assert figures["error_ndcg@10"] == pytest.approx(values.std() / 5**0.5)
    assert part.unknown.popularity.values["ndcg@10"] == pytest.approx(whole.unknown.popularity.values["ndcg@10"][chosen])


@pytest.mark.parametrize(("stopping", "sampled"), [({}, True), ({"requests": 10_000}, False)])
def test_requests_are_sampled_unless_their_number_is_configured(stopping, sampled, tiny_dataset, tiny_encoder, monkeypatch):
    monkeypatch.setattr("recall.training.train.affordable_requests", lambda *_: 3)
    config = config_with(sweeps=1, stopping=stopping)
    reports = []
    result = train(config, tiny_dataset, tiny_encoder, reports.append)
    popularity = PopularityFit.of(tiny_dataset, tiny_encoder, config)
    validation = Validation.of(config, tiny_dataset, tiny_encoder, popularity)
    during = validation.sampled(3, config.seed) if sampled else validation
    assert reports[0].metrics["error_ndcg@10"] == pytest.approx(during(result.model)["error_ndcg@10"])
    assert result.metrics["ndcg@10"] == pytest.approx(validation(result.model)["ndcg@10"])


def test_a_line_of_progress_has_standard_errors():
    report = SweepReport(1, 2, 0.5, {"ndcg@10": 0.25, "error_ndcg@10": 0.0125, "unknown_ndcg@10": 0.125}, False, 1.0, 1.0)
    assert "ndcg@10 0.2500 ± 0.0125  unknown_ndcg@10 0.1250  " in line(report)
