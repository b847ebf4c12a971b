"""Missing rows of ids that no training row has."""

import torch

from recall.models.torch.base import Model, side_of
from recall.training.pairs import ObservedPairs


@torch.no_grad()
def copy_twins(model: Model, pairs: ObservedPairs) -> None:
    """Let no id mean what an unknown id means, where no training row is without one."""
    roles = {"user": pairs.user_roles, "item": pairs.item_roles}
    for name, table in model.named_parameters():
        side = side_of(name)
        of_side = None if side is None else roles[side]
        if of_side is not None:
            missing, unknown = (torch.from_numpy(rows) for rows in of_side.twins)
            table[missing] = table[unknown]
