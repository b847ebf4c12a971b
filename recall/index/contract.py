"""What every kind of index promises, and the checks that all of them share.

An index is built once over item vectors and never changes. A row is a position among those vectors. The same query gives
the same answer to the last bit whether it comes alone or in a batch; equal scores are ordered by row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from recall.errors import ExportError, RequestError
from recall.features.sparse import Float32, Int64

Params = Mapping[str, int | float]
"""The numbers that an index needs beside its file in order to be opened again."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The best rows of each query, best first.

    Attributes:
        rows: int64 [q, n]; -1 where fewer than n rows were eligible.
        scores: float32 [q, n], inner products; -inf beside a row of -1.
    """

    rows: Int64
    scores: Float32


class ItemIndex(Protocol):
    """Maximum inner-product search over item vectors; `search` may be called from several threads at once."""

    @property
    def kind(self) -> str:
        """Name of the kind, as the manifest records it."""

    @property
    def size(self) -> int:
        """Number of items."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def exact(self) -> bool:
        """Whether the best rows are always found, or only most of them."""

    @property
    def params(self) -> Params:
        """What `open_index` needs to know beside the file."""

    def search(self, queries: Float32, n: int, exclude: Sequence[Int64] | None = None) -> Hits:
        """The n rows with the largest inner product with each query.

        Args:
            queries: float32 [q, dim], finite.
            n: rows wanted, at least 1; it may exceed `size`.
            exclude: rows that must not be returned, one array for each query, repeats allowed; None excludes nothing.

        Returns:
            Exactly min(n, eligible rows) distinct rows for each query.

        Raises:
            RequestError: n is below 1, or a query is of another length or not finite.
        """

    def write(self, path: Path) -> None:
        """Write the index to one file. Raises IndexFileError when that fails."""


def check_vectors(vectors: Float32) -> None:
    """Raise ExportError, naming up to five rows, unless vectors are a filled float32 [size, dim] of finite numbers."""
    if vectors.ndim != 2 or vectors.dtype != np.float32 or 0 in vectors.shape:
        raise ExportError(
            f"item vectors of shape {vectors.shape} and type {vectors.dtype} cannot be indexed",
            where="item vectors",
            mend="Give float32 [items, dim] with at least one item",
        )
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        shown = ", ".join(str(row) for row in wrong[:5])
        raise ExportError(
            f"{len(wrong)} of {len(vectors)} item vectors hold NaN or an infinity, first in rows {shown}",
            where="item vectors",
            mend="Look at the training metrics: a model that diverged cannot be searched",
        )


def check_queries(queries: Float32, n: int, dim: int, exclude: Sequence[Int64] | None) -> Sequence[Int64]:
    """Raise RequestError unless `search` can answer; gives the excluded rows of each query, rising and without repeats."""
    if n < 1:
        raise RequestError(f"{n} results were asked for", where="/n", mend="Ask for at least 1")
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise RequestError(f"user vectors of shape {queries.shape} do not fit items of {dim} numbers", where="user vector")
    if not np.isfinite(queries).all():
        row = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
        raise RequestError(f"user vector {row} holds NaN or an infinity", where="user vector")
    if exclude is None:
        return [np.empty(0, dtype=np.int64)] * len(queries)
    if len(exclude) != len(queries):
        raise RequestError(f"{len(exclude)} lists of excluded rows for {len(queries)} user vectors", where="/exclude")
    return [np.unique(rows) if len(rows) > 1 else rows for rows in exclude]
