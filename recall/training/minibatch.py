"""Logistic loss on observed pairs and sampled negatives, by stochastic gradients on mini-batches.

    sum over observed pairs s_ci log(1 + e^-y_ci)  +  sum over negatives drawn for it log(1 + e^y_cj)

Negatives are drawn with a power of the item's observed count; a draw that the context was observed with counts for
nothing. Each batch works on the rows of the tables that it uses, so a step costs what the batch costs.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from recall.config import MiniBatchConfig
from recall.models.batch import SparseBatch
from recall.models.contract import Model, side_of
from recall.training.pairs import ObservedPairs
from recall.training.rowwise import Adagrad, Adam, RowOptimiser

_OPTIMISERS: dict[str, type[Adagrad] | type[Adam]] = {"adagrad": Adagrad, "adam": Adam}


class MiniBatchLearner:
    """Improves a model in place, one pass over the observed pairs at a time.

    Attributes:
        model: the model that is learned.
    """

    def __init__(self, model: Model, pairs: ObservedPairs, config: MiniBatchConfig, seed: int) -> None:
        self.model = model
        self._pairs = pairs
        self._config = config
        self._seed = seed
        self._epoch = 0
        self._owners = pairs.owners
        self._keys = np.sort(self._owners * len(pairs.items) + pairs.observed)
        counts = np.bincount(pairs.observed, minlength=len(pairs.items)).astype(np.float64)
        self._cumulative = np.cumsum(np.maximum(counts, 1.0) ** config.popularity)
        optimiser = _OPTIMISERS[config.optimiser]
        self._optimisers: dict[str, RowOptimiser] = {
            name: optimiser(_as_rows(name, table.data), config.learning_rate) for name, table in model.named_parameters()
        }

    def sweep(self) -> float:
        """Go once over the observed pairs in a new order; returns the mean log loss of the pairs and their negatives."""
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(len(self._owners))
        total = sum(
            self._step(order[first : first + self._config.batch], rng) for first in range(0, len(order), self._config.batch)
        )
        self._epoch += 1
        return total / float(self._pairs.weights.sum())

    def state(self) -> dict[str, Tensor]:
        """The optimisers' memories and the number of passes made."""
        state = {
            f"{name}.{key}": value for name, optimiser in self._optimisers.items() for key, value in optimiser.state().items()
        }
        return {**state, "epoch": torch.tensor(self._epoch)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for name, optimiser in self._optimisers.items():
            prefix = f"{name}."
            optimiser.restore({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
        self._epoch = int(state["epoch"])

    def _step(self, chosen: npt.NDArray[np.integer], rng: np.random.Generator) -> float:
        """One step on pairs at positions `chosen` [B]; returns their summed loss."""
        pairs, config = self._pairs, self._config
        contexts = self._owners[chosen]
        drawn = rng.random((len(chosen), config.negatives)) * self._cumulative[-1]
        negatives = np.minimum(np.searchsorted(self._cumulative, drawn, side="right"), len(pairs.items) - 1)
        keys = contexts[:, None] * len(pairs.items) + negatives
        found = self._keys[np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)] == keys
        items = np.concatenate([pairs.observed[chosen][:, None], negatives], axis=1)  # [B, 1 + negatives]
        weights = torch.from_numpy(pairs.weights[chosen])[:, None]
        weights = torch.cat([weights, weights / config.negatives * torch.from_numpy(~found)], dim=1)
        labels = torch.zeros_like(weights)
        labels[:, 0] = 1.0

        users, user_rows = SparseBatch.local(pairs.contexts.take(contexts), fields=pairs.user_fields)
        catalogue, item_rows = SparseBatch.local(pairs.items.take(items.reshape(-1)), fields=pairs.item_fields)
        rows = {"user": user_rows, "item": item_rows, None: torch.zeros(1, dtype=torch.int64)}
        local = {
            name: (table.data.clone() if side_of(name) is None else table.data[rows[side_of(name)]]).requires_grad_()
            for name, table in self.model.named_parameters()
        }
        scores = functional_call(self.model, local, (users, catalogue))
        loss = (functional.binary_cross_entropy_with_logits(scores, labels, reduction="none") * weights).sum()
        # a cosine makes no use of what only the user enters
        slopes = torch.autograd.grad(loss / len(chosen), list(local.values()), materialize_grads=True)
        gradients = dict(zip(local, slopes, strict=True))
        for name, optimiser in self._optimisers.items():
            side, table, gradient = side_of(name), self.model.get_parameter(name).data, gradients[name]
            if side is not None:
                gradient = gradient + config.regularisation * local[name].detach()
            optimiser.step(_as_rows(name, table), rows[side], _as_rows(name, gradient))
        return float(loss.detach())


def _as_rows(name: str, table: Tensor) -> Tensor:
    """A parameter that all features share is one row."""
    return table[None] if side_of(name) is None else table
