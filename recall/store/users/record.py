"""One user: the record of a bundle, its live changes, and the mutations of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from itertools import islice
from typing import Any, Protocol

import orjson

from recall.errors import StoreError
from recall.features.values import canonical


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One known user. Items are external ids, because rows change with the catalogue.

    Attributes:
        features: by column name; a missing value is absent.
        history: items of the latest interactions, most recent first, repeats included.
        seen: every different item interacted with, most recent first.
    """

    features: Mapping[str, object]
    history: tuple[str, ...]
    seen: tuple[str, ...]


# One user's changes since a bundle was published, and what they make of the bundle's own record.

MOST_HISTORY = 1000
"""Items that a history holds, the latest; older ones are remembered as seen."""
MOST_SEEN = 10_000
"""Items besides the history that are remembered as seen, the latest."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class LiveUser:
    """Changes of one user on top of a bundle.

    Attributes:
        known: whether there is such a user; False when they were deleted, whatever a bundle contains.
        features: by column; None where a value is missing, whatever a bundle contains.
        whole: whether these are all features, and none of a bundle's counts.
        history: items before those that were `taken`, latest first; None for those of the bundle.
        taken: items that the user took since, latest first.
        times: of each of them, in seconds since 1970; they only order them.
        data: at each of them, hash of the data behind the bundle that was served, by which a later bundle that may contain
            it, too, is recognised.
        seen: items besides the history, latest first.
        all_seen: whether these are all, and none of a bundle's counts.
    """

    known: bool = True
    features: Mapping[str, object] = field(default_factory=dict)
    whole: bool = False
    history: tuple[str, ...] | None = None
    taken: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    data: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    all_seen: bool = False

    def over(self, stored: UserRecord | None, data: str) -> UserRecord | None:
        """Return the current user; None when deleted.

        Args:
            stored: the bundle's record, if it has one.
            data: hash of the data behind the bundle.
        """
        if not self.known:
            return None
        features = dict(self.features) if self.whole or stored is None else {**stored.features, **self.features}
        history = self.history if self.history is not None else stored.history if stored is not None else ()
        taken = self.taken
        if self.history is None and stored is not None:
            taken = taken[: self._later_than(history, data)]
        history = (*taken, *history)[:MOST_HISTORY]
        before = stored.seen if stored is not None and not self.all_seen else ()
        return UserRecord(
            {name: value for name, value in features.items() if value is not None},
            history,
            tuple(dict.fromkeys((*history, *self.taken, *self.seen, *before))),
        )

    def _later_than(self, history: tuple[str, ...], data: str) -> int:
        """How many of the latest interactions a bundle's history does not hold.

        Those that came while other data were served may be among the data of this bundle: where its history begins with what
        the interactions end with, they are the same ones.
        """
        taken = self.taken
        if self.data.count(data) == len(taken):
            return len(taken)
        first = next(at for at, one in enumerate(self.data) if one != data)
        for start in range(first, len(taken)):
            shared = min(len(taken) - start, len(history))
            if history[:1] == taken[start : start + 1] and history[:shared] == taken[start : start + shared]:
                return start
        return len(taken)

    def to_json(self) -> bytes:
        """Return the stored form.

        Raises:
            TypeError: A feature has none.
        """
        return orjson.dumps(
            {
                "format": _FORMAT,
                "known": self.known,
                "features": dict(self.features),
                "whole": self.whole,
                "history": self.history,
                "taken": self.taken,
                "times": self.times,
                "data": self.data,
                "seen": self.seen,
                "all_seen": self.all_seen,
            },
            default=_plain,
            option=orjson.OPT_PASSTHROUGH_DATETIME,
        )

    @staticmethod
    def from_json(raw: bytes) -> "LiveUser":
        """Parse what `to_json` wrote.

        Raises:
            StoreError: It is damaged.
        """
        try:
            read: dict[str, Any] = orjson.loads(raw)
            if read["format"] > _FORMAT:
                raise StoreError(
                    f"a user is stored in format {read['format']}, newer than the format {_FORMAT} that this version reads",
                    hint="Upgrade fm-recall",
                )
            history, taken = read["history"], tuple(read["taken"])
            times, data = tuple(read["times"]), tuple(read["data"])
            if not len(taken) == len(times) == len(data):
                raise ValueError
            return LiveUser(
                known=read["known"],
                features=read["features"],
                whole=read["whole"],
                history=None if history is None else tuple(history),
                taken=taken,
                times=times,
                data=data,
                seen=tuple(read["seen"]),
                all_seen=read["all_seen"],
            )
        except (ValueError, LookupError, TypeError) as error:
            raise StoreError("what is stored of a user cannot be read", why=type(error).__name__) from None


def latest(items: Iterable[str], most: int) -> tuple[str, ...]:
    """Return the first distinct items.

    Args:
        items: in order.
        most: maximum number.
    """
    return tuple(islice(dict.fromkeys(items), most))


def _plain(value: object) -> object:
    """Convert what orjson does not support."""
    return list(value) if isinstance(value, tuple) else canonical(value)


# User mutations: each returns the new state of a user from the previous one.

GONE = LiveUser(known=False, whole=True, history=(), all_seen=True)
"""A user who was deleted."""


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

    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        """Ids of users who are stored and not deleted, in order of their UTF-8.

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
