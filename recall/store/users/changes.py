"""Changes of users, and the interface of a store for them.

Each change has `apply(before, now)`, which returns the new state of a user.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from heapq import heapify, heappush, heappushpop
from itertools import groupby
from typing import NamedTuple, Protocol

import orjson

from recall.bundle.manifest import Manifest
from recall.errors import StoreError
from recall.store.users.record import MAX_HISTORY, LiveUser, StoredUsers, limit_seen

DELETED = LiveUser(known=False, all_features=True, history=(), all_seen=True)
"""State of a deleted user."""


@dataclass(frozen=True, slots=True)
class UserPut:
    """Replace a user completely; values that are left out become missing."""

    user_id: str
    features: Mapping[str, object]
    history: tuple[str, ...]
    seen: tuple[str, ...]

    def apply(self, _before: LiveUser | None, _now: float) -> LiveUser:
        """Return the user after the change."""
        features = {name: value for name, value in self.features.items() if value is not None}
        history, seen = self.history[:MAX_HISTORY], limit_seen((*self.history[MAX_HISTORY:], *self.seen))
        return LiveUser(features=features, all_features=True, history=history, seen=seen, all_seen=True)


@dataclass(frozen=True, slots=True)
class UserUpsert:
    """Change parts of a user: features by column, history and seen items as a whole."""

    user_id: str
    features: Mapping[str, object]
    history: tuple[str, ...] | None
    seen: tuple[str, ...] | None

    def apply(self, before: LiveUser | None, _now: float) -> LiveUser:
        """Return the user after the change."""
        user = replace(before or LiveUser(), known=True)
        user = replace(user, features={**user.features, **self.features})
        if self.history is not None:
            earlier = (*user.interactions, *(user.history or ()), *user.seen)
            seen = limit_seen((*self.history[MAX_HISTORY:], *earlier))
            user = replace(
                user, history=self.history[:MAX_HISTORY], interactions=(), interaction_times=(), interaction_data=(), seen=seen
            )
        if self.seen is not None:
            user = replace(user, seen=limit_seen(self.seen), all_seen=True)
        return user


@dataclass(frozen=True, slots=True)
class InteractionEvent:
    """An interaction of a user with an item.

    Attributes:
        user_id: id of the user.
        item_id: id of the item.
        time: in seconds since 1970; None if it is the user's latest interaction.
        data: hash of the data set of the served bundle.
    """

    user_id: str
    item_id: str
    time: float | None
    data: str

    def apply(self, before: LiveUser | None, now: float) -> LiveUser:
        """Return the user after the change.

        Args:
            before: state before the change; None for a new user.
            now: current time in seconds since 1970.
        """
        return apply_interactions(before, [(self, now)])


@dataclass(frozen=True, slots=True)
class UserDelete:
    """Delete a user, also if the bundle has them; a later change creates a new user."""

    user_id: str

    def apply(self, _before: LiveUser | None, _now: float) -> LiveUser:
        """Return the user after the change."""
        return DELETED


UserChange = UserPut | UserUpsert | InteractionEvent | UserDelete


def apply_interactions(before: LiveUser | None, events: Iterable[tuple[InteractionEvent, float]]) -> LiveUser:
    """Return a user after interactions; a batch takes hardly longer than a single one.

    Args:
        before: state before the interactions; None for a new user.
        events: interactions in order of arrival, each with its time of arrival in seconds since 1970.
    """
    user = replace(before or LiveUser(), known=True)
    # a heap with the earliest at the root; interactions at the same time are in order of arrival
    heap = list(
        zip(
            user.interaction_times,
            range(0, -len(user.interaction_times), -1),
            user.interactions,
            user.interaction_data,
            strict=True,
        )
    )
    heapify(heap)
    removed: list[str] = []
    last = user.interaction_times[0] if user.interaction_times else float("-inf")
    for number, (event, now) in enumerate(events, 1):
        # a clock that was set back must not make the latest interaction an earlier one
        time = event.time if event.time is not None else max(now, last)
        last = max(last, time)
        entry = (time, number, event.item_id, event.data)
        if len(heap) < MAX_HISTORY:
            heappush(heap, entry)
        else:
            removed.append(heappushpop(heap, entry)[2])
    heap.sort(reverse=True)
    return replace(
        user,
        interactions=tuple(item for _, _, item, _ in heap),
        interaction_times=tuple(time for time, _, _, _ in heap),
        interaction_data=tuple(data for _, _, _, data in heap),
        seen=limit_seen((*reversed(removed), *user.seen)) if removed else user.seen,
    )


def apply_changes(users: Mapping[str, LiveUser | None], changes: tuple[UserChange, ...], now: float) -> dict[str, LiveUser]:
    """Return the users of a batch of changes after all of them, by id.

    Args:
        users: states before, of each user with a change; None if nothing is stored.
        changes: changes in order.
        now: current time in seconds since 1970.
    """
    after: dict[str, LiveUser] = {}
    for user_id, own in group_by_user(changes).items():
        user = users[user_id]
        for are_interactions, run in groupby(own, lambda change: isinstance(change, InteractionEvent)):
            if are_interactions:
                user = apply_interactions(user, ((event, now) for event in run if isinstance(event, InteractionEvent)))
            else:
                for change in run:
                    user = change.apply(user, now)
        assert user is not None  # there is at least one change
        after[user_id] = user
    return after


def group_by_user(changes: Iterable[UserChange]) -> dict[str, list[UserChange]]:
    """Return the changes of each user, in order."""
    found: dict[str, list[UserChange]] = {}
    for change in changes:
        found.setdefault(change.user_id, []).append(change)
    return found


def batch_digest(changes: tuple[UserChange, ...]) -> bytes:
    """Return a digest of a batch of changes, independent of the served bundle."""
    content = [
        [type(change).__name__, *(getattr(change, part.name) for part in fields(change) if part.name != "data")]
        for change in changes
    ]
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


READ_SECONDS = 0.02
"""Default time limit of a read from another machine."""


class WriteResult(NamedTuple):
    """Outcome of a stored batch.

    Attributes:
        sequence: sequence of the last change, larger than those of all earlier changes of the same user; for a repeated batch,
            the sequence returned the first time.
        repeated: whether a batch with this key had been applied before.
        known: for each user, whether they existed before (for a repeated batch: exist now); None if the store had no state of
            them.
    """

    sequence: int
    repeated: bool
    known: Mapping[str, bool | None]


class LiveUsers(Protocol):
    """Store for changes of users since the bundle. Safe for threads and processes."""

    @property
    def remote(self) -> bool:
        """Whether a read may wait for another machine, and must not block an event loop."""

    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser | StoreError]:
        """Return the users with stored changes, all acknowledged changes applied.

        If some nodes of a cluster do not answer, the result has an error for each of their users.

        Raises:
            StoreError: The store cannot be read, or does not answer in time.
        """

    def write(self, changes: Sequence[UserChange], key: str | None = None) -> WriteResult:
        """Apply changes in order; they are durable when this returns.

        The changes of one user are atomic. SQLite applies the whole batch atomically; in Redis, a batch of several users that
        fails may be applied to some of them, and is completed when it is sent again with its key.

        Args:
            changes: at least one.
            key: idempotency key. A batch with a stored key is not applied again. Redis stores the key with the users of the
                batch, so that a conflict is detected only between batches with a common user.

        Raises:
            RequestError: The key belongs to other changes.
            StoreBusyError: Other processes wrote for the whole wait.
            StoreFullError: The store is full.
            StoreReadOnlyError: The store cannot be written.
            StoreError: The store does not answer in time. Then nothing was acknowledged: the batch may have been written or
                not, and can be sent again with the same key.
        """

    def forget(self, ids: Sequence[str]) -> int:
        """Erase all data about users, including the information that they were deleted.

        A bundle that contains such a user makes them known again.

        Args:
            ids: ids of the users.

        Returns:
            The number of idempotency keys removed.

        Raises:
            StoreBusyError: Another process reads the store.
            StoreError: As `write`.
        """

    def exported(self, manifest: Manifest) -> StoredUsers | None:  # noqa: ARG002
        """Return the users of a bundle, if they are stored here and not in its file.

        Raises:
            StoreError: They are not complete, or the store does not answer.
        """
        return None

    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        """Return ids of stored users that are not deleted, in order of their UTF-8.

        Args:
            after: exclusive lower bound; None for none.
            count: maximum number of ids.

        Raises:
            StoreError: As `get`.
        """

    def sequence(self) -> int:
        """Return the sequence of the latest change; 0 before the first.

        Raises:
            StoreError: The store cannot be read.
        """

    def error(self) -> str:
        """Describe lost acknowledged changes, in a sentence; empty if none are known.

        Raises:
            StoreError: The store cannot be read.
        """

    def checkpoint(self) -> None:
        """Move all writes to the store's main file, if it has one; called when idle."""

    def durability_warning(self) -> str:
        """Return a warning if acknowledged changes may be lost; else empty.

        Raises:
            StoreError: The store cannot be read.
        """

    def close(self) -> None:
        """Close all connections."""
