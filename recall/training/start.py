"""Initial parameters: those of a trained model, or singular vectors.

The latter are the leading singular vectors of the normalised interactions. With X and Z the feature rows of contexts and items,
and S the observed weights between them, N = X' S Z is how often each user feature was observed with each item feature; of ids
alone it is the interaction matrix. Factors begin as the leading singular vectors of D_u^-1/2 N D_z^-1/2, D being the sums of
rows and of columns. Before any learning, a history then scores items by a smoothed item graph (as GF-CF, Shen et al. 2021). N
is never built: they come from subspace iteration (Halko et al. 2011).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall._arrays import Bool, Float32, Int32, Int64, UInt8
from recall.config.schema import Side
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.split import REMEMBERED
from recall.errors import TrainingError
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import FIRST, MISSING, UNKNOWN
from recall.models.torch.base import Model, side_of
from recall.training.als import sparse_kernels
from recall.training.loop import Learner
from recall.training.pairs import ObservedPairs
from recall.training.ranks import Ranks

_BEYOND = 16  # oversampling: further vectors, with which the wanted ones converge faster
_ITERATIONS = 4  # of multiplying by the matrix and its transpose
_LENGTH = 0.3  # mean length of an embedding; other features begin at `scale`. On toys, 0.1 takes a sweep longer


class _Interactions:
    """N = X' S Z, [user features, item features], as an operator."""

    def __init__(self, pairs: ObservedPairs) -> None:
        self._users, self._items = pairs.contexts, pairs.items
        self._observed = SparseRows(pairs.indptr, pairs.observed, pairs.weights, len(pairs.items))
        self._ranks = pairs.ranks

    def times(self, vectors: Float32) -> Float32:
        """N vectors."""
        out = self._pushed(self._users, self._pulled(self._observed, self._pulled(self._items, vectors)))
        self._ranks.add_up(out)
        return out

    def transposed_times(self, vectors: Float32) -> Float32:
        """N' vectors."""
        out = self._pushed(self._items, self._pushed(self._observed, self._pulled(self._users, vectors)))
        self._ranks.add_up(out)
        return out

    def _pulled(self, rows: SparseRows, vectors: Float32) -> Float32:
        out = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
        features = np.arange(rows.n_features, dtype=np.int32)
        sparse_kernels.gather(*_entries(rows), features, vectors, out)
        return out

    def _pushed(self, rows: SparseRows, vectors: Float32) -> Float32:
        out = np.zeros((rows.n_features, vectors.shape[1]), dtype=np.float32)
        sparse_kernels.scatter(*_entries(rows), vectors, out)
        return out


def of_ids(pairs: ObservedPairs, encoder: FeatureEncoder) -> ObservedPairs:
    """Return the pairs with ids and histories as their only features.

    Args:
        pairs: observed pairs.
        encoder: of their features.

    Raises:
        TrainingError: No field identifies the items, or none the users.
    """
    users, items = [*encoder.id_blocks("user"), *encoder.history_blocks], encoder.id_blocks("item")
    if not users or not items:
        raise TrainingError(
            "no field of the user's id or history" if items else "no field of the item's id",
            why='start = "singular" begins with the singular vectors of the interactions between the two',
            hint='Add the field, or set start = "random"',
        )
    return replace(pairs, contexts=pairs.contexts.only(users), items=pairs.items.only(items))


