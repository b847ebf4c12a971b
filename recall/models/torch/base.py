"""Interface of every torch model, and the invariant that export rests on."""

from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from recall._arrays import Float32, Int64
from recall.features.layout import FeatureLayout
from recall.models.serving.base import ServingModel
from recall.models.torch.batch import SparseBatch

Side = Literal["user", "item"]


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
    """

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

    @override
    def forward(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """Return the scores of n user rows against m items of their own, [n, m].

        Args:
            users: n rows.
            items: n * m rows, those of the first user first.
        """
        phi = self.user_vectors(users)
        psi = self.item_vectors(items).view(len(phi), -1, self.dim)
        return self.user_offset(users)[:, None] + torch.einsum("nd,nmd->nm", phi, psi)

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
    """Return the side whose features are the rows of a parameter; None if shared."""
    return "user" if name.startswith("user_") else "item" if name.startswith("item_") else None
