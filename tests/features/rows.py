"""Sparse rows in a form for comparison in tests."""

import numpy as np
import polars as pl

from recall.features.column import ColumnEncoder
from recall.features.csr import SparseRows


def as_sets(rows: SparseRows) -> list[dict[int, float]]:
    """Return each row as a mapping of feature to weight; fails if a row has a feature twice."""
    result = []
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        row = dict(zip(rows.indices[start:stop].tolist(), rows.weights[start:stop].tolist(), strict=True))
        assert len(row) == stop - start
        result.append(row)
    return result


def agree(encoder: ColumnEncoder, frame: pl.DataFrame) -> None:
    """Check that every row of a table is encoded bit-identically as a request."""
    bulk = as_sets(encoder.encode(frame))
    assert len(bulk) == len(frame)
    for values, row in zip(frame.iter_rows(named=True), bulk, strict=True):
        single = {feature: float(np.float32(weight)) for feature, weight in encoder.encode_one(values)}
        assert single == row
        assert all(0 <= feature < encoder.size for feature in row)
