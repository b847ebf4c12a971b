"""The contract of a store of users that change."""

from collections.abc import Sequence
from typing import Protocol

from recall.store.users.changes import UserChange
from recall.store.users.record import LiveUser

READ_SECONDS = 0.02
"""Default budget of a read that goes to another machine."""


class LiveUsers(Protocol):
    """Changes of users since the bundle was built; safe for threads and processes."""

    @property
    def remote(self) -> bool:
        """Whether a read may wait for another machine: then it is none for an event loop."""
        ...

    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser]:
        """Return the stored users, with all acknowledged changes.

        Raises:
            StoreError: The store cannot be read, or does not answer in time.
        """
        ...

    def write(self, changes: Sequence[UserChange], key: str | None = None) -> int:
        """Apply changes in order, all or none; they are stored when this returns.

        Args:
            changes: at least one.
            key: idempotency key. A batch with a key that the store remembers is not applied again.

        Returns:
            The sequence of the last change, which is larger than that of every earlier one; of a batch that was applied
            before, what was returned then.

        Raises:
            RequestError: The key belongs to other changes.
            StoreBusyError: Other processes wrote for the whole wait.
            StoreFullError: The store is full.
            StoreReadOnlyError: The store cannot be written.
            StoreError: The store does not answer in time. Then nothing was acknowledged: the batch may
                have been written or not, and can be sent again with the same key.
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
        """Return the sequence of the latest change; 0 before the first.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def error(self) -> str:
        """Describe lost acknowledged changes, in a sentence; empty if none are known.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def checkpoint(self) -> None:
        """Make a plain copy of the store as complete as possible; called when idle."""
        ...

    def durability_warning(self) -> str:
        """Explain why acknowledged changes may be lost, in a sentence; else empty.

        Raises:
            StoreError: The store cannot be read.
        """
        ...

    def close(self) -> None:
        """Free connections."""
        ...
