"""Judge a published model by its answers: the same recommender that serves, the whole catalogue, nothing sampled."""

import time
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from recall.bundle.ids import ItemIds
from recall.config import RunConfig
from recall.data.dataset import Dataset
from recall.data.split import TEST
from recall.errors import DataError
from recall.evaluation import metrics
from recall.evaluation.bootstrap import Comparison, Estimate, Judgements, compare, estimate
from recall.evaluation.cold import ColdStart, start_cold
from recall.evaluation.dial import Dial, turn
from recall.evaluation.lists import Int64
from recall.evaluation.protocol import HeldOut, held_out
from recall.evaluation.requests import requests
from recall.evaluation.trial import Trial
from recall.index.calibration import shares_found
from recall.models.popularity import Popularity
from recall.recommender import Recommender

_AT_ONCE = 512  # requests answered by one search
_COMPARED = 2_000  # requests whose lists are compared with an exact search
_PARTS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")


class ListFigures(BaseModel):
    """What a ranking comes to at every length, and what its lists are like as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: dict[str, Estimate]
    """recall, hit_rate, ndcg, mrr, map and novelty, each as `name@k`, with intervals over users."""
    coverage: dict[str, float]
    """Share of the catalogue, of the data and the bundle together, that stands in at least one list, by `coverage@k`."""
    gini: dict[str, float]
    """Inequality of exposure over the catalogue, by `gini@k`; 0 is equal."""


class EvaluationReport(BaseModel):
    """All that one evaluation came to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    part: Literal["train", "valid", "test"]
    mask: Literal["none", "context", "user"]
    request: Literal["row", "context"]
    """How it was asked: with a history field each row is a request, whatever the configuration says."""
    requests: int
    users: int
    items: int
    relevant: int
    unreachable: int
    """Relevant items that are masked or not in the bundle's catalogue: each is a miss."""
    strangers: int
    """Requests whose user the bundle does not hold: they are answered without the features of the users table."""
    exact: bool
    """Whether the index always finds the best items."""
    found: Estimate
    """Share of the exact top lists that the index returned, on at most 2,000 of the requests."""
    model: ListFigures
    popularity: ListFigures
    """The most frequent training items under the same masks, for everyone the same."""
    comparison: dict[str, Comparison]
    """Model against popularity, over the same users."""
    dial: Dial | None
    """The curve over the popularity dial; None when `evaluation.dial` is empty."""
    cold: ColdStart
    """What is left when ids are unknown."""
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
        DataError: the part is empty, or the data lack a context column or the history that the model reads.
    """
    started = time.monotonic()
    at = sorted(set(config.evaluation.at))
    judged = dataset.select(split)
    if len(judged) == 0:
        raise DataError(
            "there is no interaction to judge by", where="data.split", mend="Let the split hold some interactions out"
        )
    held = held_out(dataset, config.evaluation, judged, np.flatnonzero(dataset.events["split"].to_numpy() < split))
    catalogue = _catalogue(dataset, recommender.bundle.item_ids)
    rows, strangers = _answers(recommender, dataset, held, catalogue, at[-1])

    counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(catalogue))
    popular = Popularity.fit(counts).top(held.masked.indptr, held.masked.items, at[-1])
    by_model, by_popularity = (_judge(held, lists, counts, at) for lists in (rows, popular))
    resamples, seed = config.evaluation.intervals, config.seed
    drawn = held.drawn(config.evaluation.sample, seed)
    trial = Trial.of(recommender, dataset, held.take(drawn))
    absent = recommender.bundle.item_ids.rows(catalogue.ids(held.relevant.items.astype(np.int64))) < 0
    return EvaluationReport(
        bundle=recommender.bundle.manifest.version,
        part=_PARTS[split],
        mask=config.evaluation.mask,
        request="row" if dataset.schema.history is not None else config.evaluation.request,
        requests=len(held),
        users=len(np.unique(held.user)),
        items=len(recommender.bundle.item_ids),
        relevant=len(held.relevant.items),
        unreachable=int((absent | held.hidden).sum()),
        strangers=strangers,
        exact=recommender.index.exact,
        found=_found(recommender, dataset, held.sample(_COMPARED, seed), at[-1], resamples, seed),
        model=_figures(by_model, rows, len(catalogue), at, resamples, seed),
        popularity=_figures(by_popularity, popular, len(catalogue), at, resamples, seed),
        comparison=compare(by_model, by_popularity, resamples, seed),
        dial=turn(trial, config.evaluation, seed),
        cold=start_cold(trial, recommender.bundle, by_popularity.take(drawn), config.evaluation, seed),
        seconds=time.monotonic() - started,
    )


def _catalogue(dataset: Dataset, published: ItemIds) -> ItemIds:
    """The data set's items in order of their rows, then those that only the bundle has."""
    ids = dataset.items[dataset.schema.item_id]
    others = published.values
    return ItemIds.of(pl.concat([ids, others.filter(~others.is_in(ids.implode())).alias(ids.name)]))


def _pieces(held: HeldOut) -> Iterator[tuple[int, HeldOut]]:
    for first in range(0, len(held), _AT_ONCE):
        yield first, held.between(first, min(first + _AT_ONCE, len(held)))


def _answers(recommender: Recommender, dataset: Dataset, held: HeldOut, catalogue: ItemIds, n: int) -> tuple[Int64, int]:
    """What each request was answered with, as rows of `catalogue`: int64 [q, n], -1 past the end.

    The second value is the number of requests whose user the bundle does not hold.
    """
    rows = np.full((len(held), n), -1, dtype=np.int64)
    strangers = 0
    for first, piece in _pieces(held):
        answers = recommender.recommend_batch(requests(dataset, piece, recommender.bundle.encoder, n))
        for row, answer in enumerate(answers, start=first):
            rows[row, : len(answer.items)] = catalogue.rows([item.item_id for item in answer.items])
            strangers += answer.user == "unknown"
    return rows, strangers


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


def _found(recommender: Recommender, dataset: Dataset, held: HeldOut, n: int, resamples: int, seed: int) -> Estimate:
    """Share of the exact lists over the bundle's vectors that the index returns for the requests' vectors, unmasked."""
    encoder, vectors = recommender.bundle.encoder, recommender.bundle.item_vectors
    shares = [
        shares_found(recommender.index, vectors, recommender.user_vectors(requests(dataset, piece, encoder, n)), n)
        for _, piece in _pieces(held)
    ]
    return estimate(Judgements(held.user, {"found": np.concatenate(shares)}), resamples, seed)["found"]
