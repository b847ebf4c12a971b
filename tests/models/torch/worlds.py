"""Random models of every kind, random rows, and scores by definition."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from hypothesis import strategies as st

from recall.features.csr import FeatureLayout, SparseRows
from recall.models.torch.base import Model, SparseBatch
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.fwfm import FieldWeightedFM
from recall.models.torch.registry import SMALLEST, Cosine, CosineFieldAwareFM, CosineFieldWeightedFM, CosineFM

KINDS = {
    "lr": FactorizationMachine,
    "fm": FactorizationMachine,
    "fwfm": FieldWeightedFM,
    "ffm": FieldAwareFM,
    "cosine fm": CosineFM,
    "cosine fwfm": CosineFieldWeightedFM,
    "cosine ffm": CosineFieldAwareFM,
}


@dataclass(frozen=True)
class World:
    """A model with random float64 parameters, and n rows of each side with 0, 1 and many features per field."""

    model: Model
    user_fields: FeatureLayout
    item_fields: FeatureLayout
    users: SparseRows
    items: SparseRows

    def batches(self) -> tuple[SparseBatch, SparseBatch]:
        return (
            SparseBatch.of(self.users, torch.float64, self.user_fields),
            SparseBatch.of(self.items, torch.float64, self.item_fields),
        )


def fields_of(rng: np.random.Generator, side: str) -> FeatureLayout:
    return FeatureLayout.of_sizes(
        [(f"{side}{number}", int(size)) for number, size in enumerate(rng.integers(1, 5, rng.integers(1, 4)))]
    )


def rows_of(rng: np.random.Generator, fields: FeatureLayout, n: int) -> SparseRows:
    """Draw rows of distinct features in any order, some empty, with weights of both signs."""
    lengths = rng.integers(0, fields.n_features + 1, n)
    return SparseRows(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([rng.permutation(fields.n_features)[:length] for length in lengths]).astype(np.int32),
        rng.normal(size=lengths.sum()).astype(np.float32),
        fields.n_features,
    )


def model_of(kind: str, user_fields: FeatureLayout, item_fields: FeatureLayout, k: int) -> Model:
    features, fields = (user_fields.n_features, item_fields.n_features), (len(user_fields), len(item_fields))
    made = KINDS[kind]
    return made(*features, 0 if kind == "lr" else k, *([] if issubclass(made, FactorizationMachine) else fields))


def random_world(kind: str, seed: int, n: int = 4, k: int = 3) -> World:
    rng = np.random.default_rng(seed)
    user_fields, item_fields = fields_of(rng, "user"), fields_of(rng, "item")
    model = model_of(kind, user_fields, item_fields, k).double()
    with torch.no_grad():
        for parameter in model.parameters():
            # float32 values, which the numpy tables represent exactly
            parameter.copy_(torch.from_numpy(rng.normal(size=tuple(parameter.shape)).astype(np.float32)))
    return World(model, user_fields, item_fields, rows_of(rng, user_fields, n), rows_of(rng, item_fields, n))


def worlds(kind: str) -> st.SearchStrategy[World]:
    return st.builds(random_world, st.just(kind), st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4))


def naive_scores(world: World) -> np.ndarray:
    """Score each user row with the item row of the same number by definition: sums over features and pairs."""
    return np.array([_naive(world, row) for row in range(len(world.users))])


def _naive(world: World, row: int) -> float:
    model = world.model
    features = []
    for side, rows, fields, first in (
        ("user", world.users, world.user_fields, 0),
        ("item", world.items, world.item_fields, len(world.user_fields)),
    ):
        weights = getattr(model, f"{side}_weights").detach().numpy()
        factors = getattr(model, f"{side}_factors").detach().numpy()
        for entry in range(rows.indptr[row], rows.indptr[row + 1]):
            feature = rows.indices[entry]
            field = first + np.flatnonzero(fields.offsets <= feature)[-1]
            features.append((side, field, float(rows.weights[entry]), weights[feature], factors[feature]))
    single = {"user": model.bias.item(), "item": 0.0}
    for side, _, x, w, _ in features:
        single[side] += x * w
    pairs = {"user": 0.0, "across": 0.0, "item": 0.0}
    for (side, f, x, _, v), (other, g, y, _, z) in combinations(features, 2):
        pairs[side if side == other else "across"] += _pair(model, f, v, g, z) * x * y
    if not isinstance(model, Cosine):
        return sum(single.values()) + sum(pairs.values())
    return _cosine(model, world, row, pairs["across"], single["item"] + pairs["item"])


def _pair(model: Model, f: int, v: np.ndarray, g: int, z: np.ndarray) -> float:
    if isinstance(model, FieldWeightedFM):
        return model.field_weights[min(f, g), max(f, g)].item() * float(v @ z)
    return float(v[g] @ z[f]) if isinstance(model, FieldAwareFM) else float(v @ z)


def _cosine(model: Cosine, world: World, row: int, across: float, own: float) -> float:
    users, items = world.batches()
    with torch.no_grad():
        user, item = model.of.user_vectors(model, users)[row], model.of.item_vectors(model, items)[row]
    return (across + own) / max(SMALLEST, float(user.norm())) / max(SMALLEST, float(item.norm()))
