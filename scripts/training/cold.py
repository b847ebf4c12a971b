"""New items, known by features alone, beside the feature-aware iALS of irspack."""

import json
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.data.split import TEST
from recall.evaluation.exact_topk import ItemLists, rank_metrics
from recall.evaluation.protocol import HeldOutRequests, held_out, requests
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.training.train import train
from training.methods import Run, launch

AT = 20
HELD_OUT: dict[str, Any] = {
    "name": "ml-1m-new-items",
    "data": {
        "interactions": "interactions.parquet",
        "items": "items.parquet",
        "split": {"by": "items", "test": 0.1, "valid": 0},
    },
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
        "year": {"side": "item", "kind": "categorical"},
        "genres": {"side": "item", "kind": "bag"},
    },
    "train": {"objective": "square"},
    "evaluation": {"mask": "user"},
}
"""A tenth of the items is held out; fields are ids, and the two features of items."""

SETTINGS: dict[str, Any] = {"alpha0": 0.1, "reg": 0.01, "nu": 1.0, "solver_type": "CG", "lambda_item_feature": 0.1}
"""Of irspack; chosen on another hold-out, seed 1."""


@dataclass(frozen=True, slots=True)
class ColdSplit:
    """Interactions without the held-out items, and requests for these.

    Attributes:
        dataset: with the held-out items in its catalogue.
        encoder: fitted on its training part.
        config: of the run.
        held: the requests.
        trained: int64 [t], rows of the items that train.
        unseen: int64 [m], rows of the held-out items.
        features: one row for each item of the catalogue, without its id.
    """

    dataset: Dataset
    encoder: FeatureEncoder
    config: RunConfig
    held: HeldOutRequests
    trained: npt.NDArray[np.int64]
    unseen: npt.NDArray[np.int64]
    features: SparseRows

    @staticmethod
    def read(folder: Path, k: int, seed: int) -> "ColdSplit":
        """Hold out a tenth of the items.

        Args:
            folder: of the tables of ml-1m.
            k: number of factors.
            seed: which items are held out.
        """
        config = parse_config({**HELD_OUT, "model": {"k": k}, "seed": seed})
        dataset = load_dataset(config, folder)
        encoder = FeatureEncoder.fit(dataset)
        events = dataset.events["item"].to_numpy()
        test = dataset.select(TEST)
        unseen = np.unique(events[test]).astype(np.int64)
        trained = np.setdiff1d(np.unique(events[dataset.training]), unseen).astype(np.int64)
        features = encoder.encode_items(dataset.items).without(encoder.id_blocks("item"))
        return ColdSplit(
            dataset, encoder, config, held_out(dataset, config.evaluation, test, dataset.training), trained, unseen, features
        )

    def judged(self, users: npt.NDArray[np.float32], items: npt.NDArray[np.float32]) -> tuple[float, float]:
        """Return NDCG among all items, and among the held-out ones.

        Args:
            users: float32 [q, d], a vector of each request.
            items: float32 [items, d].
        """
        name = f"ndcg@{AT}"
        everything = rank_metrics(users, items, self.held.relevant, self.held.masked, [AT])[name]
        place = np.full(len(items), -1)
        place[self.unseen] = np.arange(len(self.unseen))
        relevant = self.held.relevant
        moved = ItemLists(relevant.indptr, place[relevant.items].astype(np.int32))
        nothing = ItemLists.empty(len(self.held))
        return everything, rank_metrics(users, items[self.unseen], moved, nothing, [AT])[name]


def own(split: ColdSplit) -> tuple[float, tuple[float, float]]:
    """Train with this library; return the seconds of training, and both figures."""
    trained = train(split.config, split.dataset, split.encoder, lambda _: None)
    with tempfile.TemporaryDirectory() as root:
        export(trained.model, trained.encoder, split.dataset, split.config, Path(root), popularity=trained.popularity)
        with closing(Recommender.load(Path(root))) as recommender:
            asked = requests(split.dataset, split.held, recommender.bundle.encoder, AT)
            users = np.asarray(recommender.user_vectors(asked), dtype=np.float32)
            bundle = recommender.bundle
            rows = bundle.item_ids.rows(split.dataset.items[split.dataset.schema.item_id].to_list())
            items = np.array(bundle.item_vectors[rows], dtype=np.float32)
    return trained.seconds, split.judged(users[:, : items.shape[1]], items[:, : users.shape[1]])


def irspack(split: ColdSplit, python: str, settings: dict[str, Any], threads: int) -> tuple[float, tuple[float, float]]:
    """Train with irspack in a separate process.

    Args:
        split: the hold-out.
        python: interpreter with irspack.
        settings: of the method.
        threads: to train with.

    Returns:
        The seconds until the best epoch by NDCG among all items, and both figures there.
    """
    events = split.dataset.events
    training = split.dataset.training
    place = np.full(len(split.features), -1)
    place[split.trained] = np.arange(len(split.trained))
    pairs = ItemLists.from_pairs(
        events["user"].to_numpy()[training], place[events["item"].to_numpy()[training]], len(split.dataset.users)
    )
    figures: list[tuple[float, float]] = []

    def judge(kept: Any) -> float:
        items = np.empty((len(split.features), kept["items"].shape[1]), dtype=np.float32)
        items[split.trained], items[split.unseen] = kept["items"], kept["others"]
        figures.append(split.judged(kept["users"][split.held.user], items))
        return figures[-1][0]

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "pairs.npz"
        given = {**_csr("features", split.features.take(split.trained)), **_csr("others", split.features.take(split.unseen))}
        np.savez(path, indptr=pairs.indptr, indices=pairs.items, items=len(split.trained), **given)
        plain = json.dumps({**settings, "k": split.config.model.k, "threads": threads, "steps": 16})
        run: Run = launch("ials_features", python, path, Path(scratch), plain, threads, judge)
    best = int(np.argmax(run.ndcg))
    return run.seconds[best], figures[best]


def _csr(name: str, rows: SparseRows) -> dict[str, Any]:
    parts = {"indptr": rows.indptr, "indices": rows.indices, "weights": rows.weights, "n": rows.n_features}
    return {f"{name}_{part}": value for part, value in parts.items()}
