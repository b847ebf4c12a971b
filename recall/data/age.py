"""Old interactions count for less: what a user did last says most about what comes next."""

import numpy as np
import numpy.typing as npt

from recall.data.split import TRAIN, Parts

FLOOR = 1e-3
"""No interaction falls below this share of its weight: the first of a long history still belongs to its user."""


def decay(user: npt.NDArray[np.integer], parts: Parts, half_life: float) -> npt.NDArray[np.float32]:
    """What share of its weight each interaction keeps.

    A training interaction keeps half for every `half_life` later ones of its user that train; all others keep theirs.

    Args:
        user: integer [n], never falling; interactions of one user are in order of time.
        parts: int8 [n].
        half_life: in interactions, positive.

    Returns:
        float32 [n], in [FLOOR, 1].
    """
    shares = np.ones(len(user), dtype=np.float32)
    training = np.flatnonzero(parts == TRAIN)
    of_user = user[training]
    last = np.searchsorted(of_user, of_user, side="right") - 1
    ages = last - np.arange(len(training))
    shares[training] = np.maximum(np.exp2(-ages / half_life), FLOOR)
    return shares
