"""Arrays of the tables of each kind of model, and tables from such arrays.

`CosineTables` scales the vectors of any of them to unit length, so that an inner product is a cosine.

Attributions to single features need no kind: every model sums contributions of pairs of features, so rows of one or two
features isolate them. A user without features gets an item's own part, which of one feature is its first order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.base import Attribution, Kind, ServingModel, WrappedModel
from recall.models.serving.ffm import FFMTables
from recall.models.serving.fm import FMTables, SumTables
from recall.models.serving.fwfm import FwFMTables
from recall.models.serving.popularity import PopularityFactor, PopularityTables

SMALLEST: Final = 1e-6
"""Vectors that are shorter are divided by this, and not by their length: zeros stay zeros, and rounding is not blown up."""


@dataclass(frozen=True, slots=True)
class CosineTables(WrappedModel):
    """Another model with vectors scaled to unit length, and without a user offset."""

    of: ServingModel

    @property
    @override
    def dim(self) -> int:
        """Of the other model."""
        return self.of.dim

    @override
    def user_vectors(self, rows: SparseRows) -> Float32:
        return _scaled(self.of.user_vectors(rows))

    @override
    def item_vectors(self, rows: SparseRows) -> Float32:
        return _scaled(self.of.item_vectors(rows))

    @override
    def user_offset(self, rows: SparseRows) -> Float64:
        """0 for each of n rows."""
        return np.zeros(len(rows))

    @override
    def split(self, users: SparseRows, items: SparseRows) -> tuple[Float64, Float64]:
        _, products = self.of.split(users, items)
        lengths = _lengths(self.of.user_vectors(users))[:, None] * _lengths(self.of.item_vectors(items))
        return np.zeros(len(users)), products / lengths

    @override
    def explain(self, user: SparseRows, item: SparseRows) -> Attribution:
        return self.of.explain(user, item) * (1 / self.lengths(user, item))

    def lengths(self, user: SparseRows, item: SparseRows) -> float:
        """Return the product of the lengths of both vectors, which divides the score.

        Args:
            user: one row.
            item: one row.
        """
        return float((_lengths(self.of.user_vectors(user)) * _lengths(self.of.item_vectors(item)))[0])

    @override
    def arrays(self) -> dict[str, Float32]:
        """Return the arrays of the other model."""
        return self.of.arrays()


def _scaled(vectors: Float32) -> Float32:
    """In place: the vectors are the caller's own."""
    vectors /= _lengths(vectors)[:, None].astype(np.float32)
    return vectors


