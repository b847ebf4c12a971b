"""Attribute <user_vector, item_vector> to single features.

Every model sums contributions of pairs of features, so rows of one or two features isolate them, whatever the model: a user
without features gets an item's own part, which of one feature is its first order.
"""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Float64
from recall.features.csr import SparseRows
from recall.models.serving.base import ServingModel
from recall.models.serving.layout import CosineTables
from recall.models.serving.popularity import PopularityTables

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
