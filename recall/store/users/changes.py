"""User mutations: each returns the new state of a user from the previous one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Protocol

import orjson

from recall.store.users.record import MOST_HISTORY, MOST_SEEN, LiveUser, latest

GONE = LiveUser(known=False, whole=True, history=(), all_seen=True)
"""Deletion of a user."""


@dataclass(frozen=True, slots=True)
class UserPut:
    """Replace a user completely; what is left out becomes unknown."""

    user_id: str
    features: Mapping[str, object]
    history: tuple[str, ...]
    seen: tuple[str, ...]

    def after(self, _before: LiveUser | None, _now: float) -> LiveUser:
        """Return the user after the change."""
        features = {name: value for name, value in self.features.items() if value is not None}
        history, seen = self.history[:MOST_HISTORY], latest((*self.history[MOST_HISTORY:], *self.seen), MOST_SEEN)
        return LiveUser(features=features, whole=True, history=history, seen=seen, all_seen=True)


@dataclass(frozen=True, slots=True)
class UserUpsert:
    """Change parts of a user: features by column, history and seen items as a whole."""

    user_id: str
    features: Mapping[str, object]
    history: tuple[str, ...] | None
    seen: tuple[str, ...] | None

    def after(self, before: LiveUser | None, _now: float) -> LiveUser:
        """Return the user after the change."""
        user = replace(before or LiveUser(), known=True)
        user = replace(user, features={**user.features, **self.features})
        if self.history is not None:
            passed = (*user.taken, *(user.history or ()), *user.seen)
            seen = latest((*self.history[MOST_HISTORY:], *passed), MOST_SEEN)
            user = replace(user, history=self.history[:MOST_HISTORY], taken=(), times=(), data=(), seen=seen)
        if self.seen is not None:
            user = replace(user, seen=latest(self.seen, MOST_SEEN), all_seen=True)
        return user


@dataclass(frozen=True, slots=True)
class InteractionEvent:
    """An interaction: the user's latest, or in order of its time.

    Attributes:
        time: in seconds since 1970, or None.
        data: hash of the data behind the bundle that is served.
    """

    user_id: str
    item_id: str
    time: float | None
    data: str

    def after(self, before: LiveUser | None, now: float) -> LiveUser:
        """Return the user after the change.

        Args:
            before: the user, or None.
            now: in seconds since 1970.
        """
        user = replace(before or LiveUser(), known=True)
        times = user.times
        # a clock that was set back does not make the latest interaction an earlier one
        time = self.time if self.time is not None else max(now, times[0]) if times else now
        place = next((at for at, one in enumerate(times) if one <= time), len(times))
        taken = (*user.taken[:place], self.item_id, *user.taken[place:])
        seen = user.seen if len(taken) <= MOST_HISTORY else latest((*taken[MOST_HISTORY:], *user.seen), MOST_SEEN)
        return replace(
            user,
            taken=taken[:MOST_HISTORY],
            times=(*times[:place], time, *times[place:])[:MOST_HISTORY],
            data=(*user.data[:place], self.data, *user.data[place:])[:MOST_HISTORY],
            seen=seen,
        )


@dataclass(frozen=True, slots=True)
class UserDelete:
    """Forget a user, including that of the bundle; a later change creates a new one."""

    user_id: str

    def after(self, _before: LiveUser | None, _now: float) -> LiveUser:
        """Return the user after the change."""
        return GONE


UserChange = UserPut | UserUpsert | InteractionEvent | UserDelete


def changed(users: Mapping[str, LiveUser | None], changes: tuple[UserChange, ...], now: float) -> dict[str, LiveUser]:
    """Every user of some changes after all of them.

    Args:
        users: as they were before, each that a change names; None for one of whom nothing is stored.
        changes: in order.
        now: in seconds since 1970.
    """
    after: dict[str, LiveUser] = {}
    for change in changes:
        after[change.user_id] = change.after(after.get(change.user_id, users[change.user_id]), now)
    return after


def digest_of(changes: tuple[UserChange, ...]) -> bytes:
    """Return a digest of a batch of changes, independent of the served bundle."""
    said = [[type(one).__name__, *(getattr(one, part.name) for part in fields(one) if part.name != "data")] for one in changes]
    return blake2b(orjson.dumps(said, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


READ_SECONDS = 0.02
"""Default budget of a read that goes to another machine."""


class LiveUsers(Protocol):
    """Changes of users since the bundle was built; safe for threads and processes."""

    @property
    def remote(self) -> bool:
        """Whether a read may wait for another machine and must stay off an event loop."""

    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser]:
        """Return the stored users, with all acknowledged changes.

        Raises:
            StoreError: The store cannot be read, or does not answer in time.
        """

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

    def forget(self, ids: Sequence[str]) -> int:
        """Remove every trace of users, also that they were deleted, for good.

        A bundle that contains such a user makes them known again.

        Args:
            ids: of the users.

        Returns:
            How many idempotency keys were removed because they name a user.

        Raises:
            StoreBusyError: Another process reads the store.
            StoreError: As `write`.
        """

    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        """Ids of users that are stored and not deleted, in order of their UTF-8.

        Args:
            after: those after this one; None for all.
            count: at most so many.

        Raises:
            StoreError: as `get`.
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
        """Make a plain copy of the store as complete as possible; called when idle."""

    def durability_warning(self) -> str:
        """Explain why acknowledged changes may be lost, in a sentence; else empty.

        Raises:
            StoreError: The store cannot be read.
        """

    def close(self) -> None:
        """Free connections."""
