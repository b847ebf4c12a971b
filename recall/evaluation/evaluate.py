"""Evaluate a published model through the recommender that serves it.

The whole catalogue is ranked; nothing is sampled.
"""

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from recall._arrays import Int64
from recall._text_table import TextTable
from recall.config import RunConfig
from recall.data.dataset import Dataset
from recall.data.split import TEST
from recall.errors import DataError
from recall.evaluation import metrics
from recall.evaluation.baselines import Popularity
from recall.evaluation.bootstrap import Comparison, Estimate, Figures, PerRequestMetrics, compare, estimate
from recall.evaluation.calibration import Discrimination, discriminate
from recall.evaluation.cold_start import ColdStart, evaluate_cold_start
from recall.evaluation.data_match import refuse_foreign
from recall.evaluation.hold_out import HeldOutItems, HeldOutUsers, evaluate_new_items, evaluate_new_users, refuse_known_ids
from recall.evaluation.offline import Ablation, Dial, OfflineReplay, ablate, popularity_curve
from recall.evaluation.protocol import HeldOutRequests, held_out, requests, row_by_row
from recall.index.tuning.recall import recalls_found
from recall.serving.recommender import Recommender


class ListFigures(Figures):
    """Metrics of a ranking at every length, and properties of its lists as a whole."""

    metrics: dict[str, Estimate]
    """recall, hit_rate, ndcg, mrr, map and novelty, each as `name@k`, with intervals over users."""
    coverage: dict[str, float]
    """Share of the catalogue, of the data and the bundle together, that is in at least one list, by `coverage@k`."""
    gini: dict[str, float]
    """Inequality of exposure over the catalogue, by `gini@k`; 0 is equal."""


def joint_catalogue(dataset: Dataset, bundles: Sequence[TextTable]) -> TextTable:
    """Return the items of the data set by row, then those that only the bundles have.

    Args:
        dataset: the interactions.
        bundles: the item ids of each bundle.
    """
    ids = dataset.items[dataset.schema.item_id]
    others = [published.values.alias(ids.name) for published in bundles]
    return TextTable.of(pl.concat([ids, *others]).unique(maintain_order=True))


def recommended_rows(
    recommender: Recommender, dataset: Dataset, held: HeldOutRequests, catalogue: TextTable, n: int
) -> tuple[Int64, int]:
    """Ask a recommender for lists of n items.

    Args:
        recommender: of the bundle.
        dataset: the interactions.
        held: the requests.
        catalogue: from `joint_catalogue`.
        n: length of the lists.

    Returns:
        Rows of the joint catalogue, int64 [q, n], -1 past the end of a short list; and the number of requests whose user the
        bundle does not hold.

    Raises:
        DataError: The data lack a column or the history that the model reads.
    """
    rows = np.full((len(held), n), -1, dtype=np.int64)
    strangers = 0
    for first, batch in held.batches():
        answered = recommender.recommend_batch(requests(dataset, batch, recommender.bundle.encoder, n))
        for row, answer in enumerate(answered, start=first):
            rows[row, : len(answer.items)] = catalogue.rows([item.item_id for item in answer.items])
            strangers += answer.user == "unknown"
    return rows, strangers


_COMPARED = 2_000  # requests whose lists are compared with an exact search
_PARTS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")


class BundleResult(Figures):
    """The lists of one bundle."""

    bundle: str
    unreachable: int
    """Relevant items that are masked or not in the bundle's catalogue: each is a miss."""
    strangers: int
    """Requests whose user is not in the bundle: they are answered without the features of the users table."""
    context_columns: tuple[str, ...] = ()
    """Columns that were read from the held-out rows themselves, as context of the requests. A figure holds in service only if
    requests contain them, known before an item is chosen."""
    exact: bool
    """Whether the index always finds the best items."""
    model: ListFigures


class Rival(BundleResult):
    """Another bundle, evaluated on the same requests."""

    comparison: dict[str, Comparison]
    """The report's bundle against this one, over the same users and requests."""


class EvaluationReport(BundleResult):
    """All results of one evaluation."""

    part: Literal["train", "valid", "test"]
    mask: Literal["none", "context", "user"]
    request: Literal["row", "context"]
    """Unit of a request; with a history field, each row is a request, regardless of the configuration."""
    requests: int
    users: int
    items: int
    relevant: int
    found: Estimate
    """Share of the exact top lists that the index returned, on at most 2,000 of the requests."""
    popularity: ListFigures
    """The popularity baseline: the most frequent training items, under the same masks."""
    comparison: dict[str, Comparison]
    """Model against popularity, over the same users."""
    dial: Dial | None
    """Recall and coverage by `popularity` of the requests; None when `evaluation.dial` is empty."""
    cold: ColdStart | None
    """Simulated cold start; None where the split holds users or items out, which measures it."""
    held_out_users: HeldOutUsers | None = None
    """Results of users without training interactions, with `data.split` by "users"."""
    held_out_items: HeldOutItems | None = None
    """Results of items without training interactions, with `data.split` by "items"."""
    discrimination: Discrimination | None = None
    """AUC and calibration, where the model was trained by log loss or the data have labels."""
    ablation: Ablation | None = None
    """The model without each of its fields, if requested."""
    rivals: tuple[Rival, ...] = ()
    """Other bundles, evaluated on the same requests."""
    seconds: float

    def frame(self) -> pl.DataFrame:
        """Return each metric with its interval, beside popularity."""
        named = self.model.metrics
        popular = [self.popularity.metrics[name].value for name in named]
        return pl.DataFrame(
            {
                "metric": list(named),
                "value": [one.value for one in named.values()],
                "low": [one.low for one in named.values()],
                "high": [one.high for one in named.values()],
                "popularity": popular,
                "verdict": [self.comparison[name].verdict for name in named],
            },
            schema_overrides={"low": pl.Float64, "high": pl.Float64},
        )

    def __str__(self) -> str:
        return str(self.frame())

    def _repr_html_(self) -> str:
        return self.frame()._repr_html_()


