"""Feature rows as the tensors that a model works on."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recall.features.csr import SparseRows
from recall.features.layout import FeatureLayout


class SparseBatch(NamedTuple):
    """`SparseRows` as tensors, with the field of every entry where required.

    Attributes:
        indptr: int64 [n + 1].
        indices: int64 [nnz], rows of the tables. In a local batch these are not the features of the whole model.
        weights: float [nnz].
        fields: int64 [nnz], the number of each entry's field on its own side; None for a model without fields.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor
    fields: Tensor | None = None

    @classmethod
    def of(cls, rows: SparseRows, dtype: torch.dtype = torch.float32, fields: FeatureLayout | None = None) -> "SparseBatch":
        """Convert rows to tensors.

        Args:
            rows: n rows.
            dtype: of the weights.
            fields: of the rows' side.
        """
        return cls(
            torch.from_numpy(rows.indptr),
            torch.from_numpy(rows.indices.astype(np.int64)),
            torch.from_numpy(rows.weights).to(dtype),
            None if fields is None else torch.from_numpy(fields.of(rows.indices)),
        )

    @classmethod
    def local(
        cls, rows: SparseRows, dtype: torch.dtype = torch.float32, fields: FeatureLayout | None = None
    ) -> tuple["SparseBatch", Tensor]:
        """Renumber rows over the features that they use.

        Row r of a table that holds only those features is feature `features[r]` of the whole table.

        Args:
            rows: n rows.
            dtype: of the weights.
            fields: of the rows' side.

        Returns:
            The rows, and their features, int64 [m], rising.
        """
        features, indices = np.unique(rows.indices, return_inverse=True)
        batch = cls.of(rows, dtype, fields)
        return batch._replace(indices=torch.from_numpy(indices)), torch.from_numpy(features.astype(np.int64))

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def single(self) -> bool:
        """Whether no row holds more than one entry."""
        return self.n == 0 or int(self.indptr.diff().max()) <= 1

    def weighted_sum(self, table: Tensor) -> Tensor:
        """sum_j x_j table[j] for every row: table [n_features, ...] -> [n, ...]."""
        shape = (self.n, *table.shape[1:])
        if 0 in table.shape[1:]:  # embedding_bag refuses a table without columns; k = 0 is a legal model
            return table.new_zeros(shape)
        bags = functional.embedding_bag(
            self.indices,
            table.flatten(1) if table.dim() > 1 else table[:, None],
            self.indptr,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )
        return bags.view(shape)

    def take(self, rows: Tensor) -> "SparseBatch":
        """Return the rows at positions `rows`, int64 [m], in that order, with repeats."""
        lengths = self.indptr.diff()[rows]
        indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        every = torch.arange(int(indptr[-1]), device=rows.device)
        source = torch.repeat_interleave(self.indptr[:-1][rows] - indptr[:-1], lengths) + every
        fields = None if self.fields is None else self.fields[source]
        return SparseBatch(indptr, self.indices[source], self.weights[source], fields)

    def repeated(self, row: int, n: int) -> "SparseBatch":
        """Repeat one row n times.

        Args:
            row: its position.
            n: number of rows.
        """
        return self.take(torch.full((n,), row, device=self.indptr.device))

    def squared(self) -> "SparseBatch":
        """Return the rows with every weight squared."""
        return self._replace(weights=self.weights.square())

    def field_sums(self, table: Tensor, n_fields: int) -> Tensor:
        """Return sum_{j in f} x_j table[j] for every row and field: [n, n_fields, ...].

        Args:
            table: [n_features, ...].
            n_fields: number of fields.
        """
        return self.by_field(n_fields).weighted_sum(table).view(self.n, n_fields, *table.shape[1:])

    def by_field(self, n_fields: int) -> "SparseBatch":
        """Split each row by field: row r's field f becomes row r n_fields + f.

        Raises:
            ValueError: The batch was made without fields.
        """
        if self.fields is None:
            raise ValueError("a model with field weights or field factors needs a batch that was made with fields")
        row = torch.repeat_interleave(torch.arange(self.n, device=self.indptr.device), self.indptr.diff())
        place = row * n_fields + self.fields
        lengths = torch.bincount(place, minlength=self.n * n_fields)
        apart = self._replace(indptr=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]))
        if bool((place.diff() >= 0).all()):  # as encoders write items
            return apart
        order = torch.argsort(place, stable=True)
        return apart._replace(indices=self.indices[order], weights=self.weights[order], fields=self.fields[order])
