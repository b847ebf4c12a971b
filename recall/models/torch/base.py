"""Interface of torch models, their input, and the invariant that export rests on."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recall._arrays import Float32, Int64
from recall.config.schema import Side
from recall.features.csr import FeatureLayout, SparseRows
from recall.models.serving.base import ServingModel

# Feature rows as the tensors that a model works on.


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

    def merged(self) -> "SparseBatch":
        """Add up the weights of features that a row has several times.

        Returns:
            n rows with m <= nnz entries, rising within a row: indices and fields int64 [m], weights [m] of the same dtype.
        """
        size = int(self.indices.max()) + 1 if len(self.indices) else 1
        row = torch.repeat_interleave(torch.arange(self.n), self.indptr.diff())
        keys, place = torch.unique(row * size + self.indices, return_inverse=True)
        indptr = torch.searchsorted(keys, torch.arange(self.n + 1) * size)
        fields = None if self.fields is None else torch.zeros_like(keys).index_copy_(0, place, self.fields)
        return SparseBatch(indptr, keys % size, self.weights.new_zeros(len(keys)).index_add(0, place, self.weights), fields)

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


class Model(nn.Module, ABC):
    """A score that splits into a user offset and one inner product.

    The invariant that training, export and serving rest on holds for all rows, to float rounding:

        score(u, i) == user_offset(u) + (user_vectors(u) * item_vectors(i)).sum(-1)

    Parameters whose names start with `user_` have one row for each user feature, those with `item_` one for each item
    feature; all others are shared by all features, and small. A learner may therefore call a model on the used rows of
    its tables only (`SparseBatch.local`, `torch.func.functional_call`).

    Attributes:
        user_factors, item_factors: v, the embeddings of each feature, float [n_user_features, ..., k] and
            [n_item_features, ..., k].
        user_weights, item_weights: w, float [n_user_features] and [n_item_features].
        bias: w0, float [].
        range_factors: of ranges of lags that share a table, float [n], while they are learnt (`recall.training.ranges`).
    """

    range_factors: nn.Parameter | None

    def __init__(self, n_user_features: int, n_item_features: int, embedding: tuple[int, ...]) -> None:
        """Create a model with all parameters zero.

        Args:
            n_user_features: size of the user feature space.
            n_item_features: size of the item feature space.
            embedding: shape of v of one feature, which ends with k.
        """
        super().__init__()
        self.user_factors = nn.Parameter(torch.zeros(n_user_features, *embedding))
        self.item_factors = nn.Parameter(torch.zeros(n_item_features, *embedding))
        self.user_weights = nn.Parameter(torch.zeros(n_user_features))
        self.item_weights = nn.Parameter(torch.zeros(n_item_features))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_parameter("range_factors", None)

    @property
    def k(self) -> int:
        """Number of factors of one embedding."""
        return self.user_factors.shape[-1]

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of a user or item vector."""

    @abstractmethod
    def resized(self, n_user_features: int, n_item_features: int) -> Self:
        """Return an untrained model of the same kind, fields and k.

        Args:
            n_user_features: size of the new user feature space.
            n_item_features: size of the new item feature space.
        """

    @torch.no_grad()
    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """Draw factors of expected squared length scale^2; weights and bias are zero.

        Args:
            scale: standard deviation of an embedding's length.
            generator: of random numbers.
        """
        for factors in (self.user_factors, self.item_factors):
            factors.normal_(0.0, scale / max(self.k, 1) ** 0.5, generator=generator)
        for weights in (self.user_weights, self.item_weights, self.bias):
            weights.zero_()

    @abstractmethod
    def score(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """Return the score of n pairs of rows by definition, [n].

        Args:
            users: n rows.
            items: n rows.
        """

    @abstractmethod
    def user_vectors(self, users: SparseBatch) -> Tensor:
        """n rows -> [n, dim]."""

    @abstractmethod
    def item_vectors(self, items: SparseBatch) -> Tensor:
        """n rows -> [n, dim]."""

    @abstractmethod
    def user_offset(self, users: SparseBatch) -> Tensor:
        """Return the terms that all items share, for n rows: [n]."""

    @abstractmethod
    def tables(self, users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        """Return the parameters as float32 arrays, copied where necessary.

        Args:
            users: the user fields.
            items: the item fields.
        """

    def arrays(self) -> tuple[Float32, Float32, Float32, Float32, float]:
        """Return factors and weights of users and of items, and the bias."""
        user_factors, user_weights = array(self.user_factors), array(self.user_weights)
        item_factors, item_weights = array(self.item_factors), array(self.item_weights)
        return user_factors, user_weights, item_factors, item_weights, float(array(self.bias))

    @torch.no_grad()
    def embed(self, side: Side, rows: SparseRows, fields: FeatureLayout | None) -> Float32:
        """Return the vectors of feature rows: float32 [n, dim].

        Args:
            side: "user" or "item".
            rows: n rows.
            fields: of that side; None for a model without fields.
        """
        batch = SparseBatch.of(rows, fields=fields)
        return array(self.user_vectors(batch) if side == "user" else self.item_vectors(batch))

    def restricted(self, user_features: Int64, item_features: Int64) -> Self:
        """Return the model in float64 over some features, in the order given.

        Args:
            user_features: int64 [m].
            item_features: int64 [m'].
        """
        features = {"user": torch.from_numpy(user_features), "item": torch.from_numpy(item_features)}
        small = self.resized(len(user_features), len(item_features)).double()
        with torch.no_grad():
            for name, table in self.named_parameters():
                side, whole = side_of(name), table.detach().cpu()
                small.get_parameter(name).copy_(whole if side is None else whole[features[side]])
        return small


def array(tensor: Tensor) -> Float32:
    """Return a parameter as a float32 array, copied where necessary."""
    values: Float32 = tensor.detach().to("cpu", torch.float32).numpy()
    return values


def side_of(name: str) -> Side | None:
    """Return the side whose features are rows of a parameter; None if shared."""
    return "user" if name.startswith("user_") else "item" if name.startswith("item_") else None


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread in the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