@torch.no_grad()
def start_from_singular_vectors(model: Model, pairs: ObservedPairs, seed: int) -> None:
    """Set the factors of all features in a pair; the others do not change.

    Args:
        model: initialised; a field-aware one begins with the same factors for every field.
        pairs: observed pairs, such as `of_ids`.
        seed: of the first subspace.
    """
    if model.k == 0:
        return
    matrix, (n_users, n_items) = _Interactions(pairs), (pairs.contexts.n_features, pairs.items.n_features)
    of_users = _inverse_roots(matrix.times(np.ones((n_items, 1), dtype=np.float32)))
    of_items = _inverse_roots(matrix.transposed_times(np.ones((n_users, 1), dtype=np.float32)))
    width = min(model.k + _BEYOND, n_users, n_items)
    right = of_items * np.random.default_rng(seed).standard_normal((n_items, width), dtype=np.float32)
    for _ in range(_ITERATIONS):
        left = np.linalg.qr(of_users * matrix.times(of_items * right))[0]
        right = np.linalg.qr(of_items * matrix.transposed_times(of_users * left))[0]
    left, _, turn = np.linalg.svd(of_users * matrix.times(of_items * right), full_matrices=False)
    for factors, vectors, roots in ((model.user_factors, left, of_users), (model.item_factors, right @ turn.T, of_items)):
        there, kept = np.flatnonzero(roots), vectors[:, : model.k]
        kept = torch.from_numpy(kept[there] * (_LENGTH / np.linalg.norm(kept[there], axis=1).mean()))
        between = factors.shape[1:-1]  # the fields of a field-aware machine
        factors[torch.from_numpy(there), ..., : kept.shape[1]] = kept.view(len(there), *(1 for _ in between), -1)


def _inverse_roots(sums: Float32) -> Float32:
    """Return sums^-1/2, and 0 for sums of 0."""
    return np.where(sums > 0, np.maximum(sums, np.finfo(np.float32).tiny) ** -0.5, 0).astype(np.float32)


