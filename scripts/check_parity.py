"""Compare scores with those of other programs with equal weights.

    pip install myfm lightfm deepctr-torch      # in a separate environment; missing packages are skipped
    python scripts/check_parity.py              # xLearn: its two programs, built with cmake from the sources that pip downloads

deepctr-torch    the second-order term of its FM layer, compared with the model's and the served one
myfm             predictions of models it has trained, compared with the imported and served ones
lightfm          the same for predictions of a hybrid model
xlearn           the same for predictions of the linear model, the FM and the FFM written as text by xlearn_train

Each line gives the largest difference, relative to the largest score. The exit code is 1 if one is above the tolerance.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float64

if TYPE_CHECKING:
    import torch

    from recall.features.csr import SparseRows
    from recall.models.serving.fm import FMTables

TOLERANCE = 1e-4
USERS, ITEMS, GENRES, FACTORS = 40, 60, 7, 8


def main() -> int:
    """Run all comparisons with installed packages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    wrong = 0
    checks: dict[str, Callable[[Path], Iterator[tuple[str, float]]]] = {
        "deepctr_torch": check_deepctr,
        "myfm": check_myfm,
        "lightfm": check_lightfm,
        "xlearn": check_xlearn,
    }
    for package, check in checks.items():
        if not (find_spec(package) or shutil.which(f"{package}_train")):
            print(f"{package:14} skipped: not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            for name, error in check(Path(folder)):
                wrong += error > TOLERANCE
                print(f"{package:14} {name:44} {error:.1e}{'' if error <= TOLERANCE else '  ABOVE ' + str(TOLERANCE)}")
    return 1 if wrong else 0


def check_deepctr(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield one feature in each of six fields, four of the user and two of the item.

    The layer sees their embeddings.
    """
    del folder  # nothing is published
    import torch

    layer = _deepctr_layer()
    rng = np.random.default_rng(0)
    sizes = [5, 9, 3, 11, 8, 13]
    factors = [rng.standard_normal((size, FACTORS)).astype(np.float32) for size in sizes]
    chosen = np.stack([rng.integers(0, size, 200) for size in sizes], axis=1)
    embedded = np.stack([table[chosen[:, field]] for field, table in enumerate(factors)], axis=1)
    theirs = layer(torch.from_numpy(embedded)).numpy()[:, 0].astype(np.float64)

    users, items = slice(0, 4), slice(4, 6)
    tables = _tables(factors[users], factors[items])
    rows = [_rows(chosen[:, part], sizes[part]) for part in (users, items)]
    served = np.einsum("nd,nd->n", tables.user_vectors(rows[0]), tables.item_vectors(rows[1])) + tables.user_offset(rows[0])
    yield "second order, served", _error(served, theirs)

    from recall.models.torch.base import SparseBatch
    from recall.models.torch.fm import FactorizationMachine

    model = FactorizationMachine(tables.user_fields.n_features, tables.item_fields.n_features, FACTORS)
    with torch.no_grad():
        model.user_factors.copy_(torch.from_numpy(tables.user_factors))
        model.item_factors.copy_(torch.from_numpy(tables.item_factors))
        scores = model.score(*(SparseBatch.of(part) for part in rows)).numpy()
    yield "second order, the model", _error(scores, theirs)


def check_myfm(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield a regression on users, items and genres.

    Every sample of the chain is a factorization machine.
    """
    import myfm
    from scipy import sparse

    x, pairs, genres = _design()
    rng = np.random.default_rng(1)
    target = rng.standard_normal(len(pairs))
    learner = myfm.MyFMRegressor(rank=FACTORS, random_seed=1)
    learner.fit(sparse.csr_matrix(x), target, n_iter=12, n_kept_samples=2)
    for number, sample in enumerate(learner.predictor_.samples):
        theirs = np.asarray(sample.predict_score(sparse.csr_matrix(x), []), dtype=np.float64)
        np.savez(folder / "fm.npz", w0=np.array(sample.w0), w=sample.w, V=sample.V)
        yield f"predictions of sample {number}", _error(_served("arrays", folder / "fm.npz", genres, pairs), theirs)


def check_lightfm(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield a hybrid model with item ids and genres, whose weights sum to 1."""
    from lightfm import LightFM
    from scipy import sparse

    _, pairs, genres = _design()
    rng = np.random.default_rng(2)
    chosen = rng.random(len(pairs)) < 0.2
    interactions = sparse.coo_matrix((np.ones(chosen.sum()), pairs[chosen].T), shape=(USERS, ITEMS))
    features = np.hstack([np.eye(ITEMS), genres]).astype(np.float32)
    features /= features.sum(axis=1, keepdims=True)
    for loss in ("warp", "bpr", "logistic"):
        model = LightFM(no_components=FACTORS, loss=loss, random_state=3)
        model.fit(interactions, item_features=sparse.csr_matrix(features), epochs=5)
        theirs = model.predict(pairs[:, 0], pairs[:, 1], item_features=sparse.csr_matrix(features)).astype(np.float64)
        np.savez(
            folder / "model.npz",
            user_embeddings=model.user_embeddings,
            user_biases=model.user_biases,
            item_embeddings=model.item_embeddings,
            item_biases=model.item_biases,
            user_ids=np.array([f"u{user}" for user in range(USERS)]),
            item_ids=np.array([f"i{item}" for item in range(ITEMS)]),
            item_features=features,
        )
        yield f"predictions, loss {loss!r}", _error(_served("lightfm", folder / "model.npz", None, pairs), theirs)


def check_xlearn(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield rows of a user, an item and its genres, without instance normalisation.

    The text format has six digits.
    """
    x, pairs, genres = _design()
    fields = np.repeat([0, 1, 2], [USERS, ITEMS, GENRES])
    rng = np.random.default_rng(4)
    for number, name in enumerate(("linear model", "FM", "FFM")):
        rows = [
            " ".join(f"{fields[feature]}:{feature}:1" if name == "FFM" else f"{feature}:1" for feature in np.flatnonzero(row))
            for row in x
        ]
        lines = [f"{label} {row}\n" for label, row in zip(rng.integers(0, 2, len(x)), rows, strict=True)]
        (folder / "train.txt").write_text("".join(lines), encoding="ascii")
        options = ["-s", str(number), "-k", "4", "-e", "3", "--no-norm", "-t", "model.txt", "-m", "model.bin"]
        _run(folder, "xlearn_train", "train.txt", *options)
        _run(folder, "xlearn_predict", "train.txt", "model.bin", "-o", "out.txt", "--no-norm")
        theirs = np.loadtxt(folder / "out.txt")
        yield f"predictions of the {name}", _error(_served("xlearn", folder / "model.txt", genres, pairs), theirs)


def _run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "USER": "xlearn"}  # its log file is named after the user, and it exits without one
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


def _design() -> tuple[Float64, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return every pair of a user and an item as rows of features.

    User, item, its genres; the pairs; the genres of the items.
    """
    genres = np.random.default_rng(0).random((ITEMS, GENRES)) < 0.4
    pairs = np.stack([part.reshape(-1) for part in np.meshgrid(np.arange(USERS), np.arange(ITEMS), indexing="ij")], axis=1)
    x = np.hstack([np.eye(USERS)[pairs[:, 0]], np.eye(ITEMS)[pairs[:, 1]], genres[pairs[:, 1]].astype(np.float64)])
    return x, pairs, genres


def _served(kind: str, file: Path, genres: npt.NDArray[np.bool_] | None, pairs: npt.NDArray[np.int64]) -> Float64:
    """Import a model, query the bundle for all items of all users, and return scores."""
    from recall.publish.importers.importer import run_import
    from recall.serving.recommender import Recommender
    from recall.serving.request import Request

    folder, mapping, items = file.parent, None, None
    if genres is not None:
        mapping, items = folder / "mapping.parquet", folder / "items.parquet"
        ids = [("user", "user_id", f"u{user}", "categorical", 0) for user in range(USERS)]
        ids += [("item", "item_id", f"i{item}", "categorical", 1) for item in range(ITEMS)]
        ids += [("item", "genre", f"g{genre}", "bag", 2) for genre in range(GENRES)]
        frame = pl.DataFrame(ids, schema=["side", "field", "value", "kind", "field_number"], orient="row")
        frame.with_row_index("feature").write_parquet(mapping)
        bags = [[f"g{genre}" for genre in np.flatnonzero(row)] for row in genres]
        pl.DataFrame({"item_id": [f"i{item}" for item in range(ITEMS)], "genre": bags}).write_parquet(items)
    run_import(kind, file, mapping, items, None, folder / "bundles", "parity", plain=True)
    recommender = Recommender.load(folder / "bundles")
    try:
        answers = recommender.recommend_batch([Request(f"u{user}", n=ITEMS) for user in range(USERS)])
    finally:
        recommender.close()
    scores = [{item.item_id: item.score + answer.user_offset for item in answer.items} for answer in answers]
    return np.array([scores[user][f"i{item}"] for user, item in pairs.tolist()])


def _tables(users: list[npt.NDArray[np.float32]], items: list[npt.NDArray[np.float32]]) -> "FMTables":
    from recall.features.csr import FeatureLayout
    from recall.models.serving.fm import FMTables

    def layout(part: list[npt.NDArray[np.float32]]) -> FeatureLayout:
        return FeatureLayout.of_sizes([(f"f{number}", len(one)) for number, one in enumerate(part)])

    user, item = np.concatenate(users), np.concatenate(items)
    no_weights = [np.zeros(len(side), dtype=np.float32) for side in (user, item)]
    return FMTables(layout(users), layout(items), user, no_weights[0], item, no_weights[1], 0.0)


def _rows(chosen: npt.NDArray[np.int64], sizes: list[int]) -> "SparseRows":
    from recall.features.csr import SparseRows

    n, fields = chosen.shape
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    indptr = np.arange(n + 1, dtype=np.int64) * fields
    features = (chosen + offsets).astype(np.int32).reshape(-1)
    return SparseRows(indptr, features, np.ones(n * fields, dtype=np.float32), int(sum(sizes)))


def _deepctr_layer() -> "torch.nn.Module":
    """Return only the FM layer, because the package imports tensorflow."""
    spec = find_spec("deepctr_torch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = ModuleType("deepctr_torch")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["deepctr_torch"] = package
    from deepctr_torch.layers.interaction import FM

    layer: torch.nn.Module = FM()
    return layer


def _error(ours: npt.NDArray[np.floating], theirs: Float64) -> float:
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


if __name__ == "__main__":
    sys.exit(main())
