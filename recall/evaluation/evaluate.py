"""Judge a published model by its answers: the same recommender that serves, the whole catalogue, nothing sampled."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from recall.bundle.ids import ItemIds
from recall.config import RunConfig
from recall.data.dataset import Dataset
from recall.data.split import TEST, TRAIN
from recall.errors import ConfigError, DataError
from recall.evaluation import metrics
from recall.evaluation.bootstrap import Comparison, Estimate, Judgements, compare, estimate
from recall.evaluation.lists import Int64, ItemLists
from recall.evaluation.protocol import HeldOut, held_out
from recall.evaluation.ranking import top_rows
from recall.evaluation.requests import requests
from recall.models.popularity import Popularity
from recall.recommender import MOST, Recommender, Request

_AT_ONCE = 512  # requests answered by one search
_COMPARED = 2_000  # requests whose answers are compared with an exact search


class ListFigures(BaseModel):
    """What a ranking comes to at every length, and what its lists are like as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: dict[str, Estimate]
    """recall, hit_rate, ndcg, mrr, map and novelty, each as `name@k`, with intervals over users."""
    coverage: dict[str, float]
    """Share of the catalogue that stands in at least one list, by `coverage@k`."""
    gini: dict[str, float]
    """Inequality of exposure over the catalogue, by `gini@k`; 0 is equal."""


class EvaluationReport(BaseModel):
    """All that one evaluation came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    part: Literal["train", "valid", "test"]
    mask: Literal["none", "context", "user"]
    request: Literal["row", "context"]
    requests: int
    users: int
    items: int
    relevant: int
    unreachable: int
    """Relevant items that are masked or not in the bundle's catalogue: each is a miss."""
    exact: bool
    """Whether the index always finds the best items."""
    found: Estimate
    """Share of the exact top lists that the index returned, on at most 2,000 of the requests."""
    model: ListFigures
    popularity: ListFigures
    """The most frequent training items under the same masks, for everyone the same."""
    comparison: dict[str, Comparison]
    """Model against popularity, over the same users."""
    seconds: float


def evaluate(recommender: Recommender, dataset: Dataset, config: RunConfig, split: int = TEST) -> EvaluationReport:
    """Ask the recommender what the held-out interactions ask, and judge its answers.

    What is masked is known before: the training part, and the validation part too when the test part is judged.

    Args:
        recommender: the published model.
        dataset: the interactions, split.
        config: `evaluation` says how to ask and what to judge.
        split: the part to judge.

    Raises:
        DataError: the part is empty, or the data name a context column that the model does not know.
        ConfigError: a length in `evaluation.at` is longer than an answer may be.
    """
    started = time.monotonic()
    at = sorted(set(config.evaluation.at))
    if not at or at[0] < 1 or at[-1] > MOST:
        raise ConfigError(f"lengths {list(config.evaluation.at)}", where="evaluation.at", mend=f"Give lengths of 1 to {MOST}")
    judged = dataset.select(split)
    if len(judged) == 0:
        raise DataError(
            "there is no interaction to judge by", where="data.split", mend="Let the split hold some interactions out"
        )
    held = held_out(dataset, config.evaluation, judged, np.flatnonzero(dataset.events["split"].to_numpy() < split))
    asked = requests(dataset, held, recommender.bundle.encoder.context_columns, at[-1])
    catalogue = ItemIds.of(dataset.items[dataset.schema.item_id])
    rows = _answers(recommender, asked, catalogue, at[-1])

    counts = np.bincount(dataset.events["item"].to_numpy()[dataset.select(TRAIN)], minlength=len(dataset.items))
    popular = Popularity.fit(counts).top(held.masked.indptr, held.masked.items, at[-1])
    by_model, by_popularity = (_judge(held, lists, counts, at) for lists in (rows, popular))
    resamples, seed = config.evaluation.intervals, config.seed
    held_ids = set(recommender.bundle.item_ids.ids(np.arange(len(recommender.bundle.item_ids))))
    absent = np.array([one not in held_ids for one in dataset.items[dataset.schema.item_id]], dtype=np.bool_)
    return EvaluationReport(
        bundle=recommender.bundle.manifest.version,
        part=("train", "valid", "test")[split],
        mask=config.evaluation.mask,
        request=config.evaluation.request,
        requests=len(held),
        users=len(np.unique(held.user)),
        items=len(recommender.bundle.item_ids),
        relevant=len(held.relevant.items),
        unreachable=held.unreachable + int(absent[held.relevant.items].sum()),
        exact=recommender.index.exact,
        found=_found(recommender, held, asked, resamples, seed),
        model=_figures(by_model, rows, len(dataset.items), at, resamples, seed),
        popularity=_figures(by_popularity, popular, len(dataset.items), at, resamples, seed),
        comparison=compare(by_model, by_popularity, resamples, seed),
        seconds=time.monotonic() - started,
    )


def _answers(recommender: Recommender, asked: Sequence[Request], catalogue: ItemIds, n: int) -> Int64:
    """Rows of the data set's items that each request was answered with: int64 [q, n], -1 past the end."""
    rows = np.full((len(asked), n), -1, dtype=np.int64)
    for first in range(0, len(asked), _AT_ONCE):
        answers = recommender.recommend_batch(asked[first : first + _AT_ONCE])
        for row, answer in enumerate(answers, start=first):
            found = catalogue.rows([item.item_id for item in answer.items])
            rows[row, : len(found)] = found
    return rows


def _judge(held: HeldOut, rows: Int64, counts: npt.NDArray[np.int64], at: Sequence[int]) -> Judgements:
    values = metrics.per_request(held.relevant.contains(rows), held.relevant.lengths, at)
    information = metrics.self_information(counts)
    return Judgements(held.user, values | {f"novelty@{k}": metrics.novelty(rows, information, k) for k in at})


def _figures(judgements: Judgements, rows: Int64, n_items: int, at: Sequence[int], resamples: int, seed: int) -> ListFigures:
    exposed = {k: metrics.exposure(rows, n_items, k) for k in at}
    return ListFigures(
        metrics=estimate(judgements, resamples, seed),
        coverage={f"coverage@{k}": metrics.coverage(shown) for k, shown in exposed.items()},
        gini={f"gini@{k}": metrics.gini(shown) for k, shown in exposed.items()},
    )


def _found(recommender: Recommender, held: HeldOut, asked: Sequence[Request], resamples: int, seed: int) -> Estimate:
    """Share of the exact top lists over the bundle's own vectors that the index returns for the same user vectors."""
    chosen: Int64 = np.arange(len(held))
    if len(held) > _COMPARED:
        chosen = np.sort(np.random.default_rng(seed).choice(len(held), _COMPARED, replace=False))
    vectors = recommender.user_vectors([asked[row] for row in chosen.tolist()])
    n = min(asked[0].n, len(recommender.bundle.item_ids))
    returned = recommender.index.search(vectors, n).rows
    exact = top_rows(vectors, recommender.bundle.item_vectors, ItemLists.empty(len(chosen)), n)
    lowest = np.einsum("qd,qd->q", vectors, recommender.bundle.item_vectors[exact[:, -1]])
    scores = np.einsum("qd,qnd->qn", vectors, recommender.bundle.item_vectors[returned])
    # an item level with the last exact one, to rounding, is as good an answer
    good = (returned >= 0) & (scores >= (lowest - 1e-5 * np.maximum(np.abs(lowest), 1.0))[:, None])
    values: Mapping[str, npt.NDArray[np.float64]] = {"found": good.mean(axis=1)}
    return estimate(Judgements(held.user[chosen], values), resamples, seed)["found"]