def _entries(rows: SparseRows) -> tuple[Int64, Int32, Float32, UInt8]:
    return rows.indptr, rows.indices, rows.weights, np.zeros(len(rows), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Initial parameters of a model.

    Attributes:
        parameters: float32, by the names of the model's parameters and of their shapes.
        source: identifies them in the fingerprint of a run, so that an interrupted run continues from the same start only.
        shares: for "user" and "item", float32 [n_features] in [0, 1]: step of each row from its start towards the solution of
            the data. None means 1 for all.
    """

    parameters: Mapping[str, Tensor]
    source: str
    shares: Mapping[Side, Tensor] | None = None

    @staticmethod
    def of(arrays: Mapping[str, Float32], rows: Mapping[Side, Int64], source: str) -> "WarmStart":
        """Take rows of published tables.

        Args:
            arrays: by name; those whose names start with user_ or item_ have a row for each feature.
            rows: for "user" and "item", int64 [n_features]: the row of those tables that each feature begins with.
            source: the attribute.
        """
        parameters = {}
        for name, array in arrays.items():
            side = side_of(name)
            parameters[name] = torch.from_numpy(array.copy() if side is None else array[rows[side]])
        return WarmStart(parameters, source)

    @torch.no_grad()
    def give(self, model: Model) -> None:
        """Write the parameters into a model."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.parameters[name].view_as(parameter))


class ProximalLearner:
    """Proximal learner: keeps rows without data, and pulls others towards the start.

    After every sweep a row is start + share * (swept - start). Scores do not change when all factors are turned by
    one orthogonal matrix, and a learner may turn them; so the start is first turned to where it is closest to the swept
    factors (Schoenemann 1966).
    """

    def __init__(self, learner: Learner, start: WarmStart, seen: ObservedPairs | None, masked: bool = False) -> None:
        """Wrap a learner whose model is at the start.

        Args:
            learner: does the sweeps.
            start: where its model begins.
            seen: pairs of a learner that shrinks features without data to zero; None for a learner that does not.
            masked: whether item rows are also masked, which trains the rows of unknown and missing values.
        """
        self._learner, self.model, self.note = learner, learner.model, learner.note
        self._start = start.parameters
        trained: dict[Side, Bool | None] = {"user": None, "item": None}
        if seen is not None:
            roles = seen.untrained.roles
            offsets = roles.fields.offsets if masked and roles is not None else np.empty(0, dtype=np.int64)
            trained = {
                "user": _trained_features(seen.contexts, seen.untrained.features, seen.ranks),
                "item": _trained_features(seen.items, np.concatenate([offsets + UNKNOWN, offsets + MISSING]), Ranks()),
            }
        self._shares: dict[Side, Tensor] = {side: _share(start, side, met) for side, met in trained.items()}

    def sweep(self) -> float:
        """Train one epoch, then pull towards the start; return the loss."""
        loss = self._learner.sweep()
        if any(bool((share < 1).any()) for share in self._shares.values()):
            self._pull_to_start()
        return loss

    def state(self) -> dict[str, Tensor]:
        """Return the state of the learner."""
        return self._learner.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self._learner.restore(state)

    @torch.no_grad()
    def _pull_to_start(self) -> None:
        tables = [(name, table, self._shares[side]) for name, table in self.model.named_parameters() if (side := side_of(name))]
        rotation = self._closest_rotation({name: table for name, table, _ in tables if table.dim() > 1})
        for name, table, share in tables:
            start = self._start[name] @ rotation if table.dim() > 1 else self._start[name]
            share = share.view(-1, *[1] * (table.dim() - 1))
            # a share of 1 does not change a row, not even by rounding
            table.copy_(torch.where(share == 1, table, torch.lerp(start, table, share)))

    def _closest_rotation(self, factors: Mapping[str, Tensor]) -> Tensor:
        """Return the orthogonal matrix that rotates the start closest to the factors."""
        k = self.model.k
        moment = torch.zeros(k, k, dtype=torch.float64)
        for name, table in factors.items():
            start = self._start[name].flatten(0, -2).double()  # of a field-aware model one row for each feature and field
            moment += start.t() @ table.flatten(0, -2).double()
        left, _, right = torch.linalg.svd(moment)
        rotation: Tensor = left @ right
        return rotation.float()


def _trained_features(rows: SparseRows, others: Int64, ranks: Ranks) -> Bool:
    """Return which features some row has, or are among `others`: bool [n_features]."""
    counts = rows.counts()
    ranks.add_up(counts)
    met = counts > 0
    met[others] = True
    return met


def _share(start: WarmStart, side: Side, met: Bool | None) -> Tensor:
    """Return how far each feature may move, 0 for unused ones: float32 [n_features]."""
    allowed = torch.ones(len(start.parameters[f"{side}_weights"])) if start.shares is None else start.shares[side]
    return allowed if met is None else torch.where(torch.from_numpy(met), allowed, 0.0)


# Learning share of each feature in incremental training without the old data.

Counts = npt.NDArray[np.float64]


def shares(dataset: Dataset, encoder: FeatureEncoder, remember: float = 1.0) -> dict[Side, Tensor]:
    """Return new / (new + remember * old) observations of each feature.

    This combines an old and a new mean into the mean of all observations. Old observations are counted over the remembered
    interactions. These have no context columns, and rows of unknown and missing values represent more than their own
    observations: such features get the share of all interactions that are new.

    Args:
        dataset: with remembered interactions.
        encoder: gives the features.
        remember: weight of an old observation relative to a new one, at least 0.

    Returns:
        For "user" and "item" float32 [n_features], each in [0, 1].
    """
    old, new = dataset.select(REMEMBERED), dataset.training
    whole = len(new) / (len(new) + remember * len(old))
    catalogue, item = encoder.encode_items(dataset.items), dataset.events["item"].to_numpy()
    of_users, of_items = list[Counts](), list[Counts]()
    for positions in (new, old):
        contexts = build_contexts(dataset, encoder, positions)
        of_users.append(_counts(contexts.features, np.bincount(contexts.context, minlength=len(contexts))))
        of_items.append(_counts(catalogue, np.bincount(item[positions], minlength=len(dataset.items))))
    users, items = (_share_of_new(seen, remember * before) for seen, before in (of_users, of_items))
    for share, blocks in ((users, encoder.user_blocks), (items, encoder.item_blocks)):
        for block in blocks:
            forgotten = block.size if encoder.reads_context(block.field) else FIRST
            share[block.offset : block.offset + forgotten] = whole
    return {"user": torch.from_numpy(users), "item": torch.from_numpy(items)}


def _share_of_new(new: Counts, old: Counts) -> Float32:
    return (new / np.where(new > 0, new + old, 1.0)).astype(np.float32)


def _counts(rows: SparseRows, times: npt.NDArray[np.integer]) -> Counts:
    """Count the features when row r counts `times[r]` times: float64 [n_features]."""
    weights = np.repeat(times, np.diff(rows.indptr)).astype(np.float64)
    return np.bincount(rows.indices, weights, rows.n_features).astype(np.float64, copy=False)
