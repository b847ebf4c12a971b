"""Train one method on pairs of ids and record its vectors.

Runs in the Python interpreter with the package of the method.

    python scripts/training/runner.py METHOD PAIRS.npz OUT SETTINGS

PAIRS.npz holds the training pairs as CSR (`indptr`, `indices`, `items`). OUT is a folder: step S writes `S.npz` with
vectors whose inner product is the score, and prints a line of JSON with the seconds of training so far, without the time to
save vectors. The last line has the peak memory, and the memory at the start of training. SETTINGS is JSON: `k`, `threads`,
`steps`, `every` (epochs per step) and the settings of the method.

Only numpy, scipy and the package of the method are imported, so that the script runs in any environment.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Vectors = Callable[[], tuple[np.ndarray, np.ndarray]]


class Clock:
    """Counts seconds of training without the time to save vectors."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._step = 0
        self.memory = _peak()
        self._began = time.perf_counter()

    def keep(self, vectors: Vectors, **more: Callable[[], np.ndarray]) -> None:
        """Pause, save the vectors, print a line, and continue."""
        stopped = time.perf_counter()
        self._step += 1
        users, items = vectors()
        arrays: dict[str, Any] = {"users": users, "items": items, **{name: one() for name, one in more.items()}}
        # Any: savez also has a flag, which cannot be given here because numpy before 2.1 would save it as an array
        np.savez(self._out / f"{self._step}.npz", **{name: one.astype(np.float32) for name, one in arrays.items()})
        print(json.dumps({"step": self._step, "seconds": stopped - self._began}), flush=True)
        self._began += time.perf_counter() - stopped


def solver(data: Any, settings: dict[str, Any], out: Path) -> Clock:
    """Train with the whole-catalogue solver over ids."""
    import torch

    from recall.config import SquareConfig
    from recall.features.csr import SparseRows
    from recall.models.torch.fm import FactorizationMachine
    from recall.training.als.solver import ImplicitALS
    from recall.training.pairs import ObservedPairs

    torch.set_num_threads(settings["threads"])
    own = {name: settings[name] for name in ("unobserved", "popularity", "activity", "regularisation", "nu", "first_order")}
    config = SquareConfig(steps=settings["cg_steps"], **own)
    users, items = len(data["indptr"]) - 1, int(data["items"])

    def learner(indptr: np.ndarray, indices: np.ndarray, n: int) -> ImplicitALS:
        contexts, catalogue = (SparseRows.one_hot(np.arange(count, dtype=np.int32), count) for count in (n, items))
        pairs = ObservedPairs(contexts, catalogue, indptr, indices, np.ones(len(indices), dtype=np.float32))
        model = FactorizationMachine(n, items, settings["k"])
        model.initialise(0.1, torch.Generator().manual_seed(0))
        return ImplicitALS(model, pairs, config)

    loading = time.perf_counter()
    learner(np.array([0, 1]), data["indices"][:1], 1).sweep()
    print(json.dumps({"loading": time.perf_counter() - loading}), flush=True)  # compile, or load compiled code from disk
    clock = Clock(out)
    one = learner(data["indptr"], data["indices"], users)
    model = one.model

    def vectors() -> tuple[np.ndarray, np.ndarray]:
        factors, first = model.item_factors.detach().numpy(), model.item_weights.detach().numpy()[:, None]
        phi = model.user_factors.detach().numpy()
        return np.hstack([np.ones((users, 1), dtype=np.float32), phi]), np.hstack([first, factors])

    for _ in range(settings["steps"]):
        one.sweep()
        clock.keep(vectors)
    return clock


def als(data: Any, settings: dict[str, Any], out: Path) -> Clock:
    """Train with alternating least squares of implicit."""
    from implicit.cpu.als import AlternatingLeastSquares

    own = {name: settings[name] for name in ("regularization", "alpha")}
    steps, threads = settings["steps"], settings["threads"]
    model = AlternatingLeastSquares(settings["k"], iterations=steps, num_threads=threads, random_state=0, **own)
    pairs, clock = _matrix(data), Clock(out)
    model.fit(pairs, show_progress=False, callback=lambda *_: clock.keep(lambda: (model.user_factors, model.item_factors)))
    return clock


