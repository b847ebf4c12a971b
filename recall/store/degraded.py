"""Answers without all that belongs in them."""

from typing import NamedTuple


class Degraded(NamedTuple):
    """What an answer had to do without, or with less of.

    Attributes:
        part: of the service, in one word: "items" when later changes of items are not known.
        reason: why, in a sentence.
    """

    part: str
    reason: str
