"""The contract of a user store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One known user. Items are named by their external ids, for their rows change when the catalogue does.

    Attributes:
        features: by column name; a missing value is absent.
        history: items of the latest interactions, most recent first, repeats included.
        seen: every different item interacted with, most recent first.
    """

    features: Mapping[str, object]
    history: tuple[str, ...]
    seen: tuple[str, ...]


class UserStore(Protocol):
    """Known users by external id; may be asked from several threads at once."""

    def __len__(self) -> int:
        """Number of known users."""

    def get(self, user_id: str) -> UserRecord | None:
        """What is known of a user, or None."""

    def ids(self, after: str | None, count: int) -> list[str]:
        """Ids of at most so many users in order of their UTF-8: of all, or of those after one."""

    def sample(self, count: int, seed: int) -> list[str]:
        """Ids of at most `count` different users, drawn at random."""

    def close(self) -> None:
        """Free what the store holds; it answers no more."""
