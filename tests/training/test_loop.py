import signal

import pytest
import torch

from recall._file_system import fsync
from recall.config import FTRLConfig, PairwiseConfig, SoftmaxConfig, SquareConfig, StoppingConfig
from recall.errors import TrainingError, TrainingInterruptedError
from recall.features.csr import FeatureLayout
from recall.models.torch.fm import FactorizationMachine
from recall.training import checkpoint
from recall.training.checkpoint import CheckpointExistsError, load_checkpoint
from recall.training.loop import Checkpointing, run_sweeps
from recall.training.train import new_learner
from tests.training.worlds import random_pairs

NAMES = {side: FeatureLayout.of_sizes([(f"{side[0]}{row}", 1) for row in range(50)]) for side in ("user", "item")}


class Counting:
    """A learner with a model that stores the number of sweeps, so that states can be distinguished."""

    def __init__(self):
        self.model = FactorizationMachine(2, 3, 4)

    def sweep(self):
        with torch.no_grad():
            self.model.user_factors += 1
        return 1.0

    def state(self):
        return {}

    def restore(self, state):
        pass


def learner_of(kind, seed=0):
    pairs = random_pairs(seed, contexts=80)
    model = FactorizationMachine(pairs.contexts.n_features, pairs.items.n_features, 4)
    model.initialise(0.2, torch.Generator().manual_seed(seed))
    configs = {
        "square": SquareConfig(unobserved=3.0),
        "softmax": SoftmaxConfig(objective="softmax", batch=32),
        "bpr": PairwiseConfig(objective="bpr", batch=32, hard=0.5),
        "logistic": PairwiseConfig(objective="logistic", batch=32, optimiser="adagrad", first_order=FTRLConfig()),
    }
    return new_learner(configs[kind], model, pairs, seed)


def test_training_stops_early_with_the_best_model():
    figures = iter([0.1, 0.3, 0.2, 0.25, 0.9])
    learner, reports = Counting(), []
    position = run_sweeps(
        learner, 9, StoppingConfig(patience=2), lambda model: {"ndcg@10": next(figures)}, reports.append, NAMES
    )
    assert (position.sweep, position.best_sweep, position.best) == (4, 2, 0.3)
    assert [report.best for report in reports] == [True, True, False, False]
    assert torch.all(learner.model.user_factors == 2)


def test_patience_counts_from_the_best_sweep_after_an_opening():
    """The epochs after an opening may be worse for some epochs, and then better."""
    figures = iter([0.5, 0.3, 0.4, 0.45, 0.6, 0.55, 0.58])
    learner, reports = Counting(), []
    stopping = StoppingConfig(patience=2)
    position = run_sweeps(
        learner, 9, stopping, lambda model: {"ndcg@10": next(figures)}, reports.append, NAMES, None, None, opened=1
    )
    assert (position.sweep, position.best_sweep, position.best) == (7, 5, 0.6)
    assert torch.all(learner.model.user_factors == 5)


def test_an_opening_that_nothing_improves_on_is_kept():
    figures = iter([0.5, 0.3, 0.4, 0.35, 0.38])
    learner = Counting()
    stopping = StoppingConfig(patience=2)
    position = run_sweeps(learner, 9, stopping, lambda model: {"ndcg@10": next(figures)}, lambda report: None, NAMES, opened=1)
    assert (position.sweep, position.best_sweep, position.best) == (5, 1, 0.5)
    assert torch.all(learner.model.user_factors == 1)


def test_a_loss_for_unknown_users_must_be_offset_by_other_users():
    looks = iter(
        [
            {"ndcg@10": 0.5, "unknown_margin_ndcg@10": 0.1},
            {"ndcg@10": 0.625, "unknown_margin_ndcg@10": -0.25},
            {"ndcg@10": 0.875, "unknown_margin_ndcg@10": -0.25},
        ]
    )
    reports = []
    position = run_sweeps(Counting(), 3, StoppingConfig(patience=3), lambda model: next(looks), reports.append, NAMES)
    assert [report.best for report in reports] == [True, False, True]
    assert (position.best_sweep, position.best) == (3, 0.625)


def test_validation_runs_at_intervals_and_at_the_end():
    reports = []
    run_sweeps(Counting(), 5, StoppingConfig(every=2), lambda model: {"ndcg@10": 0.5}, reports.append, NAMES)
    assert [bool(report.metrics) for report in reports] == [False, True, False, True, True]


def test_without_validation_all_sweeps_run_and_the_last_model_is_kept():
    learner = Counting()
    position = run_sweeps(learner, 4, StoppingConfig(), None, lambda report: None, NAMES)
    assert position.sweep == 4
    assert torch.all(learner.model.user_factors == 4)