def evaluate(
    recommender: Recommender,
    dataset: Dataset,
    config: RunConfig,
    split: int = TEST,
    *,
    ablated: bool = False,
    against: Sequence[Recommender] = (),
) -> EvaluationReport:
    """Evaluate a recommender on held-out interactions.

    Known interactions are masked: those of the training part, and of the validation part when the test part is evaluated.

    Args:
        recommender: the published model.
        dataset: the interactions, split.
        config: `evaluation` has the protocol and the metrics.
        split: the part to evaluate on.
        ablated: also evaluate the model without each of its fields.
        against: other published models, which are evaluated on the same requests.

    Raises:
        DataError: The part is empty, a bundle was trained on other data, or the data lack a context column or the history
            that a model reads.
    """
    started = time.monotonic()
    at = sorted(set(config.evaluation.at))
    judged = dataset.select(split)
    if len(judged) == 0:
        raise DataError("no interaction is held out to evaluate on", where="data.split", hint="Hold some interactions out")
    for one in (recommender, *against):
        refuse_foreign(dataset, one.bundle, len(one.users), one.users.get)
    for one in (recommender, *against) if dataset.hold_out else ():
        refuse_known_ids(dataset, one.bundle, split)
    held = held_out(dataset, config.evaluation, judged, np.flatnonzero(dataset.events["split"].to_numpy() < split))
    catalogue = joint_catalogue(dataset, [one.bundle.item_ids for one in (recommender, *against)])
    counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(catalogue))
    information = metrics.self_information(counts)
    resamples, seed = config.evaluation.intervals, config.seed

    def figures(rows: Int64) -> tuple[PerRequestMetrics, ListFigures]:
        values = metrics.per_request(held.relevant.contains(rows), held.relevant.lengths, at)
        values |= {f"novelty@{k}": metrics.novelty(rows, information, k) for k in at}
        by_request = PerRequestMetrics(held.user, values)
        exposed = {k: metrics.exposure(rows, len(catalogue), k) for k in at}
        return by_request, ListFigures(
            metrics=estimate(by_request, resamples, seed),
            coverage={f"coverage@{k}": metrics.coverage(shown) for k, shown in exposed.items()},
            gini={f"gini@{k}": metrics.gini(shown) for k, shown in exposed.items()},
        )

    def answered(one: Recommender) -> tuple[PerRequestMetrics, BundleResult]:
        rows, strangers = recommended_rows(one, dataset, held, catalogue, at[-1])
        by_request, model = figures(rows)
        return by_request, BundleResult(
            bundle=one.bundle.manifest.version,
            unreachable=_unreachable(one, dataset, held),
            strangers=strangers,
            context_columns=one.bundle.encoder.context_columns,
            exact=one.index.exact,
            model=model,
        )

    by_model, result = answered(recommender)
    by_popularity, popularity = figures(Popularity.ranked(counts).top(held.masked, at[-1]))
    rivals = [
        Rival(**dict(rival), comparison=compare(by_model, by_rival, resamples, seed))
        for by_rival, rival in map(answered, against)
    ]
    drawn = held.drawn(config.evaluation.sample, seed)
    replay, popular = OfflineReplay.of(recommender, dataset, held.take(drawn)), by_popularity.take(drawn)
    bundle = recommender.bundle
    return EvaluationReport(
        **dict(result),
        part=_PARTS[split],
        mask=config.evaluation.mask,
        request="row" if row_by_row(dataset, config.evaluation) else config.evaluation.request,
        requests=len(held),
        users=len(np.unique(held.user)),
        items=len(bundle.item_ids),
        relevant=len(held.relevant.items),
        found=_found(recommender, dataset, held.take(held.drawn(_COMPARED, seed)), at[-1], resamples, seed),
        popularity=popularity,
        comparison=compare(by_model, by_popularity, resamples, seed),
        dial=popularity_curve(replay, config.evaluation, seed),
        cold=None if dataset.hold_out else evaluate_cold_start(replay, bundle, popular, config.evaluation, seed),
        held_out_users=evaluate_new_users(replay, bundle, popular, config.evaluation, seed)
        if dataset.hold_out == "users"
        else None,
        held_out_items=evaluate_new_items(replay, bundle, dataset, split, popular, config.evaluation, seed)
        if dataset.hold_out == "items"
        else None,
        discrimination=discriminate(bundle, dataset, split, config.evaluation, seed),
        ablation=ablate(replay, bundle, config.evaluation, seed) if ablated else None,
        rivals=tuple(rivals),
        seconds=time.monotonic() - started,
    )


def _unreachable(recommender: Recommender, dataset: Dataset, held: HeldOutRequests) -> int:
    """Relevant items that are masked or not in the catalogue."""
    ids = dataset.items[dataset.schema.item_id].gather(held.relevant.items).to_list()
    return int(((recommender.bundle.item_ids.rows(ids) < 0) | held.hidden).sum())


def _found(recommender: Recommender, dataset: Dataset, held: HeldOutRequests, n: int, resamples: int, seed: int) -> Estimate:
    """Estimate the recall of the index against exact lists, unmasked."""
    encoder, vectors = recommender.bundle.encoder, recommender.bundle.item_vectors
    shares = [
        recalls_found(recommender.index, vectors, recommender.user_vectors(requests(dataset, batch, encoder, n)), n)
        for _, batch in held.batches()
    ]
    return estimate(PerRequestMetrics(held.user, {"found": np.concatenate(shares)}), resamples, seed)["found"]
