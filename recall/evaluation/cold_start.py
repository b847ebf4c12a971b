"""A simulation of cold start: how well is found what the model is made to forget?

Held-out requests are asked again with the rows of ids masked, so that an item or a user is known by its other fields
alone. Nothing is trained again: the unknown row stands where the id's own row stood. All other rows (features, histories,
the other side) were trained on interactions with these very items and users. So the figures compare what fields and ids
carry within one model. They cannot show how training treats an item without interactions, nor what features say that were
never trained on it: a split by "users" or "items" measures that, and `recall.evaluation.hold_out` reports it.
"""

import time
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from recall._arrays import Float32
from recall.bundle.reader import Bundle
from recall.config import EvaluationConfig
from recall.evaluation.bootstrap import Comparison, Estimate, Judgements, compare, estimate
from recall.evaluation.exact_topk import Replaced, pair_scores
from recall.evaluation.lists import ItemLists
from recall.evaluation.offline import OfflineReplay
from recall.features.blocks import Block
from recall.features.masking import id_blocks, standing_in
from recall.features.vocabulary import MISSING, UNKNOWN


class Masked(BaseModel):
    """The model when some of its fields are masked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fields: tuple[str, ...]
    """Fields that are masked."""
    metrics: dict[str, Estimate]
    comparison: dict[str, Comparison]
    """Masked against whole, over the same requests; the ratio is the share that is kept."""


class ColdStart(BaseModel):
    """Figures of exact lists straight from the vectors, all on the same requests: recall, hit_rate and ndcg as `name@k`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    simulated: Literal[True] = True
    """Ids are masked in a model that was trained on these very items and users. The figures of new ones need a training of
    their own, with `data.split` by "users" or "items"."""

    requests: int
    users: int
    whole: dict[str, Estimate]
    """The model with nothing masked."""
    popularity: dict[str, Estimate]
    """The baseline, which knows how often each item was met."""
    new_items: Masked | None
    """Every relevant item of a request is known by its other fields only, among all other items as they are; None when no
    item field reads the id: then a new item is scored as any other with its features."""
    new_users: Masked | None
    """The user is known by their other fields only; None when no user field reads the id."""
    history_only: Masked | None
    """All is missing but the history; None when there is no history field, or no other."""
    seconds: float


def start_cold(trial: OfflineReplay, bundle: Bundle, popularity: Judgements, config: EvaluationConfig, seed: int) -> ColdStart:
    """Mask ids, and judge again.

    Args:
        trial: the requests.
        bundle: the one that the trial is of.
        popularity: what the baseline comes to on the same requests, in the same order.
        config: the lengths to judge at, and how many resamples.
        seed: of the resamples.
    """
    started = time.monotonic()
    at, encoder = sorted(set(config.at)), bundle.encoder
    whole = trial.judge(trial.lists(at[-1]), at)

    def masked(blocks: tuple[Block, ...], judged: Judgements) -> Masked:
        return Masked(
            fields=tuple(dict.fromkeys(block.field for block in blocks)),
            metrics=estimate(judged, config.intervals, seed),
            comparison=compare(judged, whole, config.intervals, seed),
        )

    def asked_again(blocks: tuple[Block, ...], value: int) -> Masked:
        vectors = bundle.tables.user_vectors(standing_in(trial.users, blocks, value))
        return masked(blocks, trial.judge(trial.lists(at[-1], user_vectors=vectors), at))

    item_ids, user_ids = id_blocks(encoder, "item"), id_blocks(encoder, "user")
    told = tuple(block for block in encoder.user_blocks if block.field in encoder.columns)
    new_items = trial.lists(at[-1], replaced=_as_new(trial, bundle, item_ids)) if item_ids else None
    return ColdStart(
        requests=len(trial),
        users=len(np.unique(trial.user)),
        whole=estimate(whole, config.intervals, seed),
        popularity=estimate(
            Judgements(popularity.user, {name: popularity.values[name] for name in whole.values}), config.intervals, seed
        ),
        new_items=None if new_items is None else masked(item_ids, trial.judge(new_items, at)),
        new_users=asked_again(user_ids, UNKNOWN) if user_ids else None,
        history_only=asked_again(told, MISSING) if encoder.histories and told else None,
        seconds=time.monotonic() - started,
    )


def _as_new(trial: OfflineReplay, bundle: Bundle, blocks: tuple[Block, ...]) -> Replaced:
    """What each relevant item of the catalogue scores for its request when the model does not know its id."""
    relevant, size = trial.relevant, len(trial.item_vectors)
    there = relevant.items < size
    pairs = ItemLists.from_pairs(relevant.owners[there], relevant.items[there], len(relevant))
    items, place = np.unique(pairs.items, return_inverse=True)
    rows = bundle.encoder.encode_items(bundle.items()[items])
    vectors: Float32 = bundle.tables.item_vectors(standing_in(rows, blocks, UNKNOWN))
    return Replaced(pairs, pair_scores(trial.user_vectors, vectors, ItemLists(pairs.indptr, place.astype(np.int32))))
