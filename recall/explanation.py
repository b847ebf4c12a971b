"""Why one item scores what it does for one request: a number for each pair of fields, which add up to the score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from recall.features.fields import Fields
from recall.vectors.contract import Parts

BOOSTS = "boosts"
"""Stands for a user field where a boost is explained: the request gives the weight, the item the number."""


class Contribution(NamedTuple):
    """What some fields bring to a score: a user field and an item field, or one item field or two without a user."""

    user_field: str | None
    item_fields: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the score of one item comes about.

    Attributes:
        item_id: the item.
        score: what the item would be listed with.
        contributions: those that are not zero, the largest first, whatever their sign; they add up to the score. Those
            without a user field are the item's own part, the same for everyone: one field is its first order, two
            fields its second, and a field with itself the pairs of its values. A boost of the request stands under the user
            field "boosts", with its name as the item field.
        user_offset: the part of the model's score that is the same for every item, and no part of `score`.
        bundle: version of the bundle that answered.
    """

    item_id: str
    score: float
    contributions: tuple[Contribution, ...]
    user_offset: float
    bundle: str


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
    return tuple(sorted((one for one in found if one.value), key=lambda one: -abs(one.value)))
