"""Requests asked as if nothing were known of the user, beside the most popular items under the same masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32, Float64
from recall.data.dataset import Dataset
from recall.errors import TrainingError
from recall.evaluation import metrics
from recall.evaluation.baselines import Popularity
from recall.evaluation.bootstrap import Judgements
from recall.evaluation.lists import Integers, ItemLists
from recall.evaluation.protocol import TestRequests
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import UNKNOWN

_STANDARD_ERRORS = 1.96  # half the width of a 95 % interval of a mean


def unknown_user(encoder: FeatureEncoder) -> SparseRows:
    """Encode the request of an unknown user: an id that was not learnt, and nothing else.

    All other columns are missing and the history is empty. A hashed id field has no unknown row; the id then shares the
    row of its bucket, as the id of a new user does when served.

    Returns:
        One row in the user feature space.
    """
    column = encoder.schema.user_id
    learnt = [
        field.vocabulary
        for field in encoder.columns.values()
        if column in field.columns and field.vocabulary is not None and len(field.columns) == 1
    ]
    name = "unknown"
    while any(vocabulary.row(name) != UNKNOWN for vocabulary in learnt):
        name += "_"
    read = {*encoder.users.columns, *encoder.contexts.columns}
    return encoder.encode_user({column: name} if column in read else {}).rows


@dataclass(frozen=True, slots=True)
class UnknownUsers:
    """Held-out requests that all are asked as by an unknown user, so that one ranking answers them.

    Attributes:
        features: one row in the user feature space, from `unknown_user`.
        relevant: q lists, what each request should find.
        masked: q lists, what is left out of each answer.
        popularity: metrics of the most frequent training items, on the same requests under the same masks.
        at: lengths to judge at.
    """

    features: SparseRows
    relevant: ItemLists
    masked: ItemLists
    popularity: Judgements
    at: tuple[int, ...]

    @staticmethod
    def of(dataset: Dataset, encoder: FeatureEncoder, held: TestRequests, at: Sequence[int]) -> "UnknownUsers":
        """Ask held-out requests as by an unknown user.

        Args:
            dataset: its training part is what popularity counts.
            encoder: of the model to be judged.
            held: the requests; rows are those of `dataset.items`.
            at: lengths to judge at.
        """
        counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(dataset.items))
        popular = _judged(Popularity.fit(counts), held.user, held.relevant, held.masked, at)
        return UnknownUsers(unknown_user(encoder), held.relevant, held.masked, popular, tuple(at))

    def judge(self, user_vector: Float32, item_vectors: Float32) -> Judgements:
        """Judge the one ranking that an unknown user gets, request by request.

        Args:
            user_vector: float32 [1, dim], of `features`.
            item_vectors: float32 [items, dim].

        Raises:
            TrainingError: a score is not finite.
        """
        scores = item_vectors @ user_vector[0]
        if not np.isfinite(scores).all():
            raise TrainingError(
                "scores for an unknown user are not finite", hint="Lower the learning rate or raise the regularisation"
            )
        return _judged(Popularity.ranked(scores), self.popularity.user, self.relevant, self.masked, self.at)

    def figures(self, user_vector: Float32, item_vectors: Float32) -> dict[str, float]:
        """Summarise `judge`, which has the same arguments and errors, for watching a model while it learns.

        Returns:
            For each metric, such as `ndcg@10`: `unknown_ndcg@10`, its mean over requests, and `unknown_margin_ndcg@10`,
            the upper end of the 95 % interval of its difference to popularity. A negative margin means that an unknown
            user is worse served than by popularity, beyond chance.
        """
        judged = self.judge(user_vector, item_vectors)
        result = {}
        for name, values in judged.values.items():
            result[f"unknown_{name}"] = float(values.mean())
            result[f"unknown_margin_{name}"] = upper_end(values - self.popularity.values[name], judged.user)
        return result


def fair_figure(figures: Mapping[str, float], metric: str) -> float:
    """A metric less the lead that popularity surely has over it with unknown users, which early stopping goes by.

    So a sweep that serves unknown users worse than popularity does must gain at least as much with the requests as they are.

    Args:
        figures: from a validation: the metric, and its `unknown_margin_` of `UnknownUsers.figures` where there is one.
        metric: such as `ndcg@10`.
    """
    return figures[metric] + min(0.0, figures.get(f"unknown_margin_{metric}", 0.0))


def upper_end(differences: Float64, user: Integers) -> float:
    """The upper end of the 95 % interval of a mean difference, by the standard error over users.

    Requests of one user are alike and count as one observation (cluster-robust standard error, Cameron and Miller 2015).
    Bootstrap intervals, as in reports, would take longer than a sweep over small data.

    Args:
        differences: float64 [q].
        user: integer [q], whose request each is.
    """
    mean = float(differences.mean())
    _, code = np.unique(user, return_inverse=True)
    sums = np.bincount(code, weights=differences - mean)
    if len(sums) < 2:
        return mean
    error = np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(differences)
    return mean + _STANDARD_ERRORS * float(error)


def _judged(ranking: Popularity, user: Integers, relevant: ItemLists, masked: ItemLists, at: Sequence[int]) -> Judgements:
    rows = ranking.top(masked.indptr, masked.items, max(at))
    return Judgements(user, metrics.per_request(relevant.contains(rows), relevant.lengths, at))
