"""The compared methods, their settings, and how to run them in isolation."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from training.splits import Split

RUNNER = Path(__file__).parent / "runner.py"
PACKAGES = {
    "als": "implicit",
    "bpr": "implicit",
    "warp": "lightfm",
    "ials_cg": "irspack",
    "ials_cholesky": "irspack",
    "ials_pp": "irspack",
}
TITLES = {
    "solver": "this solver",
    "als": "implicit ALS",
    "bpr": "implicit BPR",
    "warp": "LightFM WARP",
    "ials_cg": "irspack iALS, CG",
    "ials_cholesky": "irspack iALS, Cholesky",
    "ials_pp": "irspack iALS++",
}

GRIDS: dict[str, list[dict[str, list[Any]]]] = {
    "solver": [
        {
            "unobserved": [10, 20, 40],
            "popularity": [0.0, 0.25, 0.4],
            "activity": [0.5],
            "regularisation": [0.002, 0.004],
            "nu": [1.0],
            "first_order": [1.0],
            "cg_steps": [1],
        },
        {  # as in ALS: equal regularisation of all features, and no item bias
            "unobserved": [20, 100, 300],
            "popularity": [0.0],
            "activity": [0.0],
            "regularisation": [10.0, 16.0, 25.0],
            "nu": [0.0],
            "first_order": [1e6],
            "cg_steps": [1],
        },
    ],
    "als": [{"regularization": [3.0, 10.0, 30.0, 100.0], "alpha": [1.0, 3.0, 10.0, 30.0, 60.0]}],
    "bpr": [{"learning_rate": [0.03, 0.1], "regularization": [0.01, 0.03]}],
    "warp": [{"learning_rate": [0.05], "item_alpha": [0.0, 1e-5], "user_alpha": [0.0], "max_sampled": [10, 30]}],
    "ials_cg": [
        {"solver_type": ["CG"], "alpha0": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0], "reg": [0.001, 0.003, 0.01], "nu": [1.0]}
    ],
    "ials_cholesky": [],
    "ials_pp": [],
}
"""Grids of --tune, on a validation part of the training pairs; the solvers of iALS minimise the same loss."""

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "ml-1m": {
        "solver": {
            "unobserved": 300,
            "popularity": 0.0,
            "activity": 0.0,
            "regularisation": 16.0,
            "nu": 0.0,
            "first_order": 1000000.0,
            "cg_steps": 1,
        },
        "als": {"regularization": 10.0, "alpha": 1.0},
        "bpr": {"learning_rate": 0.03, "regularization": 0.01},
        "warp": {"learning_rate": 0.05, "item_alpha": 0.0, "user_alpha": 0.0, "max_sampled": 10},
        "ials_cg": {"alpha0": 1.0, "reg": 0.001, "nu": 1.0, "solver_type": "CG"},
        "ials_cholesky": {"alpha0": 1.0, "reg": 0.001, "nu": 1.0, "solver_type": "CHOLESKY"},
        "ials_pp": {"alpha0": 1.0, "reg": 0.001, "nu": 1.0, "solver_type": "IALSPP"},
    },
    "gowalla": {
        "solver": {
            "unobserved": 40,
            "popularity": 0.4,
            "activity": 0.5,
            "regularisation": 0.002,
            "nu": 1.0,
            "first_order": 1.0,
            "cg_steps": 1,
        },
        "als": {"regularization": 10.0, "alpha": 60.0},
        "bpr": {"learning_rate": 0.03, "regularization": 0.01},
        "warp": {"learning_rate": 0.05, "item_alpha": 0.0, "user_alpha": 0.0, "max_sampled": 10},
        "ials_cg": {"alpha0": 0.01, "reg": 0.003, "nu": 1.0, "solver_type": "CG"},
        "ials_cholesky": {"alpha0": 0.01, "reg": 0.003, "nu": 1.0, "solver_type": "CHOLESKY"},
        "ials_pp": {"alpha0": 0.01, "reg": 0.003, "nu": 1.0, "solver_type": "IALSPP"},
    },
}
"""Chosen on validation parts of the training pairs, by parts of the grids above and by hand; BPR and WARP only on ml-1m."""

LENGTHS = {
    "solver": (12, 1),
    "als": (15, 1),
    "bpr": (20, 8),
    "warp": (15, 3),
    "ials_cg": (15, 1),
    "ials_cholesky": (12, 1),
    "ials_pp": (15, 1),
}
"""Number of recorded steps, and epochs per step; halved for BPR and WARP in a quick run."""


@dataclass
class Run:
    """Result of one run of a method."""

    seconds: list[float] = field(default_factory=list)
    ndcg: list[float] = field(default_factory=list)
    loading: float = 0.0
    peak: int = 0
    before: int = 0

    @property
    def best(self) -> float:
        """The best NDCG of all steps."""
        return max(self.ndcg)

    def reached(self, ndcg: float) -> float | None:
        """Return the seconds of training until NDCG reached a value; None if it never did."""
        return next((seconds for seconds, found in zip(self.seconds, self.ndcg, strict=True) if found >= ndcg), None)


def python_of(method: str, peers: Path | None) -> str | None:
    """Return the Python interpreter with the package of a method.

    This one, one in the folder of environments, or None.
    """
    if method == "solver":
        return sys.executable
    package = PACKAGES[method]
    found = None if peers is None else shutil.which(str(peers / package / "bin" / "python"))
    for candidate in (found, sys.executable):
        if (
            candidate
            and subprocess.run([candidate, "-c", f"import {package}"], capture_output=True, check=False).returncode == 0
        ):
            return candidate
    return None


def run(method: str, python: str, split: Split, settings: dict[str, Any], k: int, threads: int, quick: bool) -> Run:
    """Train in a separate process and evaluate every step.

    Raises:
        RuntimeError: the runner failed; contains its output.
    """
    steps, every = LENGTHS[method]
    given = {**settings, "k": k, "threads": threads, "steps": steps // (2 if quick and every > 1 else 1), "every": every}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "pairs.npz"
        split.write(path)
        return launch(
            method,
            python,
            path,
            Path(scratch),
            json.dumps(given),
            threads,
            lambda kept: split.ndcg(kept["users"], kept["items"]),
        )


def launch(
    method: str, python: str, pairs: Path, scratch: Path, settings: str, threads: int, judge: Callable[[Any], float]
) -> Run:
    """Train in a separate process and evaluate every step.

    Args:
        method: a name of the runner's.
        python: interpreter with its package.
        pairs: observed pairs to train on.
        scratch: folder for the vectors of its steps.
        settings: as JSON.
        threads: to train with.
        judge: returns NDCG from the arrays of a step.

    Raises:
        RuntimeError: the runner failed; contains its output.
    """
    one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") if method != "solver" else {}
    root = RUNNER.parents[2]
    places = {**os.environ, **one, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"}
    result = Run()
    command = [python, str(RUNNER), method, str(pairs), str(scratch), settings]
    with (
        open(scratch / "errors", "w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=places, cwd=root) as process,
    ):
        assert process.stdout is not None
        lines = process.stdout.readlines()  # evaluated after training, so that nothing runs at the same time
        if process.wait():
            errors.seek(0)
            raise RuntimeError(f"{method}: {errors.read()[-2000:]}")
    for line in lines:
        _take(result, json.loads(line), judge, scratch)
    return result


def _take(result: Run, told: dict[str, Any], judge: Callable[[Any], float], folder: Path) -> None:
    if "step" in told:
        result.seconds.append(told["seconds"])
        result.ndcg.append(judge(np.load(folder / f"{told['step']}.npz")))
    else:
        for name, value in told.items():
            setattr(result, name, value)


def candidates(method: str) -> Iterator[dict[str, Any]]:
    """Yield all settings of the method's grids."""
    for grid in GRIDS[method]:
        for values in product(*grid.values()):
            yield dict(zip(grid, values, strict=True))