@pytest.mark.parametrize("kind", ["square", "softmax", "bpr", "logistic"])
def test_a_resumed_run_is_bit_identical(kind, tmp_path):
    path = tmp_path / "run" / "checkpoint.safetensors"
    whole = learner_of(kind)
    run_sweeps(whole, 6, StoppingConfig(), None, lambda report: None, NAMES)

    def interrupt(report):
        if report.sweep == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterruptedError, match=r"sweep 3.*--continue"):
        run_sweeps(learner_of(kind), 6, StoppingConfig(), None, interrupt, NAMES, Checkpointing(path, "a"))
    resumed, reports = learner_of(kind, seed=0), []
    run_sweeps(resumed, 6, StoppingConfig(), None, reports.append, NAMES, Checkpointing(path, "a", resume=True))
    assert [report.sweep for report in reports] == [4, 5, 6]
    for first, second in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_resumed_run_keeps_its_best_model(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    for resume, figures in ((False, [0.5, 0.9, 0.2]), (True, [0.3, 0.4])):
        learner, figure = Counting(), iter(figures)
        position = run_sweeps(
            learner,
            3 + 2 * resume,
            StoppingConfig(patience=9),
            lambda model, figure=figure: {"ndcg@10": next(figure)},
            lambda report: None,
            NAMES,
            Checkpointing(path, "a", resume),
        )
    assert (position.best_sweep, position.best) == (2, 0.9)
    assert torch.all(learner.model.user_factors == 2)


def test_missing_corrupt_and_foreign_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"

    def resume(fingerprint):
        run_sweeps(
            Counting(), 5, StoppingConfig(), None, lambda report: None, NAMES, Checkpointing(path, fingerprint, resume=True)
        )

    with pytest.raises(TrainingError, match="no checkpoint"):
        resume("a")
    run_sweeps(Counting(), 1, StoppingConfig(), None, lambda report: None, NAMES, Checkpointing(path, "a"))
    with pytest.raises(TrainingError, match="another run"):
        resume("b")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TrainingError, match="damaged"):
        resume("a")


def test_a_checkpoint_is_overwritten_only_on_request(tmp_path):
    path = tmp_path / "checkpoint.safetensors"

    def start(fingerprint="a", **how):
        return run_sweeps(
            Counting(), 2, StoppingConfig(), None, lambda report: None, NAMES, Checkpointing(path, fingerprint, **how)
        )

    start()
    kept = path.read_bytes()
    with pytest.raises(CheckpointExistsError, match=r"the same run after sweep 2 is there\. Add --continue .* or --restart"):
        start()
    with pytest.raises(CheckpointExistsError, match="belongs to another run, and would be overwritten"):
        start("b")
    assert path.read_bytes() == kept
    assert start("b", restart=True).fingerprint == "b"
    assert load_checkpoint(path, "b")[0].sweep == 2


@pytest.mark.parametrize(("table", "place"), [("item_factors", "field 'i2' of the item side"), ("user_weights", "field 'u1'")])
def test_a_non_finite_number_stops_the_run_and_names_sweep_and_field(table, place):
    class Diverging(Counting):
        def sweep(self):
            self.model.get_parameter(table).data[2 if table == "item_factors" else 1] = float("nan")
            return float("nan")

    with pytest.raises(TrainingError, match=f"sweep 1: a number is not finite in {place}"):
        run_sweeps(Diverging(), 3, StoppingConfig(), None, lambda report: None, NAMES)


def test_overflowing_vectors_name_sweep_and_field():
    def overflow(model):
        raise TrainingError("vectors are not finite", where="psi")

    learner = Counting()
    with torch.no_grad():
        learner.model.item_factors[2, 1] = -1e30
    with pytest.raises(TrainingError, match="vectors are not finite") as caught:
        run_sweeps(learner, 3, StoppingConfig(), overflow, lambda report: None, NAMES)
    assert (caught.value.where, caught.value.why) == ("sweep 1", "the largest are in field 'i2' of the item side")


def test_no_checkpoint_is_written_before_the_first_sweep_ends(tmp_path):
    class Interrupted(Counting):
        def sweep(self):
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingInterruptedError, match="nothing was kept"):
        run_sweeps(Interrupted(), 3, StoppingConfig(), None, lambda report: None, NAMES, Checkpointing(path, "a"))
    assert not path.exists()


def test_a_signal_just_after_the_rename_reports_the_checkpoint(tmp_path, monkeypatch):
    def interrupted(path):
        fsync(path)
        if path == tmp_path:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(checkpoint, "fsync", interrupted)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(TrainingInterruptedError, match="after sweep 1, which is kept"):
        run_sweeps(Counting(), 3, StoppingConfig(), None, lambda report: None, NAMES, Checkpointing(path, "a"))
    assert checkpoint.load_checkpoint(path, "a")[0].sweep == 1
