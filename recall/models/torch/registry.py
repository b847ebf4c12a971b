"""The model of a configuration; each kind also with vectors of unit length."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from recall.config import FFMConfig, FwFMConfig, ModelConfig
from recall.features.csr import FeatureLayout
from recall.models.serving.base import ServingModel
from recall.models.serving.layout import SMALLEST, CosineTables
from recall.models.torch.base import Model, SparseBatch
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.fwfm import FieldWeightedFM


class Cosine(Model):
    """Scale the vectors of another model to unit length; a zero vector stays zero.

    The user offset is 0, because terms of the user only do not affect a cosine.

    Attributes:
        of: the class of the other model, a base of this one.
    """

    of: ClassVar[type[Model]]

    @override
    def score(self, users: SparseBatch, items: SparseBatch) -> Tensor:
        """Return <u, i> / |u| |i|, where <u, i> is the score without user terms."""
        product = self.of.score(self, users, items) - self.of.user_offset(self, users)
        user_lengths = self.of.user_vectors(self, users).norm(dim=1).clamp_min(SMALLEST)
        item_lengths = self.of.item_vectors(self, items).norm(dim=1).clamp_min(SMALLEST)
        cosines: Tensor = product / user_lengths / item_lengths
        return cosines

    @override
    def user_vectors(self, users: SparseBatch) -> Tensor:
        """Of unit length: n rows -> [n, dim]."""
        return functional.normalize(self.of.user_vectors(self, users), eps=SMALLEST)

    @override
    def item_vectors(self, items: SparseBatch) -> Tensor:
        """Of unit length: n rows -> [n, dim]."""
        return functional.normalize(self.of.item_vectors(self, items), eps=SMALLEST)

    @override
    def user_offset(self, users: SparseBatch) -> Tensor:
        """0 for n rows -> [n]."""
        return self.bias.new_zeros(users.n)

    @override
    def tables(self, users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        return CosineTables(self.of.tables(self, users, items))


class CosineFM(Cosine, FactorizationMachine):
    """Cosine of a factorization machine's vectors."""

    of = FactorizationMachine


class CosineFieldWeightedFM(Cosine, FieldWeightedFM):
    """Cosine of the vectors of a field-weighted factorization machine."""

    of = FieldWeightedFM


class CosineFieldAwareFM(Cosine, FieldAwareFM):
    """Cosine of a field-aware factorization machine's vectors."""

    of = FieldAwareFM


def new_model(config: ModelConfig, users: FeatureLayout, items: FeatureLayout) -> Model:
    """Return a model over the features of both sides, before `initialise`.

    Args:
        config: kind and rank.
        users: the user fields.
        items: the item fields.
    """
    features = (users.n_features, items.n_features)
    fields = (len(users), len(items))
    match config:
        case FwFMConfig():
            return (CosineFieldWeightedFM if config.cosine else FieldWeightedFM)(*features, config.k, *fields)
        case FFMConfig():
            return (CosineFieldAwareFM if config.cosine else FieldAwareFM)(*features, config.k, *fields)
        case _:
            return (CosineFM if config.cosine else FactorizationMachine)(*features, config.k)
