"""The model that a configuration asks for."""

from recall.config import FFMConfig, FwFMConfig, ModelConfig
from recall.features.csr import FeatureLayout
from recall.models.torch.base import Model
from recall.models.torch.cosine import CosineFieldAwareFM, CosineFieldWeightedFM, CosineFM
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.fwfm import FieldWeightedFM


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
