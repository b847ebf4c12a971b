"""What every model of the family offers: the same three functions, and one invariant that all else rests on."""

from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
from torch import Tensor, nn

from recall._arrays import Float32, Int64
from recall.features.layout import FeatureLayout
from recall.models.serving.base import ServingModel
from recall.models.torch.batch import SparseBatch

Side = Literal["user", "item"]


class Model(nn.Module, ABC):
    """A score of a user row beside an item row that splits into a user offset and one inner product.

    The invariant that training, export and serving rest on holds for all rows, to float rounding:

        score(u, i) == user_offset(u) + (user_vectors(u) * item_vectors(i)).sum(-1)

    Parameters whose names start with `user_` have one row for each user feature, those with `item_` one for each item
    feature; all others are shared by all features, and small. A learner may therefore call a model on the used rows of
    its tables alone (`SparseBatch.local`, `torch.func.functional_call`).

    Attributes:
        user_factors, item_factors: v, the embeddings of each feature, float [n_user_features, ..., k] and
            [n_item_features, ..., k].
        user_weights, item_weights: w, float [n_user_features] and [n_item_features].
        bias: w0, float [].
    """

    def __init__(self, n_user_features: int, n_item_features: int, embedding: tuple[int, ...]) -> None:
        """All zero; `embedding` is the shape of what one feature has of v, and ends with k."""
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
        """A new model of the same kind, fields and k over other numbers of features, all of it as before training."""

    @torch.no_grad()
    def initialise(self, scale: float, generator: torch.Generator) -> None:
        """Draw factors so that an embedding has expected squared length scale^2; weights and bias are zero."""
        for factors in (self.user_factors, self.item_factors):
            factors.normal_(0.0, scale / max(self.k, 1) ** 0.5, generator=generator)
        for weights in (self.user_weights, self.item_weights, self.bias):
            weights.zero_()

    @abstractmethod
    def score(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """y of user row r beside item row r, from the definition over the whole of x: n user rows, n item rows -> [n]."""

    @abstractmethod
    def user_vectors(self, users: SparseBatch) -> Tensor:
        """n rows -> [n, dim]."""

    @abstractmethod
    def item_vectors(self, items: SparseBatch) -> Tensor:
        """n rows -> [n, dim]."""

    @abstractmethod
    def user_offset(self, users: SparseBatch) -> Tensor:
        """The terms that are the same for every item, for n rows -> [n]."""

    @abstractmethod
    def tables(self, users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        """The parameters as float32 arrays, copied where they are on another device or of another type.

        Args:
            users, items: the fields of both sides.
        """

    def forward(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """y of each user row against items of its own: n user rows, n * m item rows in their order -> [n, m]."""
        phi = self.user_vectors(users)
        psi = self.item_vectors(items).view(len(phi), -1, self.dim)
        return self.user_offset(users)[:, None] + torch.einsum("nd,nmd->nm", phi, psi)

    def restricted(self, user_features: Int64, item_features: Int64) -> Self:
        """The same model in float64 over some features alone: int64 [m] and int64 [m'], in the order given."""
        features = {"user": torch.from_numpy(user_features), "item": torch.from_numpy(item_features)}
        small = self.resized(len(user_features), len(item_features)).double()
        with torch.no_grad():
            for name, table in self.named_parameters():
                side, whole = side_of(name), table.detach().cpu()
                small.get_parameter(name).copy_(whole if side is None else whole[features[side]])
        return small


def array(tensor: Tensor) -> Float32:
    """A parameter as a float32 array, copied where it is on another device or of another type."""
    values: Float32 = tensor.detach().to("cpu", torch.float32).numpy()
    return values


def side_of(name: str) -> Side | None:
    """The side whose features are the rows of the parameter of this name; None when all features share it."""
    return "user" if name.startswith("user_") else "item" if name.startswith("item_") else None
