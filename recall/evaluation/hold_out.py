"""Evaluate on new users and new items, without training interactions.

A split by "users" or "items" holds them out. Unlike the simulation in `recall.evaluation.cold_start`, no part of the model was
trained on the interactions to be found.
"""

import time
from collections.abc import Sequence

import numpy as np

from recall.bundle.reader import Bundle
from recall.config import EvaluationConfig
from recall.config.schema import Side
from recall.data.dataset import Dataset
from recall.errors import DataError
from recall.evaluation.baselines import content_lists, item_features
from recall.evaluation.bootstrap import Comparison, Estimate, Figures, PerRequestMetrics, compare, estimate
from recall.evaluation.cold_start import unknown_user
from recall.evaluation.exact_topk import ItemLists, top_rows
from recall.evaluation.metrics import recall
from recall.evaluation.offline import OfflineReplay
from recall.features.csr import FeatureBlock
from recall.features.vocabulary import UNKNOWN


class BaselineResult(Figures):
    """Metrics of one way to answer the requests, compared with another."""

    metrics: dict[str, Estimate]
    """recall, hit_rate and ndcg, each as `name@k`."""
    comparison: dict[str, Comparison]
    """The model against the baseline, over the same requests."""


class HeldOutUsers(Figures):
    """Requests of held-out users, with more or less of their features and history.

    All metrics are of exact lists, for the same requests and under the same masks.
    """

    requests: int
    users: int
    popularity: dict[str, Estimate]
    """The baseline: the most frequent training items."""
    unknown: BaselineResult
    """Requests with an unknown user id and nothing else; `comparison` is with popularity."""
    features: BaselineResult | None
    """Requests with the columns of the users table and of the request's context, without a history; None when no user field
    reads such a column."""
    history: BaselineResult | None
    """Requests with the history alone, which has the `given` share of the user's interactions; None without history field."""
    seconds: float

    def results(self) -> dict[str, BaselineResult]:
        """Return the results by the content of the requests."""
        ways = {"unknown": self.unknown, "by features": self.features, "by history": self.history}
        return {way: asked for way, asked in ways.items() if asked is not None}


class HeldOutItems(Figures):
    """Requests whose relevant items are held-out ones, among all items.

    All metrics are of exact lists, for the same requests and under the same masks.
    """

    requests: int
    users: int
    new: int
    """m, the items of the judged part."""
    items: int
    """n, all items of the bundle, m among them."""
    model: dict[str, Estimate]
    """recall, hit_rate and ndcg among all n items, each as `name@k`."""
    popularity: BaselineResult
    """The most frequent training items, which are never new ones; `comparison` is the model against it."""
    content: BaselineResult | None
    """The cosine between an item's features and the sum over the user's training items; None when no item field reads
    anything but the id."""
    k: int
    """Length of the longest list among all n items."""
    k_new: int
    """round(k m / n), at least 1: the length at which chance finds as much among the m new items as at k among all n."""
    among_all: Estimate
    """recall@k among all n items."""
    among_new: Estimate
    """recall@k_new of the same requests among the m new items alone."""
    ratio: Estimate | None
    """among_all / among_new: 1 where new items compete with all others as equals; None when among_new is 0."""
    seconds: float


def evaluate_new_users(
    replay: OfflineReplay, bundle: Bundle, popularity: PerRequestMetrics, config: EvaluationConfig, seed: int
) -> HeldOutUsers:
    """Evaluate requests of held-out users with all, some and none of their features.

    Args:
        replay: the requests.
        bundle: the one that the replay is of.
        popularity: the baseline on the same requests, in the same order.
        config: lengths of the lists, and number of resamples.
        seed: of the resamples.
    """
    started = time.monotonic()
    at, encoder = sorted(set(config.at)), bundle.encoder
    nothing = unknown_user(encoder)
    ids = {block.name for block in encoder.id_blocks("user")}
    histories = encoder.history_blocks
    columns = [block for block in encoder.user_blocks if block not in histories]

    def asked(blocks: Sequence[FeatureBlock]) -> BaselineResult:
        """Evaluate the requests with `blocks` as for an unknown user."""
        rows = replay.users.replaced(blocks, nothing)
        judged = replay.metrics_of(replay.lists(at[-1], user_vectors=bundle.tables.user_vectors(rows)), at)
        return BaselineResult(
            metrics=estimate(judged, config.intervals, seed), comparison=compare(judged, popularity, config.intervals, seed)
        )

    unknown = asked(encoder.user_blocks)
    return HeldOutUsers(
        requests=len(replay),
        users=len(np.unique(replay.user)),
        popularity={name: one for name, one in estimate(popularity, config.intervals, seed).items() if name in unknown.metrics},
        unknown=unknown,
        features=asked(histories) if any(block.name not in ids for block in columns) else None,
        history=asked(columns) if histories else None,
        seconds=time.monotonic() - started,
    )


