from pathlib import Path

import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
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
