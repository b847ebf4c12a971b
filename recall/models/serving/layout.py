"""Arrays of the tables of each kind of model, and tables from such arrays.

`CosineTables` scales the vectors of any of them to unit length, so that an inner product is a cosine.

Attributions need no kind: every model sums contributions of pairs of features, so rows of one or two groups of an item's
features isolate them. A user without features gets an item's own part, which of one feature is its first order.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from typing_extensions import override

from recall._arrays import Float32, Float64, Floats, Int64
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.base import Kind, ServingModel, WrappedModel
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


_TABLES: dict[Kind, Callable[..., ServingModel]] = {
    "lr": FMTables,
    "fm": FMTables,
    "fwfm": FwFMTables,
    "ffm": FFMTables,
    "sums": SumTables,
}


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
        folds = [] if self.rank is None else [arrays[name] for name in ("field_weights", "fold_users", "fold_items")]
        tables = _TABLES[self.kind](*common, *folds)
        if self.cosine:
            tables = CosineTables(tables)
        if self.popularity:
            factor = PopularityFactor(arrays["user_popularity"], arrays["item_popularity"], arrays["item_levels"])
            tables = PopularityTables(tables, factor)
        return tables


def unwrapped(tables: ServingModel) -> ServingModel:
    """Return a model without popularity factor and without scaling to unit length."""
    while isinstance(tables, PopularityTables | CosineTables):
        tables = tables.of
    return tables


_AT_ONCE = 256  # pairs of an item's groups: a field-aware model takes tens of KB for each
_ROUNDING = 1e-12  # share of the largest own part of a group, below which a difference of own parts is zero


@dataclass(frozen=True, slots=True)
class Attribution:
    """Contributions of groups of entries that sum to an inner product.

    Groups are fields, or single entries.

    Attributes:
        across: second order between a group of the user and one of the item, float64 [user groups, item groups].
        first: first order of an item's group, float64 [item groups].
        second: second order within the item, float64 [item groups, item groups]: above the diagonal between two groups, on it
            within one, and zero below.
    """

    across: Float64
    first: Float64
    second: Float64

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(self.across.sum() + self.first.sum() + self.second.sum())

    def scaled(self, factor: float) -> "Attribution":
        """Return all parts times a factor."""
        return Attribution(self.across * factor, self.first * factor, self.second * factor)


class _Groups(NamedTuple):
    """Assignment of a row's entries to groups.

    Attributes:
        of: int64 [nnz], the group of each entry.
        n: number of groups.
    """

    of: Int64
    n: int

    def rows(self, row: SparseRows) -> SparseRows:
        """Return one row for each group."""
        return SparseRows.from_coo(self.of, row.indices, row.weights, self.n, row.n_features)

    def sums(self, values: Floats) -> Float64:
        """Return the sum of the entries' values by group: float [nnz] -> float64 [n]."""
        return np.bincount(self.of, values, self.n).astype(np.float64, copy=False)


def field_parts(
    tables: ServingModel, user: SparseRows, item: SparseRows, user_fields: FeatureLayout, item_fields: FeatureLayout
) -> Attribution:
    """Attribute an inner product to fields.

    Args:
        tables: the model.
        user: one row.
        item: one row.
        user_fields: of the user.
        item_fields: of the item.
    """
    users, items = (_Groups(fields.of(row.indices), len(fields)) for fields, row in ((user_fields, user), (item_fields, item)))
    return _parts(tables, user, item, users, items)


def entry_parts(tables: ServingModel, user: SparseRows, item: SparseRows) -> Attribution:
    """Attribute an inner product to single entries.

    Args:
        tables: the model.
        user: one row.
        item: one row.
    """
    users, items = (_Groups(np.arange(row.nnz), row.nnz) for row in (user, item))
    return _parts(tables, user, item, users, items)


def _parts(tables: ServingModel, user: SparseRows, item: SparseRows, users: _Groups, items: _Groups) -> Attribution:
    if isinstance(tables, PopularityTables):
        parts = _parts(tables.of, user, item, users, items).scaled(float(tables.factor.scales(item)[0]))
        q = users.sums(user.weights * tables.factor.users[user.indices].astype(np.float64))
        p = items.sums(item.weights * tables.factor.items[item.indices].astype(np.float64))
        return Attribution(parts.across + np.outer(q, p), parts.first, parts.second)
    if isinstance(tables, CosineTables):
        return _parts(tables.of, user, item, users, items).scaled(1 / tables.lengths(user, item))
    if not item.nnz:
        return Attribution(np.zeros((users.n, items.n)), np.zeros(items.n), np.zeros((items.n, items.n)))
    absent, groups = SparseRows.empty(1, user.n_features), items.rows(item)
    entries = _Groups(np.arange(item.nnz), item.nnz).rows(item)
    with_absent = users._replace(n=users.n + 1).rows(user)
    _, products = tables.split(with_absent, SparseRows.vstack([groups, entries]))
    own, across = products[-1, : items.n], products[:-1, : items.n] - products[-1, : items.n]
    first = items.sums(products[-1, items.n :])
    second = np.diag(own - first)
    one, other = np.triu_indices(items.n, 1)
    for start in range(0, len(one), _AT_ONCE):
        left, right = one[start : start + _AT_ONCE], other[start : start + _AT_ONCE]
        _, both = tables.split(absent, SparseRows.hstack([groups.take(left), groups.take(right)]))
        second[left, right] = both[0] - own[left] - own[right]
    second[np.abs(second) <= _ROUNDING * np.abs(own).max()] = 0.0
    return Attribution(across, first, second)