def evaluate_new_items(
    replay: OfflineReplay,
    bundle: Bundle,
    dataset: Dataset,
    split: int,
    popularity: PerRequestMetrics,
    config: EvaluationConfig,
    seed: int,
) -> HeldOutItems:
    """Evaluate held-out items among all items and among themselves.

    The baselines are popularity and content.

    Args:
        replay: the requests.
        bundle: the one that the replay is of.
        dataset: gives the new items, and the training items of each user.
        split: the part to evaluate on.
        popularity: the baseline on the same requests, in the same order.
        config: lengths of the lists, and number of resamples.
        seed: of the resamples.

    Raises:
        DataError: No request has a held-out item to find.
    """
    started = time.monotonic()
    at, resamples = sorted(set(config.at)), config.intervals
    user, item = (dataset.events[name].to_numpy() for name in ("user", "item"))
    row_of = bundle.item_ids.rows(dataset.items[dataset.schema.item_id].to_list())
    new = row_of[np.unique(item[dataset.select(split)])]
    new = np.sort(new[new >= 0])
    if not len(new):
        raise DataError("the bundle has none of the held-out items", hint="Evaluate with the items table it was trained on")
    model = replay.metrics_of(replay.lists(at[-1]), at)

    k, k_new = at[-1], max(1, round(at[-1] * len(new) / len(replay.item_vectors)))
    found = top_rows(replay.user_vectors, replay.item_vectors[new], replay.masked.among(new), k_new)
    hits = replay.relevant.contains(np.where(found >= 0, new[found], -1))
    among_all = PerRequestMetrics(replay.user, {"recall": model.values[f"recall@{k}"]})
    among_new = PerRequestMetrics(replay.user, {"recall": recall(hits, replay.relevant.lengths, k_new)})

    def against(judged: PerRequestMetrics) -> BaselineResult:
        kept = judged.only(model.values)
        return BaselineResult(metrics=estimate(kept, resamples, seed), comparison=compare(model, kept, resamples, seed))

    features, content = item_features(bundle), None
    if features is not None:
        training = dataset.training[row_of[item[dataset.training]] >= 0]
        known = ItemLists.from_pairs(user[training], row_of[item[training]], len(dataset.users))
        content = against(replay.metrics_of(content_lists(features, known.take(replay.user), replay.masked, k), at))
    return HeldOutItems(
        requests=len(replay),
        users=len(np.unique(replay.user)),
        new=len(new),
        items=len(replay.item_vectors),
        model=estimate(model, resamples, seed),
        popularity=against(popularity),
        content=content,
        k=k,
        k_new=k_new,
        among_all=estimate(among_all, resamples, seed)["recall"],
        among_new=estimate(among_new, resamples, seed)["recall"],
        ratio=compare(among_all, among_new, resamples, seed)["recall"].ratio,
        seconds=time.monotonic() - started,
    )


def refuse_known_ids(dataset: Dataset, bundle: Bundle, split: int) -> None:
    """Check that the bundle was not trained on the ids that the split holds out.

    Otherwise its figures would be those of known ids. A bundle without a field of the id cannot be checked.

    Args:
        dataset: the interactions, split.
        bundle: the model.
        split: the part to evaluate on.

    Raises:
        DataError: It knows held-out ids.
    """
    side: Side = "user" if dataset.hold_out == "users" else "item"
    encoder, schema = bundle.encoder, dataset.schema
    column = schema.user_id if side == "user" else schema.item_id
    frame = dataset.users if side == "user" else dataset.items
    held = frame[column].gather(np.unique(dataset.events[side].to_numpy()[dataset.select(split)]))
    for block in encoder.id_blocks(side):
        field = encoder.columns[block.field]
        if field.vocabulary is None or len(field.columns) > 1:
            continue
        learnt = int((field.vocabulary.rows(held) != UNKNOWN).sum())
        if learnt:
            raise DataError(
                f"the bundle was trained on {learnt:,} of the {len(held):,} {side}s that the split holds out",
                where="data.split",
                hint="Train with the same data.split and seed, then evaluate the bundle that comes of it",
            )
