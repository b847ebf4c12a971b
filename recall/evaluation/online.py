"""Send held-out requests through the call that serves, and evaluate each answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from recall._arrays import Int64
from recall.bundle.item_ids import ItemIds
from recall.data.dataset import Dataset
from recall.evaluation import metrics
from recall.evaluation.bootstrap import Estimate, PerRequestMetrics, estimate
from recall.evaluation.protocol import TestRequests, requests
from recall.serving.recommender import Recommender

_AT_ONCE = 512  # requests answered by one search


class ListFigures(BaseModel):
    """Metrics of a ranking at every length, and properties of its lists as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: dict[str, Estimate]
    """recall, hit_rate, ndcg, mrr, map and novelty, each as `name@k`, with intervals over users."""
    coverage: dict[str, float]
    """Share of the catalogue, of the data and the bundle together, that stands in at least one list, by `coverage@k`."""
    gini: dict[str, float]
    """Inequality of exposure over the catalogue, by `gini@k`; 0 is equal."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The lists of one recommender.

    Attributes:
        rows: int64 [q, n], rows of the joint catalogue, -1 past the end of a short list.
        strangers: requests whose user the bundle does not hold.
    """

    rows: Int64
    strangers: int


def joint_catalogue(dataset: Dataset, bundles: Sequence[ItemIds]) -> ItemIds:
    """Return the items of the data set by row, then those that only the bundles have.

    Args:
        dataset: the interactions.
        bundles: the item ids of each bundle.
    """
    ids = dataset.items[dataset.schema.item_id]
    others = [published.values.alias(ids.name) for published in bundles]
    return ItemIds.of(pl.concat([ids, *others]).unique(maintain_order=True))


def pieces(held: TestRequests) -> Iterator[tuple[int, TestRequests]]:
    """Yield the requests in batches of one search, with the position of the first."""
    for first in range(0, len(held), _AT_ONCE):
        yield first, held.between(first, min(first + _AT_ONCE, len(held)))


def answers(recommender: Recommender, dataset: Dataset, held: TestRequests, catalogue: ItemIds, n: int) -> Answers:
    """Ask for lists of n items.

    Args:
        recommender: of the bundle.
        dataset: the interactions.
        held: the requests.
        catalogue: from `joint_catalogue`.
        n: length of the lists.

    Raises:
        DataError: The data lack a column or the history that the model reads.
    """
    rows = np.full((len(held), n), -1, dtype=np.int64)
    strangers = 0
    for first, piece in pieces(held):
        answered = recommender.recommend_batch(requests(dataset, piece, recommender.bundle.encoder, n))
        for row, answer in enumerate(answered, start=first):
            rows[row, : len(answer.items)] = catalogue.rows([item.item_id for item in answer.items])
            strangers += answer.user == "unknown"
    return Answers(rows, strangers)


def judge(held: TestRequests, rows: Int64, counts: npt.NDArray[np.int64], at: Sequence[int]) -> PerRequestMetrics:
    """Every metric of every request.

    Args:
        held: the requests.
        rows: int64 [q, n], rows of the joint catalogue.
        counts: int64 [items], training interactions of each item of that catalogue.
        at: lengths k to judge at.
    """
    values = metrics.per_request(held.relevant.contains(rows), held.relevant.lengths, at)
    information = metrics.self_information(counts)
    return PerRequestMetrics(held.user, values | {f"novelty@{k}": metrics.novelty(rows, information, k) for k in at})


def list_figures(
    judgements: PerRequestMetrics, rows: Int64, n_items: int, at: Sequence[int], resamples: int, seed: int
) -> ListFigures:
    """Summarise metrics as means with intervals, and the lists as a whole.

    Args:
        judgements: one value for each request and metric.
        rows: int64 [q, places].
        n_items: size of the catalogue.
        at: lengths of the lists.
        resamples: number of bootstrap resamples.
        seed: of the draws.
    """
    exposed = {k: metrics.exposure(rows, n_items, k) for k in at}
    return ListFigures(
        metrics=estimate(judgements, resamples, seed),
        coverage={f"coverage@{k}": metrics.coverage(shown) for k, shown in exposed.items()},
        gini={f"gini@{k}": metrics.gini(shown) for k, shown in exposed.items()},
    )