def _lengths(vectors: Float32) -> Float64:
    """float32 [n, dim] -> float64 [n], none below SMALLEST."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    return np.asarray(np.maximum(np.sqrt(squares), SMALLEST), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Layout:
    """Properties besides the fields that decide the shapes of a model's tables.

    Attributes:
        kind: of the model.
        k: number of factors of one embedding.
        rank: parts of a folded model's vectors; None for a kind that is not folded.
        cosine: whether vectors are scaled to unit length.
        popularity: whether there is a popularity factor.
    """

    kind: Kind
    k: int
    rank: int | None
    cosine: bool
    popularity: bool = False

    @staticmethod
    def of(tables: ServingModel) -> "Layout":
        """Return the layout of a model."""
        plain = unwrapped(tables)
        return Layout(
            tables.kind,
            tables.k,
            plain.rank if isinstance(plain, FwFMTables) else None,
            cosine=isinstance(tables.of if isinstance(tables, PopularityTables) else tables, CosineTables),
            popularity=isinstance(tables, PopularityTables),
        )

    def shapes(self, users: FeatureLayout, items: FeatureLayout) -> dict[str, tuple[int, ...]]:
        """Return the shape of every array by name.

        Args:
            users: the user fields.
            items: the item fields.
        """
        n_fields = len(users) + len(items)
        embedding = (n_fields, self.k) if self.kind == "ffm" else (self.k,)
        shapes: dict[str, tuple[int, ...]] = {
            "user_factors": (users.n_features, *embedding),
            "user_weights": (users.n_features,),
            "item_factors": (items.n_features, *embedding),
            "item_weights": (items.n_features,),
            "bias": (1,),
        }
        if self.rank is not None:
            shapes |= {
                "field_weights": (n_fields, n_fields),
                "fold_users": (len(users), self.rank),
                "fold_items": (len(items), self.rank),
            }
        if self.popularity:
            shapes |= {
                "user_popularity": (users.n_features,),
                "item_popularity": (items.n_features,),
                "item_levels": (items.n_features,),
            }
        return shapes

    def tables(self, arrays: Mapping[str, Float32], users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        """Build a model from arrays of these shapes.

        Args:
            arrays: by name.
            users: the user fields.
            items: the item fields.
        """
        common = (
            users,
            items,
            arrays["user_factors"],
            arrays["user_weights"],
            arrays["item_factors"],
            arrays["item_weights"],
            float(arrays["bias"][0]),
        )
        tables: ServingModel
        match self.kind:
            case "fm" | "lr":
                tables = FMTables(*common)
            case "fwfm":
                tables = FwFMTables(*common, arrays["field_weights"], arrays["fold_users"], arrays["fold_items"])
            case "ffm":
                tables = FFMTables(*common)
            case "sums":
                tables = SumTables(*common)
        if self.cosine:
            tables = CosineTables(tables)
        if self.popularity:
            factor = PopularityFactor(arrays["user_popularity"], arrays["item_popularity"], arrays["item_levels"])
            tables = PopularityTables(tables, users, items, factor)
        return tables


def unwrapped(tables: ServingModel) -> ServingModel:
    """Return a model without popularity factor and without scaling to unit length."""
    while isinstance(tables, PopularityTables | CosineTables):
        tables = tables.of
    return tables


_AT_ONCE = 256  # pairs of an item's features: a field-aware model takes tens of KB for each


@dataclass(frozen=True, slots=True)
class EntryParts:
    """All of it adds up to the inner product.

    Attributes:
        across: second order between entries of the user and of the item, float64 [user entries, item entries].
        first: first order of an item's entry, float64 [item entries].
        second: second order of two entries of the item, float64 [item entries, item entries], zero but above the diagonal.
    """

    across: Float64
    first: Float64
    second: Float64


def entry_parts(tables: ServingModel, user: SparseRows, item: SparseRows) -> EntryParts:
    """Return the contributions of features.

    Args:
        tables: the model.
        user: one row.
        item: one row.
    """
    if isinstance(tables, PopularityTables):
        scale, parts = float(tables.factor.scales(item)[0]), entry_parts(tables.of, user, item)
        q, p = tables.factor.users[user.indices].astype(np.float64), tables.factor.items[item.indices].astype(np.float64)
        added = np.outer(user.weights * q, item.weights * p)
        return EntryParts(parts.across * scale + added, parts.first * scale, parts.second * scale)
    if isinstance(tables, CosineTables):
        lengths = tables.lengths(user, item)
        parts = entry_parts(tables.of, user, item)
        return EntryParts(parts.across / lengths, parts.first / lengths, parts.second / lengths)
    if not item.nnz:
        return EntryParts(np.zeros((user.nnz, 0)), np.zeros(0), np.zeros((0, 0)))
    absent = SparseRows.empty(1, user.n_features)
    _, products = tables.split(SparseRows.vstack([_apart(user), absent]), _apart(item))
    first = products[-1]
    second = np.zeros((item.nnz, item.nnz))
    one, other = np.triu_indices(item.nnz, 1)
    for start in range(0, len(one), _AT_ONCE):
        left, right = one[start : start + _AT_ONCE], other[start : start + _AT_ONCE]
        _, own = tables.split(absent, _pairs(item, left, right))
        second[left, right] = own[0] - first[left] - first[right]
    return EntryParts(products[:-1] - first, first, second)


def _apart(row: SparseRows) -> SparseRows:
    """Every entry of one row as a row of its own."""
    return SparseRows(np.arange(row.nnz + 1, dtype=np.int64), row.indices, row.weights, row.n_features)


def _pairs(row: SparseRows, left: np.typing.NDArray[np.intp], right: np.typing.NDArray[np.intp]) -> SparseRows:
    """Rows of two entries of one row."""
    entries = np.stack([left, right], axis=1).ravel()
    indptr = np.arange(0, len(entries) + 1, 2, dtype=np.int64)
    return SparseRows(indptr, row.indices[entries], row.weights[entries], row.n_features)
