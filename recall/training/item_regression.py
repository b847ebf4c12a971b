"""Regress item vectors on item features, to predict those of new items.

A factorization machine adds the embeddings of an item's features up. The sum stays the same when the embeddings of all
features but the id change and the embedding of the id takes the remainder. After training the other features can
therefore have the coefficients of a ridge regression of the trained items' vectors, and the row of an unknown id its
intercept. A new item then has the predicted vector, and a trained one the vector that it was trained to. The first
component, the item's own terms, contains pairs of features. First-order weights are regressed on the remainder after these
pairs (those of a new item), and the weight of each trained id restores its own terms.

It is exact only where the vector is one sum over all fields. In a field-weighted or field-aware machine a user meets
each field of an item separately, so that no share of one field can move to another; their trained rows are kept.
"""

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Float32, Int64
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import UNKNOWN
from recall.models.torch.base import SparseBatch
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.registry import Cosine
from recall.training.masking import Roles

_STEPS, _TOLERANCE = 60, 1e-3  # of conjugate gradients; 1e-5 changed no figure on toys, ml-1m and a generated shop


class Ridge:
    """Weighted ridge regressions with the same sparse rows.

    They minimise sum_i a_i |y_i - x_i W|^2 + strength |W|^2, where the weights a have mean 1, by preconditioned
    conjugate gradients for all columns of y at once.
    """

    def __init__(self, rows: SparseRows, weights: Float32) -> None:
        """Prepare to solve.

        Args:
            rows: x, n rows.
            weights: float32 [n], positive up to a factor; a row of weight 0 is not fitted.
        """
        self._rows = SparseBatch.of(rows)
        self._columns = SparseBatch.of(SparseRows.from_coo(rows.indices, rows.owners, rows.weights, rows.n_features, len(rows)))
        self._weights = torch.from_numpy(weights / weights.mean())[:, None]

    def solve(self, targets: Tensor, strength: float, start: Tensor | None = None) -> Tensor:
        """Return W, float32 [n_features, d]; a feature that no row has stays at 0.

        Args:
            targets: y, float32 [n, d].
            strength: of the penalty, positive.
            start: where to begin, as of another strength.
        """
        table = targets.new_zeros(self._columns.n, targets.shape[1]) if start is None else start.clone()
        diagonal = self._columns.squared().weighted_sum(self._weights) + strength
        enough = _TOLERANCE**2 * (self._pulled(targets.clone()).square() / diagonal).sum(0)
        residual = self._pulled(targets - self._rows.weighted_sum(table)) - strength * table
        direction = residual / diagonal
        size = (residual * direction).sum(0)
        room = torch.empty_like(direction)  # for each product, which is as large as the table
        for _ in range(_STEPS):
            if bool((size <= enough).all()):
                break
            image = self._pulled(self._rows.weighted_sum(direction))
            image += torch.mul(direction, strength, out=room)
            length = size / torch.mul(direction, image, out=room).sum(0).clamp_min(torch.finfo().tiny)
            table += torch.mul(direction, length, out=room)
            residual -= torch.mul(image, length, out=room)
            scaled, before = torch.div(residual, diagonal, out=room), size
            size = torch.mul(residual, scaled, out=image).sum(0)
            direction.mul_(size / before.clamp_min(torch.finfo().tiny)).add_(scaled)
        return table

    def _pulled(self, values: Tensor) -> Tensor:
        """X' diag(a) values: [n, d] -> [n_features, d]; overwrites the values."""
        return self._columns.weighted_sum(values.mul_(self._weights))


class ItemRegression:
    """The regression of the items' vectors on their features."""

    def __init__(
        self,
        model: FactorizationMachine,
        encoder: FeatureEncoder,
        block: FeatureBlock,
        rows: SparseRows,
        roles: Roles,
        counts: Int64,
    ) -> None:
        """Keep the trained vectors.

        Args:
            model: trained.
            encoder: of its fields.
            block: with a row for each item id.
            rows: of the catalogue.
            roles: of the item fields.
            counts: int64 [items], training interactions. An item weighs by the logarithm of its count: one of few has a
                noisy vector, and the most popular ones are hardly like a new one. On toys, ml-1m and a generated shop equal
                weights and square roots were worse for some.
        """
        self._model, self._encoder, self._block, self._rows = model, encoder, block, rows
        self._roles, self._weights = roles, np.log1p(counts).astype(np.float32)
        self._vectors = self._raw(rows)

    def fit(self, items: Int64, strength: float, gain: float = 1.0, start: Tensor | None = None) -> Tensor:
        """Regress the vectors of some items.

        The model holds the coefficients afterwards, so that it predicts vectors of `Roles.as_new` rows; no id has a row of
        its own then.

        Args:
            items: int64 [m], rows of the catalogue.
            strength: of the ridge.
            gain: the model's predictions differ from their mean by as many times as the ridge's do.
            start: coefficients to begin with, as of another strength.

        Returns:
            The coefficients of the ridge, without the gain, as a start for a further fit: float32 [n_item_features, 1 + k],
            first-order weights and factors.
        """
        items = items[self._weights[items] > 0]
        rows, targets = self._roles.as_new(self._rows.take(items)), self._vectors[torch.from_numpy(items)]
        if isinstance(self._model, Cosine):  # their lengths have no effect
            lengths = targets.norm(dim=1, keepdim=True)
            targets = targets * (lengths.mean() / lengths.clamp_min(torch.finfo().tiny))
        ridge, model = Ridge(rows, self._weights[items]), self._model
        factors = ridge.solve(targets[:, 1:], strength, None if start is None else start[:, 1:])
        model.item_factors.copy_(gain * factors)
        # each row of an item as a new one has the unknown id once
        model.item_factors[self._block.offset + UNKNOWN] += (1 - gain) * SparseBatch.of(rows).weighted_sum(factors).mean(0)
        model.item_weights.zero_()
        own = targets[:, :1] - self._raw(rows)[:, :1]
        weights = ridge.solve(own, strength, None if start is None else start[:, :1])
        model.item_weights.copy_(weights[:, 0])
        return torch.cat([weights, factors], dim=1)

    def complete(self) -> None:
        """Give each id of the catalogue the remainder of its trained vector.

        Other ids of the block begin as unknown ones.
        """
        model, block = self._model, self._block
        unknown = block.offset + UNKNOWN
        inside = FeatureBlock.union([block], self._rows.indices) & (self._rows.indices != unknown)
        known = torch.from_numpy(self._rows.owners[inside])
        features = torch.from_numpy(self._rows.indices[inside].astype(np.int64))
        rows, vectors = self._rows.take(known.numpy()), self._vectors[known]
        others = slice(block.offset, block.offset + block.size)
        factors, weight = model.item_factors[unknown].clone(), model.item_weights[unknown].clone()
        model.item_factors[features] = vectors[:, 1:] - self._raw(rows)[:, 1:]
        model.item_weights[features] = vectors[:, 0] - self._raw(rows)[:, 0]
        alone = torch.ones(block.size, dtype=torch.bool)
        alone[features - block.offset] = False
        model.item_factors[others][alone], model.item_weights[others][alone] = factors, weight

    def _raw(self, rows: SparseRows) -> Tensor:
        """Vectors before a cosine makes their lengths equal, float32 [n, k + 1]."""
        batch = SparseBatch.of(rows, fields=self._encoder.item_fields)
        return FactorizationMachine.item_vectors(self._model, batch)
