from pathlib import Path

import numpy as np
import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.evaluation.bootstrap import PerRequestMetrics
from recall.training.race.entrant import Entrant, SharedData
from tests.conftest import TINY

SOFTMAX = {"objective": "softmax", "epochs": 3, "opening": {"sweeps": 2}}


@pytest.fixture
def ground(tiny_folder: Path) -> SharedData:
    config = parse_config(TINY)
    return SharedData.of(config, load_dataset(config, tiny_folder))


def entrant(ground: SharedData, train: dict[str, object]) -> Entrant:
    return Entrant("one", {"train": train}, parse_config({**TINY, "model": {"k": 4}, "train": train}), ground)


@pytest.mark.parametrize(
    ("figures", "figure", "best_sweep", "finished"),
    [
        ([], float("-inf"), 0, False),
        ([0.5], float("-inf"), 0, False),
        ([0.5, 0.3], 0.3, 2, False),
        ([0.5, 0.3, 0.4], 0.4, 3, False),
        ([0.5, 0.3, 0.4, 0.35], 0.4, 3, True),
    ],
)
def test_an_opening_is_not_a_result_of_what_follows(
    ground: SharedData, figures: list[float], figure: float, best_sweep: int, finished: bool
) -> None:
    one = entrant(ground, SOFTMAX)
    one.figures.extend(figures)
    assert (one.figure, one.best_sweep, one.finished) == (figure, best_sweep, finished)


def test_the_first_sweep_of_a_square_loss_counts(ground: SharedData) -> None:
    one = entrant(ground, {"objective": "square", "sweeps": 5})
    one.figures.extend([0.5, 0.3])
    assert (one.figure, one.best_sweep) == (0.5, 1)
    one.figures.append(0.4)
    assert one.finished


def test_the_best_model_of_each_request_comes_after_the_opening(ground: SharedData) -> None:
    one = entrant(ground, SOFTMAX)
    one.run(1, lambda: False)
    assert len(one.figures) == 1
    assert one.best is None
    one.run(4, lambda: False)
    assert one.best.values[one.metric].mean() == pytest.approx(one.figure)


@pytest.mark.parametrize(
    ("schedule", "worse", "finished"), [("linear", 0.002, False), ("linear", 0.2, True), ("constant", 0.002, True)]
)
def test_epochs_of_a_decreasing_rate_go_on_until_they_are_worse_beyond_chance(
    ground: SharedData, schedule: str, worse: float, finished: bool
) -> None:
    one = entrant(ground, {"objective": "softmax", "epochs": 9, "schedule": schedule})
    figures = np.random.default_rng(5).random(400)
    noise = np.random.default_rng(6).normal(0, 0.1, 400)
    users = np.arange(400)
    one.best = PerRequestMetrics(users, {one.metric: figures})
    one.latest = PerRequestMetrics(users, {one.metric: figures - worse + noise - noise.mean()})
    one.figures.extend([0.5, 0.5 - worse, 0.5 - worse])
    assert one.best_sweep == 1
    assert (one.declines, one.finished) == (worse == 0.2, finished)
