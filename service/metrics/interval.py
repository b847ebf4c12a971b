"""How sure one may be of a mean share."""

from math import sqrt

_Z = 1.959963984540054  # 95 %


def wilson(mean: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share after Wilson (1927).

    For shares of lists, each between 0 and 1, it is on the safe side: no variable within these bounds varies more than one
    that is 0 or 1 and has the same mean.

    Args:
        mean: of the shares that were seen.
        count: how many there were, at least 1.
    """
    square = _Z * _Z
    centre = (mean + square / (2 * count)) / (1 + square / count)
    half = _Z / (1 + square / count) * sqrt(mean * (1 - mean) / count + square / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)
