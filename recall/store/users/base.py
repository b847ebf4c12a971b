"""The contract of a store of users that change."""

from collections.abc import Sequence
from typing import Protocol

from recall.store.users.changes import UserChange
from recall.store.users.record import LiveUser

READ_SECONDS = 0.02
"""Budget of a read that goes to another machine, unless told otherwise."""


class LiveUsers(Protocol):
    """What is known of users besides what bundles hold; may be asked from several threads and processes at once."""

    @property
    def remote(self) -> bool:
        """Whether a read may wait for another machine: then it is none for an event loop."""
        ...

    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser]:
        """Those of some users of whom something is stored, with all that was acknowledged to anybody.

        Raises:
            StoreError: the store cannot be read, or does not answer in time.
        """
        ...

    def write(self, changes: Sequence[UserChange], key: str | None = None) -> int:
        """Carry out changes, in order, all of them or none; they are stored when this returns.

        Args:
            changes: at least one.
            key: the caller's own name for the batch. A batch with a key that the store remembers is not carried out again.

        Returns:
            The sequence of the last change, which is larger than that of every earlier one; of a batch that was carried out
            before, what was returned then.

        Raises:
            RequestError: the key belongs to other changes.
            StoreBusyError: others wrote all the while.
            StoreFullError: there is no room.
            StoreReadOnlyError: nothing can be written there.
            StoreError: the store cannot be written, or does not answer in time. Then nothing was acknowledged: the batch may
                be there after all, or not, and can be sent again with the same key.
        """
        ...

    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        """Ids of users who are stored and not deleted, in order of their UTF-8.

        Args:
            after: those after this one; None for all.
            count: at most so many.

        Raises:
            StoreError: as `get`.
        """
        ...

    def sequence(self) -> int:
        """The sequence of the latest change; 0 before the first. Raises StoreError."""
        ...

    def error(self) -> str:
        """Return how acknowledged changes were lost, in a sentence; empty while none are known to be. Raises StoreError."""
        ...

    def checkpoint(self) -> None:
        """Make a plain copy of what is stored as whole as it can be; called when nothing has been written for a while."""
        ...

    def durability_warning(self) -> str:
        """Why what is acknowledged may be lost after all, in a sentence; empty where it may not. Raises StoreError."""
        ...

    def close(self) -> None:
        """Free connections."""
        ...
