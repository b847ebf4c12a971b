"""User mutations: each returns the new state of a user from the previous one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from heapq import heapify, heappush, heappushpop
from itertools import groupby
from typing import NamedTuple, Protocol

import orjson

from recall.errors import StoreError
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
        return interacted(before, [(self, now)])


@dataclass(frozen=True, slots=True)
class UserDelete:
    """Forget a user, including that of the bundle; a later change creates a new one."""

    user_id: str

    def after(self, _before: LiveUser | None, _now: float) -> LiveUser:
        """Return the user after the change."""
        return GONE


UserChange = UserPut | UserUpsert | InteractionEvent | UserDelete


def interacted(before: LiveUser | None, events: Iterable[tuple[InteractionEvent, float]]) -> LiveUser:
    """Return a user after interactions; many take hardly longer than one.

    Args:
        before: the user, or None.
        events: each with the time at which it came, in seconds since 1970, in the order in which they came.
    """
    user = replace(before or LiveUser(), known=True)
    # the earliest is at the root; of interactions at one time the one that came first is the earlier one
    taken = list(zip(user.times, range(0, -len(user.times), -1), user.taken, user.data, strict=True))
    heapify(taken)
    left: list[str] = []
    last = user.times[0] if user.times else float("-inf")
    for place, (event, now) in enumerate(events, 1):
        # a clock that was set back does not make the latest interaction an earlier one
        time = event.time if event.time is not None else max(now, last)
        last = max(last, time)
        entry = (time, place, event.item_id, event.data)
        if len(taken) < MOST_HISTORY:
            heappush(taken, entry)
        else:
            left.append(heappushpop(taken, entry)[2])
    taken.sort(reverse=True)
    return replace(
        user,
        taken=tuple(item for _, _, item, _ in taken),
        times=tuple(time for time, _, _, _ in taken),
        data=tuple(data for _, _, _, data in taken),
        seen=latest((*reversed(left), *user.seen), MOST_SEEN) if left else user.seen,
    )


def changed(users: Mapping[str, LiveUser | None], changes: tuple[UserChange, ...], now: float) -> dict[str, LiveUser]:
    """Every user of some changes after all of them.

    Args:
        users: as they were before, each that a change names; None for one of whom nothing is stored.
        changes: in order.
        now: in seconds since 1970.
    """
    after: dict[str, LiveUser] = {}
    for user_id, own in by_user(changes).items():
        user = users[user_id]
        for interactions, run in groupby(own, lambda change: isinstance(change, InteractionEvent)):
            if interactions:
                user = interacted(user, ((one, now) for one in run if isinstance(one, InteractionEvent)))
            else:
                for change in run:
                    user = change.after(user, now)
        assert user is not None  # there is at least one change
        after[user_id] = user
    return after


def by_user(changes: Iterable[UserChange]) -> dict[str, list[UserChange]]:
    """Return the changes of each user, in order."""
    found: dict[str, list[UserChange]] = {}
    for change in changes:
        found.setdefault(change.user_id, []).append(change)
    return found


def digest_of(changes: tuple[UserChange, ...]) -> bytes:
    """Return a digest of a batch of changes, independent of the served bundle."""
    said = [[type(one).__name__, *(getattr(one, part.name) for part in fields(one) if part.name != "data")] for one in changes]
    return blake2b(orjson.dumps(said, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


READ_SECONDS = 0.02
"""Default budget of a read that goes to another machine."""


class Written(NamedTuple):
    """Outcome of a batch, which is stored.

    Attributes:
        sequence: of its last change, larger than that of every earlier change of the same user; of a batch that was applied
            before, what it was then.
        repeated: the store remembers the key, and the batch was applied before.
        known: for each user whether they were known before; None where the store had nothing of them. After a repeated batch,
            whether they are known now.
    """

    sequence: int
    repeated: bool
    known: Mapping[str, bool | None]


class LiveUsers(Protocol):
    """Changes of users since the bundle was built; safe for threads and processes."""

    @property
    def remote(self) -> bool:
        """Whether a read may wait for another machine and must stay off an event loop."""

    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser | StoreError]:
        """Return the stored users, with all acknowledged changes.

        A store of several parts has an error in place of each user whose part does not answer, if others do.

        Raises:
            StoreError: The store cannot be read, or does not answer in time.
        """

    def write(self, changes: Sequence[UserChange], key: str | None = None) -> Written:
        """Apply changes in order; they are stored when this returns.

        Those of one user are applied all or none. In one file that holds for the whole batch; in Redis, a batch of several
        users that fails may be applied to some of them, and is completed when it is sent again with its key.

        Args:
            changes: at least one.
            key: idempotency key. A batch with a key that the store remembers is not applied again. Redis remembers it with the
                users of the batch, so a batch of none of them may use it.

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
