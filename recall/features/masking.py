"""Rows as they would be if some of their fields said less."""

from collections.abc import Iterable, Sequence

import numpy as np

from recall.config.schema import Side
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.encoder import FeatureEncoder


def without(rows: SparseRows, blocks: Iterable[FeatureBlock]) -> SparseRows:
    """Drop the features of some blocks, as for a model without those fields.

    Args:
        rows: n rows.
        blocks: to drop.
    """
    kept = np.ones(rows.nnz, dtype=np.bool_)
    for block in blocks:
        kept &= (rows.indices < block.offset) | (rows.indices >= block.offset + block.size)
    indptr = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
    return SparseRows(indptr, rows.indices[kept], rows.weights[kept], rows.n_features)


def standing_in(rows: SparseRows, blocks: Sequence[FeatureBlock], value: int) -> SparseRows:
    """Add one feature of weight 1 in each of some blocks.

    Args:
        rows: n rows.
        blocks: where it is added.
        value: row in each block, such as UNKNOWN or MISSING.
    """
    singles = [
        SparseRows.one_hot(np.full(len(rows), block.offset + value, dtype=np.int32), rows.n_features) for block in blocks
    ]
    return SparseRows.hstack([without(rows, blocks), *singles])


def id_blocks(encoder: FeatureEncoder, side: Side) -> tuple[FeatureBlock, ...]:
    """Return the blocks of fields that read an id column, crosses included.

    Args:
        encoder: of the model.
        side: whose id.
    """
    column = encoder.schema.user_id if side == "user" else encoder.schema.item_id
    blocks = encoder.user_blocks if side == "user" else encoder.item_blocks
    columns = encoder.columns
    return tuple(block for block in blocks if block.field in columns and column in columns[block.field].columns)


def said_as(rows: SparseRows, blocks: Iterable[FeatureBlock], other: SparseRows) -> SparseRows:
    """Replace the features of some blocks by those of another request.

    Args:
        rows: n rows of the user feature space.
        blocks: those to replace; all others stay.
        other: one row of the same space.
    """
    inside = np.zeros(other.nnz, dtype=np.bool_)
    blocks = tuple(blocks)
    for block in blocks:
        inside |= (other.indices >= block.offset) & (other.indices < block.offset + block.size)
    indptr = np.array([0, int(inside.sum())], dtype=np.int64)
    part = SparseRows(indptr, other.indices[inside], other.weights[inside], other.n_features)
    return SparseRows.hstack([without(rows, blocks), part.take(np.zeros(len(rows), dtype=np.int64))])
