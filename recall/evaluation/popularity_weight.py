"""What the popularity dial does: recall and coverage of the lists as a request turns it."""

import time

import numpy as np
from pydantic import BaseModel, ConfigDict

from recall.config import EvaluationConfig
from recall.evaluation import metrics
from recall.evaluation.bootstrap import Estimate, Judgements, estimate
from recall.evaluation.offline import OfflineReplay


class DialPoint(BaseModel):
    """One setting of the dial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    popularity: float
    """What every request asks for; 1 is the model's own ranking."""
    recall: Estimate
    coverage: float
    """Share of the bundle's catalogue that stands in at least one of the lists."""


class Dial(BaseModel):
    """The curve, over exact lists straight from the vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int
    """Length of the lists."""
    requests: int
    """How many were asked; more of them cover more."""
    points: tuple[DialPoint, ...]
    seconds: float


def turn(trial: OfflineReplay, config: EvaluationConfig, seed: int) -> Dial | None:
    """The curve over `config.dial` at the longest length that is judged; None when there is nothing to turn to."""
    if not config.dial:
        return None
    started = time.monotonic()
    k, settings = max(config.at), sorted(set(config.dial))
    recalls, covered = {}, []
    for beta in settings:
        vectors = trial.user_vectors.copy()
        vectors[:, 0] *= np.float32(beta)  # as the recommender does to the vector of a request
        rows = trial.lists(k, user_vectors=vectors)
        recalls[f"{beta:g}"] = metrics.recall(trial.relevant.contains(rows), trial.relevant.lengths, k)
        covered.append(metrics.coverage(metrics.exposure(rows, len(trial.item_vectors), k)))
    estimates = estimate(Judgements(trial.user, recalls), config.intervals, seed).values()
    points = [
        DialPoint(popularity=beta, recall=recall, coverage=coverage)
        for beta, recall, coverage in zip(settings, estimates, covered, strict=True)
    ]
    return Dial(k=k, requests=len(trial), points=tuple(points), seconds=time.monotonic() - started)
