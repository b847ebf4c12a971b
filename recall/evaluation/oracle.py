"""The best that any model could do on made-up data: rank by the very utility that the choices were drawn from."""

from collections.abc import Sequence

import numpy as np

from recall._arrays import Int64
from recall.config import EvaluationConfig
from recall.data import words
from recall.data.contexts import items_before
from recall.data.dataset import Dataset
from recall.data.synthetic import Synthetic
from recall.evaluation.exact_topk import rank_metrics
from recall.evaluation.protocol import held_out


def oracle(shop: Synthetic, dataset: Dataset, config: EvaluationConfig, split: int) -> dict[str, float]:
    """Metrics of the truth's own ranking, on the requests and under the masks that a model is judged by.

    Args:
        shop: the tables with their truth.
        dataset: the same tables, loaded.
        config: how to ask and what to judge.
        split: the part to judge.
    """
    parts = dataset.events["split"].to_numpy()
    held = held_out(dataset, config, dataset.select(split), np.flatnonzero(parts < split))
    events = dataset.events[held.event]
    user_id, item_id = dataset.schema.user_id, dataset.schema.item_id
    users = _rows(shop.users["user_id"].to_list(), dataset.users[user_id].to_list())
    items = _rows(shop.items["item_id"].to_list(), dataset.items[item_id].to_list())
    before = items_before(dataset, held.user, held.before, 1)
    last = np.append(before.items, 0)[before.indptr[:-1].clip(max=len(before.items))]
    phi = shop.truth.user_vectors(
        users[events["user"].to_numpy()],
        _rows(words.DEVICES, events["device"].to_list()),
        _rows(words.DAYPARTS, events["daypart"].to_list()),
        np.where(np.diff(before.indptr) > 0, items[last], -1),
    )
    return rank_metrics(phi, shop.truth.item_vectors()[items], held.relevant, held.masked, config.at)


def _rows(known: Sequence[str], asked: Sequence[str]) -> Int64:
    places = {value: row for row, value in enumerate(known)}
    return np.array([places[value] for value in asked], dtype=np.int64)
