"""The proof that a bundle's vectors give the model's scores, and its lists."""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Bool, Float32, Float64
from recall.errors import ExportError

TOP = 10
"""Length of the lists that are compared."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a comparison of served scores with the model's has shown.

    Attributes:
        users, items: how many were drawn; every pair was compared.
        largest_error: largest difference of two scores, relative to the user's largest score, or to 1 where that is smaller.
        tolerance: the largest error that is allowed.
        top_k: length of the lists compared, over the items drawn.
        top_k_agreement: users whose served list is the model's, but for items whose scores tie within the tolerance.
    """

    users: int
    items: int
    largest_error: float
    tolerance: float
    top_k: int
    top_k_agreement: int


def check_parity(
    user_vectors: Float32, user_offset: Float64, item_vectors: Float32, scores: Float64, tolerance: float
) -> Proof:
    """Compare what is served with what the model says.

    Args:
        user_vectors: float32 [u, dim], as a request is given.
        user_offset: float64 [u].
        item_vectors: float32 [i, dim], as the index holds them.
        scores: float64 [u, i], the model's own score of every pair.
        tolerance: largest relative error allowed.

    Raises:
        ExportError: a score is not finite, an error exceeds the tolerance, or a list differs by more than ties.
    """
    served = (user_vectors @ item_vectors.T).astype(np.float64)
    if not (np.isfinite(served).all() and np.isfinite(scores).all()):
        raise ExportError("a score is not finite", where="proof", hint="Look at the training metrics: the model diverged")
    errors = relative_errors(served + user_offset[:, None], scores)
    user, item = np.unravel_index(int(errors.argmax()), errors.shape)
    if errors[user, item] > tolerance:
        raise ExportError(
            f"a served score of {served[user, item] + user_offset[user]:.9g} is {scores[user, item]:.9g} in the model",
            where=f"proof, user {user} and item {item} of the sample",
            why=f"relative error {errors[user, item]:.3g}, allowed {tolerance:.3g}",
            hint="Nothing was published. Scores so large that float32 cannot hold them call for more regularisation",
        )
    top = min(TOP, scores.shape[1])
    agree = _lists_agree(served, scores, top, tolerance * _scale(scores))
    if not agree.all():
        raise ExportError(
            f"the best {top} items differ for {int((~agree).sum())} of {len(agree)} users",
            where=f"proof, user {int(agree.argmin())} of the sample",
            hint="Nothing was published",
        )
    users, items = scores.shape
    return Proof(users, items, float(errors.max()), tolerance, top, int(agree.sum()))


def relative_errors(found: Float64, scores: Float64) -> Float64:
    """Return score differences relative to the user's largest score, at least 1.

    Args:
        found: [u, i].
        scores: [u, i].
    """
    return np.asarray(np.abs(found - scores) / _scale(scores)[:, None], dtype=np.float64)


def _scale(scores: Float64) -> Float64:
    return np.asarray(np.maximum(1.0, np.abs(scores).max(axis=1)), dtype=np.float64)


def _lists_agree(served: Float64, scores: Float64, top: int, slack: Float64) -> Bool:
    """Return whether served items score as the model's own choices, within `slack`."""
    ours = np.take_along_axis(scores, np.argsort(-served, axis=1, kind="stable")[:, :top], axis=1)
    theirs = -np.sort(-scores, axis=1)[:, :top]
    return np.asarray((np.abs(ours - theirs) <= 2 * slack[:, None]).all(axis=1))
