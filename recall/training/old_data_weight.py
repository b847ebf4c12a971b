"""How much of what was learnt from data that are gone should give way to what new data say."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recall._arrays import Float32, Int64
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.split import REMEMBERED
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import FIRST
from recall.models.torch.base import Side

Counts = npt.NDArray[np.float64]


def shares(dataset: Dataset, encoder: FeatureEncoder, remember: float = 1.0) -> dict[Side, Tensor]:
    """For each feature, new / (new + remember * old): its share of observations that are new.

    So two means are joined into the mean of all that they are the means of. What a feature saw before is counted over
    the remembered interactions. In what context those were is forgotten, and rows for unknown and missing values stand
    for more than their own observations: these take the share of all interactions that are new.

    Args:
        dataset: with remembered interactions.
        encoder: gives the features.
        remember: what an old observation counts beside a new one, at least 0.

    Returns:
        For "user" and "item" float32 [n_features], each in [0, 1].
    """
    old, new = dataset.select(REMEMBERED), dataset.training
    whole = len(new) / (len(new) + remember * len(old))
    users = _observed_share(_of_users(dataset, encoder, new), remember * _of_users(dataset, encoder, old))
    items = _observed_share(_of_items(dataset, encoder, new), remember * _of_items(dataset, encoder, old))
    for share, blocks in ((users, encoder.user_blocks), (items, encoder.item_blocks)):
        for block in blocks:
            forgotten = block.size if encoder.reads_context(block.field) else FIRST
            share[block.offset : block.offset + forgotten] = whole
    return {"user": torch.from_numpy(users), "item": torch.from_numpy(items)}


def _observed_share(new: Counts, old: Counts) -> Float32:
    return (new / np.where(new > 0, new + old, 1.0)).astype(np.float32)


def _of_users(dataset: Dataset, encoder: FeatureEncoder, positions: Int64) -> Counts:
    contexts = build_contexts(dataset, encoder, positions)
    return _counts(contexts.features, np.bincount(contexts.context, minlength=len(contexts)))


def _of_items(dataset: Dataset, encoder: FeatureEncoder, positions: Int64) -> Counts:
    items = dataset.events["item"].to_numpy()[positions]
    return _counts(encoder.encode_items(dataset.items), np.bincount(items, minlength=len(dataset.items)))


def _counts(rows: SparseRows, times: npt.NDArray[np.integer]) -> Counts:
    """How often each feature is met when row r is met `times[r]` times: float64 [n_features]."""
    weights = np.repeat(times, np.diff(rows.indptr)).astype(np.float64)
    return np.bincount(rows.indices, weights, rows.n_features).astype(np.float64, copy=False)
