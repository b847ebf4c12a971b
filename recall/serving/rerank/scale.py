"""Scores of one list made comparable with those of another."""

import numpy as np
import numpy.typing as npt

from recall.serving.rerank.base import Scores


def scaled(scores: Scores) -> npt.NDArray[np.float64]:
    """Scores from 1, the largest, down to 0, the least; 1 where all are equal: floats [m] -> float64 [m]."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or values.max() == values.min():
        return np.ones(len(values))
    return np.asarray((values - values.min()) / (values.max() - values.min()), dtype=np.float64)
