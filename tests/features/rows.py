"""Sparse rows in a form that tests can compare."""

import numpy as np
import polars as pl

from recall.features.column import ColumnEncoder
from recall.features.csr import SparseRows


def as_sets(rows: SparseRows) -> list[dict[int, float]]:
    """Each row as feature to weight; fails when a row holds a feature twice."""
    result = []
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        row = dict(zip(rows.indices[start:stop].tolist(), rows.weights[start:stop].tolist(), strict=True))
        assert len(row) == stop - start
        result.append(row)
    return result


def agree(encoder: ColumnEncoder, frame: pl.DataFrame) -> None:
    """Fails unless every row of a table is encoded as the same values are in a request, to the last bit."""
    bulk = as_sets(encoder.encode(frame))
    assert len(bulk) == len(frame)
    for values, row in zip(frame.iter_rows(named=True), bulk, strict=True):
        single = {feature: float(np.float32(weight)) for feature, weight in encoder.encode_one(values)}
        assert single == row
        assert all(0 <= feature < encoder.size for feature in row)
