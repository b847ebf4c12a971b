"""Models of every kind for small problems."""

from dataclasses import replace

import torch

from recall.features.csr import FeatureLayout
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.fwfm import FieldWeightedFM

USERS = FeatureLayout.of_sizes([("who", 5), ("when", 4), ("where", 3)])
ITEMS = FeatureLayout.of_sizes([("what", 5), ("like", 4)])
KINDS = {
    "fm": lambda n, m, k: FactorizationMachine(n, m, k),
    "lr": lambda n, m, k: FactorizationMachine(n, m, 0),
    "fwfm": lambda n, m, k: FieldWeightedFM(n, m, k, len(USERS), len(ITEMS)),
    "ffm": lambda n, m, k: FieldAwareFM(n, m, k, len(USERS), len(ITEMS)),
}


def fresh(pairs, k=5, seed=0, kind="fm"):
    model = KINDS[kind](pairs.contexts.n_features, pairs.items.n_features, k)
    model.initialise(0.3, torch.Generator().manual_seed(seed))
    if kind == "fwfm":
        with torch.no_grad():
            model.field_weights.mul_(torch.rand(model.field_weights.shape, generator=torch.Generator().manual_seed(seed)) + 0.5)
    return model


def with_fields(pairs):
    return replace(pairs, user_fields=USERS, item_fields=ITEMS)