def bpr(data: Any, settings: dict[str, Any], out: Path) -> Clock:
    """Train with BPR of implicit; its factors contain the item bias."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    own = {name: settings[name] for name in ("learning_rate", "regularization")}
    epochs, threads = settings["steps"] * settings["every"], settings["threads"]
    model = BayesianPersonalizedRanking(settings["k"], iterations=epochs, num_threads=threads, random_state=0, **own)
    pairs, clock = _matrix(data), Clock(out)

    def keep(epoch: int, *_: Any) -> None:
        if (epoch + 1) % settings["every"] == 0:
            clock.keep(lambda: (model.user_factors, model.item_factors))

    model.fit(pairs, show_progress=False, callback=keep)
    return clock


def warp(data: Any, settings: dict[str, Any], out: Path) -> Clock:
    """Train with WARP of LightFM, with item biases as a further component."""
    from lightfm import LightFM

    own = {name: settings[name] for name in ("learning_rate", "item_alpha", "user_alpha", "max_sampled")}
    model = LightFM(no_components=settings["k"], loss="warp", random_state=0, **own)
    pairs, clock = _matrix(data).tocoo(), Clock(out)

    def vectors() -> tuple[np.ndarray, np.ndarray]:
        (item_bias, items), (_, users) = model.get_item_representations(), model.get_user_representations()
        return np.hstack([np.ones((len(users), 1)), users]), np.hstack([item_bias[:, None], items])

    for _ in range(settings["steps"]):
        model.fit_partial(pairs, epochs=settings["every"], num_threads=settings["threads"])
        clock.keep(vectors)
    return clock


def ials(data: Any, settings: dict[str, Any], out: Path) -> Clock:
    """Train with iALS of irspack; its loss is that of iALS++, its solver a setting."""
    pairs, clock = _matrix(data), Clock(out)
    trainer = _ials(pairs, settings)
    for _ in range(settings["steps"]):
        trainer.run_epoch()
        clock.keep(lambda: (trainer.core_trainer.user, trainer.core_trainer.item))
    return clock


def ials_features(data: Any, settings: dict[str, Any], out: Path) -> Clock:
    """Train with iALS of irspack; the other items get vectors by their features."""
    pairs, clock = _matrix(data), Clock(out)
    features, others = _rows(data, "features"), _rows(data, "others")
    trainer = _ials(pairs, settings, item_features=features, lambda_item_feature=settings["lambda_item_feature"])
    for _ in range(settings["steps"]):
        trainer.run_epoch()
        clock.keep(
            lambda: (trainer.core_trainer.user, trainer.core_trainer.item),
            others=lambda: trainer.transform_item_feature(others),
        )
    return clock


def _rows(data: Any, name: str) -> Any:
    from scipy.sparse import csr_matrix

    indptr = data[f"{name}_indptr"]
    parts = data[f"{name}_weights"], data[f"{name}_indices"], indptr
    return csr_matrix(parts, shape=(len(indptr) - 1, int(data[f"{name}_n"])))


def _ials(pairs: Any, settings: dict[str, Any], **features: Any) -> Any:
    from irspack.recommenders._ials_core import LossType, SolverType
    from irspack.recommenders.ials import IALSTrainer

    return IALSTrainer(
        pairs,
        n_components=settings["k"],
        alpha0=settings["alpha0"],
        reg=settings["reg"],
        nu=settings["nu"],
        init_std=0.1,
        solver_type=SolverType.__members__[settings["solver_type"]],
        max_cg_steps=3,
        ialspp_subspace_dimension=64,
        loss_type=LossType.IALSPP,
        random_seed=0,
        n_threads=settings["threads"],
        prediction_time_max_cg_steps=5,
        prediction_time_ialspp_iteration=7,
        **features,
    )


METHODS = {"solver": solver, "als": als, "bpr": bpr, "warp": warp, "ials_features": ials_features}
METHODS |= dict.fromkeys(("ials_cg", "ials_cholesky", "ials_pp"), ials)


def _matrix(data: Any) -> Any:
    from scipy.sparse import csr_matrix

    shape = (len(data["indptr"]) - 1, int(data["items"]))
    return csr_matrix((np.ones(len(data["indices"]), dtype=np.float32), data["indices"], data["indptr"]), shape=shape)


def _peak() -> int:
    """Return the peak resident memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    method, pairs, folder, given = sys.argv[1:]
    watched = METHODS[method](np.load(pairs), json.loads(given), Path(folder))
    print(json.dumps({"peak": _peak(), "before": watched.memory}), flush=True)
