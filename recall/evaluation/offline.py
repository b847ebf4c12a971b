"""Rank held-out requests by exact scores, with changed vectors of users or items.

Requests are encoded once, as the recommender encodes them. Scores are inner products of blocks of requests with all items, so
that lists are exact, and a change of users or items only needs their new vectors.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from recall._arrays import Float32, Int64
from recall.bundle.reader import Bundle
from recall.config import EvaluationConfig
from recall.config.schema import Side
from recall.data.dataset import Dataset
from recall.evaluation import metrics
from recall.evaluation.bootstrap import Comparison, Estimate, Figures, PerRequestMetrics, compare, estimate
from recall.evaluation.exact_topk import ItemLists, Replaced, top_rows
from recall.evaluation.protocol import HeldOutRequests, requests
from recall.features.csr import SparseRows
from recall.serving.recommender import Recommender


@dataclass(frozen=True, slots=True)
class OfflineReplay:
    """Requests of one bundle, whose item rows are the bundle's.

    Attributes:
        user: int64 [q], the user of each request.
        users: q rows in the user feature space.
        user_vectors: float32 [q, dim], of `users`.
        item_vectors: float32 [items, dim], as they are served.
        relevant: q lists; an item that the bundle lacks has a row beyond its catalogue, and is always missed.
        masked: q lists.
    """

    user: Int64
    users: SparseRows
    user_vectors: Float32
    item_vectors: Float32
    relevant: ItemLists
    masked: ItemLists

    @staticmethod
    def of(recommender: Recommender, dataset: Dataset, held: HeldOutRequests) -> "OfflineReplay":
        """Encode the held-out requests.

        Args:
            recommender: of the bundle.
            dataset: the interactions.
            held: the requests.

        Raises:
            DataError: The data lack a column or the history that the model reads.
        """
        bundle = recommender.bundle
        unmasked = replace(held, masked=ItemLists.empty(len(held)))  # to name every masked item would be for nothing
        users = SparseRows.vstack(
            recommender.encode(requests(dataset, batch, bundle.encoder, 1)) for _, batch in unmasked.batches()
        )
        rows = bundle.item_ids.rows(dataset.items[dataset.schema.item_id].to_list())
        placed, vectors = held.in_catalogue(rows, len(bundle.item_vectors)), bundle.tables.user_vectors(users)
        return OfflineReplay(held.user, users, vectors, bundle.item_vectors, placed.relevant, placed.masked)

    def __len__(self) -> int:
        return len(self.user)

    def lists(
        self,
        n: int,
        user_vectors: Float32 | None = None,
        item_vectors: Float32 | None = None,
        replaced: Replaced | None = None,
    ) -> Int64:
        """Return the exact lists: int64 [q, min(n, items)], -1 where fewer are eligible.

        Args:
            n: length of the lists.
            user_vectors: float32 [q, dim]; default: those of the requests.
            item_vectors: float32 [items, dim]; default: the served ones.
            replaced: scores of some pairs that replace the inner product.
        """
        phi = self.user_vectors if user_vectors is None else user_vectors
        psi = self.item_vectors if item_vectors is None else item_vectors
        return top_rows(phi, psi, self.masked, n, replaced)

    def metrics_of(self, rows: Int64, at: Sequence[int]) -> PerRequestMetrics:
        """Return recall, hit_rate and ndcg of lists, as `name@k`.

        Args:
            rows: int64 [q, places], from `lists`.
            at: lengths of the lists.
        """
        hits, relevant = self.relevant.contains(rows), self.relevant.lengths
        return PerRequestMetrics(
            self.user,
            {f"recall@{k}": metrics.recall(hits, relevant, k) for k in at}
            | {f"hit_rate@{k}": metrics.hit_rate(hits, k) for k in at}
            | {f"ndcg@{k}": metrics.ndcg(hits, relevant, k) for k in at},
        )


# Recall and coverage of the lists at several settings of a request's `popularity`.


class DialPoint(Figures):
    """One setting of the dial."""

    popularity: float
    """The `popularity` of all requests; 1 is the model's own ranking."""
    recall: Estimate
    coverage: float
    """Share of the bundle's catalogue that is in at least one of the lists."""


