"""A number for each pair of fields, which add up to the score of an item."""

from collections.abc import Mapping

from recall.features.layout import Fields
from recall.models.serving.base import Parts
from recall.serving.response import Contribution

BOOSTS = "boosts"
"""Stands for a user field where a boost is explained: the request gives the weight, the item the number."""

_ROUNDING = 1e-12  # of differences of float64 numbers, such as a field with one value has with itself


def contributions(
    parts: Parts, users: Fields, items: Fields, popularity: float = 1.0, boosts: Mapping[str, float] | None = None
) -> tuple[Contribution, ...]:
    """The parts of a score by the names of their fields, the largest first; zeros are left out.

    Args:
        parts: of one user and one item.
        users, items: the fields of both sides.
        popularity: what the item's own part is multiplied by.
        boosts: what the request's boosts add, by name.
    """
    found = [
        Contribution(user, (item,), value)
        for user, row in zip(users.names, parts.across.tolist(), strict=True)
        for item, value in zip(items.names, row, strict=True)
    ]
    found += [
        Contribution(None, (item,), popularity * value) for item, value in zip(items.names, parts.first.tolist(), strict=True)
    ]
    found += [
        Contribution(None, (one, other), popularity * value)
        for one, row in zip(items.names, parts.second.tolist(), strict=True)
        for other, value in zip(items.names, row, strict=True)
    ]
    found += [Contribution(BOOSTS, (name,), value) for name, value in (boosts or {}).items()]
    return largest_first(found)


def difference(more: tuple[Contribution, ...], less: tuple[Contribution, ...]) -> tuple[Contribution, ...]:
    """What the first have of each pair of fields beyond the second, the largest first; zeros are left out."""
    left = {one[:2]: one.value for one in more}
    for user, items, value in less:
        left[user, items] = left.get((user, items), 0.0) - value
    return largest_first([Contribution(*pair, value) for pair, value in left.items()])


def largest_first(found: list[Contribution]) -> tuple[Contribution, ...]:
    """Without zeros and what is rounding beside the largest, by falling size whatever the sign."""
    least = _ROUNDING * max((abs(one.value) for one in found), default=0.0)
    return tuple(sorted((one for one in found if abs(one.value) > least), key=lambda one: -abs(one.value)))
