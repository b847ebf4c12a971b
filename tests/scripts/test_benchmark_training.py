import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = str(ROOT / "scripts")


@pytest.fixture
def scripts(monkeypatch):
    """Import scripts as when one of them is run."""
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.fixture
def folder(tmp_path):
    """A small data set in the layout of ml-1m: the last item of each user is the test row."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        liked = rng.permutation(np.arange(20) + 20 * (user % 2))[:12]
        rows += [(user, int(item), place, "test" if place == 11 else "train") for place, item in enumerate(liked)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "position", "split"], orient="row").write_parquet(
        tmp_path / "interactions.parquet"
    )
    return tmp_path


@pytest.mark.slow
def test_the_solver_is_evaluated_after_each_sweep(scripts, folder):
    from training.methods import LENGTHS, SETTINGS, python_of, run
    from training.splits import Split

    split = Split.read("ml-1m", folder, tuning=False, requests=50)
    assert len(split.users) == len(split.relevant) == 50
    found = run("solver", python_of("solver", None), split, SETTINGS["ml-1m"]["solver"], k=4, threads=1, quick=True)
    assert len(found.seconds) == len(found.ndcg) == LENGTHS["solver"][0]
    assert found.seconds == sorted(found.seconds)
    assert found.reached(found.best) in found.seconds
    assert found.reached(1.1) is None
    assert found.best > 0.1  # a third of the eight remaining items; by chance among all it is .05
    assert found.peak >= found.before > 0


def test_tuning_does_not_use_the_test_part(scripts, folder):
    from training.splits import Split

    tuned, judged = (Split.read("ml-1m", folder, tuning, requests=1000) for tuning in (True, False))
    assert tuned.train.lengths.sum() == 60 * 10
    assert judged.train.lengths.sum() == 60 * 11
    assert not any(np.intersect1d(judged.relevant[user], tuned.relevant[user]).size for user in range(60))


def test_a_failed_criterion_is_named(scripts):
    from benchmark_training import Figure

    assert Figure("share", 0.4, 0.5).met
    assert not Figure("share", 0.6, 0.5).met
    assert Figure("same", 1.0, 0.999, large=True).met
    assert str(Figure("same", 0.5, 0.999, large=True)).startswith("MISSED")


@pytest.mark.slow
def test_lists_are_independent_of_threads():
    command = [sys.executable, "scripts/training/growth.py", "agree", "30000", "8"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"agree": 1.0}


@pytest.mark.slow
def test_growth_reports_the_work_of_the_loops():
    command = [sys.executable, "scripts/training/growth.py", "sweep", "30000", "8", "1"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert 0.7 * 30000 < figures["interactions"] <= 30000
    assert {"gather", "scatter", "pair_gradients", "add_gram"} <= set(figures["kernels"])
    assert all(seconds > 0 for seconds, _, _ in figures["kernels"].values())
    assert figures["peak_flops"] > 0 < figures["peak_bytes"]
