"""Users' vectors, parted so that what sets an index up does not judge it."""

from dataclasses import dataclass

import numpy as np

from recall._arrays import Float32

_FITTING = 1024  # at most, for the directions in which users differ
_TUNING = 512  # at most: each is asked of every candidate, some ten times
_PART = 8  # and at most one in so many of all, so that most are left to verify with


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """Vectors of users, no user in two parts.

    Attributes:
        fitting: float32 [f, dim], that an index is built with; at least one.
        tuning: float32 [t, dim], that its effort is set and timed with.
        verification: float32 [v, dim], that show what it finds.
        seed: of the order that they were parted in.
    """

    fitting: Float32
    tuning: Float32
    verification: Float32
    seed: int

    @classmethod
    def split(cls, vectors: Float32, seed: int) -> "Users":
        """Part vectors, float32 [q, dim], one of each user and at least one, in an order drawn at random."""
        drawn = vectors[np.random.default_rng(seed).permutation(len(vectors))]
        fitting = max(min(_FITTING, len(drawn) // _PART), 1)
        tuning = min(_TUNING, len(drawn) // _PART)
        return cls(drawn[:fitting], drawn[fitting : fitting + tuning], drawn[fitting + tuning :], seed)

    @property
    def looks(self) -> list[Float32]:
        """The users of the verification in three parts, half of them in the first: one for each look at a setting."""
        quarter = len(self.verification) // 4
        first = len(self.verification) - 2 * quarter
        return [self.verification[:first], *np.split(self.verification[first:], 2)]