class Dial(Figures):
    """The curve, over exact lists straight from the vectors."""

    k: int
    """Length of the lists."""
    requests: int
    """Number of requests; coverage grows with it."""
    points: tuple[DialPoint, ...]
    seconds: float


def popularity_curve(replay: OfflineReplay, config: EvaluationConfig, seed: int) -> Dial | None:
    """Return the curve over `config.dial` at the longest length; None without a dial.

    Args:
        replay: the requests.
        config: the weights of popularity, and number of resamples.
        seed: of the resamples.
    """
    if not config.dial:
        return None
    started = time.monotonic()
    k, settings = max(config.at), sorted(set(config.dial))
    recalls, covered = {}, []
    for beta in settings:
        vectors = replay.user_vectors.copy()
        vectors[:, 0] *= np.float32(beta)  # as the recommender does to the vector of a request
        rows = replay.lists(k, user_vectors=vectors)
        recalls[f"{beta:g}"] = metrics.recall(replay.relevant.contains(rows), replay.relevant.lengths, k)
        covered.append(metrics.coverage(metrics.exposure(rows, len(replay.item_vectors), k)))
    estimates = estimate(PerRequestMetrics(replay.user, recalls), config.intervals, seed).values()
    points = [
        DialPoint(popularity=beta, recall=recall, coverage=coverage)
        for beta, recall, coverage in zip(settings, estimates, covered, strict=True)
    ]
    return Dial(k=k, requests=len(replay), points=tuple(points), seconds=time.monotonic() - started)


# Ablation: the same requests ranked without each field. The model is not retrained, so this measures how it uses the field, not
# how well another model would do without it.

_NAMES = ("recall", "ndcg")


class FieldAblation(Figures):
    """The model without one field."""

    field: str
    side: Side
    metrics: dict[str, Estimate]
    comparison: dict[str, Comparison]
    """Without the field against the whole model, over the same requests."""
    word: Literal["helps", "hurts", "mixed", "undecided"]
    """'hurts' when at the longest length an interval of recall or ndcg without the field is above the whole model's and
    none below; 'helps' the other way round; 'undecided' when the data do not suffice."""


class Ablation(Figures):
    """recall and ndcg, as `name@k`, of exact lists straight from the vectors."""

    requests: int
    whole: dict[str, Estimate]
    fields: tuple[FieldAblation, ...]
    seconds: float


def ablate(replay: OfflineReplay, bundle: Bundle, config: EvaluationConfig, seed: int) -> Ablation:
    """Leave out each field in turn: user fields of requests, item fields of all items.

    Args:
        replay: the requests.
        bundle: the one that the replay is of.
        config: lengths of the lists, and number of resamples.
        seed: of the resamples.
    """
    started = time.monotonic()
    at, encoder, tables = sorted(set(config.at)), bundle.encoder, bundle.tables
    names = [f"{name}@{k}" for name in _NAMES for k in at]
    item_rows = encoder.encode_items(bundle.items())

    def judged(user_vectors: Float32 | None = None, item_vectors: Float32 | None = None) -> PerRequestMetrics:
        return replay.metrics_of(replay.lists(at[-1], user_vectors, item_vectors), at).only(names)

    whole, worth = judged(), []
    for name, field in encoder.schema.fields.items():
        blocks = [block for block in (*encoder.user_blocks, *encoder.item_blocks) if block.field == name]
        if field.side == "user":
            rest = judged(user_vectors=tables.user_vectors(replay.users.without(blocks)))
        else:
            rest = judged(item_vectors=tables.item_vectors(item_rows.without(blocks)))
        comparison = compare(rest, whole, config.intervals, seed)
        worth.append(
            FieldAblation(
                field=name,
                side=field.side,
                metrics=estimate(rest, config.intervals, seed),
                comparison=comparison,
                word=_word({comparison[f"{one}@{at[-1]}"].verdict for one in _NAMES}),
            )
        )
    return Ablation(
        requests=len(replay),
        whole=estimate(whole, config.intervals, seed),
        fields=tuple(worth),
        seconds=time.monotonic() - started,
    )


def _word(verdicts: set[Literal["higher", "lower", "undecided"]]) -> Literal["helps", "hurts", "mixed", "undecided"]:
    told = verdicts - {"undecided"}
    if len(told) == 2:
        return "mixed"
    return "undecided" if not told else "hurts" if told == {"higher"} else "helps"
