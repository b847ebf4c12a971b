"""Means for the user features that no training row has.

A user vector is linear in the features of its row. The row of an unknown id is set to the mean of the ids that train, and a
value that is missing, or a history that is empty, to the field's mean contribution, both over the training interactions.
A request of which nothing is known has then the mean of all training vectors, and scores an item as these do on average.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from recall._arrays import Float32, Float64, Int64
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.torch.base import Model, side_of


@dataclass(frozen=True, slots=True)
class Mean:
    """One feature as a weighted sum of others.

    Attributes:
        feature: the one to set.
        parts: ranges of features, and float32 weights of their rows.
    """

    feature: int
    parts: tuple[tuple[slice, Float32], ...]


@dataclass(frozen=True, slots=True)
class MeanRows:
    """All features of the user side that are means of others.

    Attributes:
        means: one for each.
    """

    means: tuple[Mean, ...]

    @property
    def features(self) -> Int64:
        """The features that are set, int64."""
        return np.array([mean.feature for mean in self.means], dtype=np.int64)

    @staticmethod
    def of(contexts: SparseRows, interactions: npt.NDArray[np.integer], encoder: FeatureEncoder) -> "MeanRows":
        """Return the features that no context has.

        Args:
            contexts: rows of all training contexts, without the features of empty histories.
            interactions: integer [contexts], how many each has, with what was shown and not taken.
            encoder: of the rows.
        """
        entries = contexts.weights * np.repeat(interactions, np.diff(contexts.indptr))
        seen = np.bincount(contexts.indices, entries, contexts.n_features).astype(np.float64)
        met = np.bincount(contexts.indices, minlength=contexts.n_features) > 0
        total = float(interactions.sum())
        means = []
        for block in encoder.user_blocks:
            history = encoder.histories.get(block.field)
            every = [one for one in encoder.user_blocks if one.field == block.field] if history is not None else [block]
            values = history.vocabulary if history is not None else encoder.columns[block.field].vocabulary
            of_values = float(seen[_range(block)].sum())
            if values is not None and not met[block.offset + UNKNOWN] and of_values > 0:
                means.append(_mean(block, UNKNOWN, [block], seen, of_values))
            absent = history is None or (history.tells_empty and every[0] == block)
            if absent and not met[block.offset + MISSING] and total > 0:
                means.append(_mean(block, MISSING, every, seen, total))
        return MeanRows(tuple(means))

    @torch.no_grad()
    def fill(self, model: Model) -> None:
        """Set the features in every table of the user side."""
        for name, table in model.named_parameters():
            if side_of(name) == "user":
                flat = table.view(len(table), -1)
                for mean in self.means:
                    parts = [torch.from_numpy(weights) @ flat[part] for part, weights in mean.parts]
                    flat[mean.feature] = torch.stack(parts).sum(0)


def _range(block: FeatureBlock) -> slice:
    return slice(block.offset, block.offset + block.size)


def _mean(block: FeatureBlock, value: int, of: list[FeatureBlock], seen: Float64, total: float) -> Mean:
    parts = tuple((_range(one), (seen[_range(one)] / total).astype(np.float32)) for one in of)
    return Mean(block.offset + value, parts)
