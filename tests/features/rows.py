"""Sparse rows in a form that tests can compare."""

from recall.features.sparse import SparseRows


def as_sets(rows: SparseRows) -> list[dict[int, float]]:
    """Each row as feature to weight; fails when a row holds a feature twice."""
    result = []
    for start, stop in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        row = dict(zip(rows.indices[start:stop].tolist(), rows.weights[start:stop].tolist(), strict=True))
        assert len(row) == stop - start
        result.append(row)
    return result
