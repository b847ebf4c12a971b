"""State of one user: the bundle's record, and live changes on top of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import orjson

from recall.errors import StoreError
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.values import canonical


@dataclass(frozen=True, slots=True)
class UserRecord:
    """Features and interactions of a known user; items by external id.

    Attributes:
        features: values by column; missing values are left out.
        history: ids of the items of the latest interactions, most recent first, with repetitions.
        seen: distinct ids of all items interacted with, most recent first.
    """

    features: Mapping[str, object]
    history: tuple[str, ...]
    seen: tuple[str, ...]

    def encoded(self, encoder: FeatureEncoder, user_id: str) -> SparseRows:
        """Encode the user without context features: one row.

        Args:
            encoder: the model's encoder.
            user_id: id of the user.
        """
        column = encoder.schema.user_id
        named = {column: user_id} if column in encoder.users.columns else {}
        return encoder.encode_user({**self.features, **named}, self.history).rows


class StoredUsers(Protocol):
    """The users of a bundle, which do not change. Thread-safe."""

    @property
    def title(self) -> str | None:
        """Column with the users' titles, such as a name; None without titles."""

    @property
    def remote(self) -> bool:
        """Whether they are on another machine, with the changes of users."""

    def __len__(self) -> int:
        """Return the number of users."""

    def get_many(self, user_ids: Sequence[str]) -> Mapping[str, UserRecord | StoreError]:
        """Return the records of known users; an error for each that cannot be read."""

    def sample(self, count: int, seed: int) -> list[str]:
        """Return ids of distinct users, drawn at random.

        Args:
            count: maximum number of ids; from Redis, at most 256.
            seed: seed of the random generator.
        """

    def ids(self, after: str | None, count: int) -> list[str]:
        """Return the first ids in order of their UTF-8.

        Args:
            after: exclusive lower bound; None for none.
            count: maximum number of ids.

        Raises:
            RequestError: The store cannot list them.
        """

    def find_by_title(self, text: str, count: int) -> list[str]:
        """Return ids of users whose title, or a word in it, has a prefix.

        Args:
            text: the prefix, from `fold_text`.
            count: maximum number of ids.
        """

    def close(self) -> None:
        """Release connections and files."""


MAX_HISTORY = 1000
"""Maximum length of a history; older items are stored as seen."""
MAX_SEEN = 10_000
"""Maximum number of seen items in addition to the history; the latest are stored."""
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class LiveUser:
    """Live changes of one user, applied on top of the record of any bundle.

    Attributes:
        known: whether the user exists; False for a deleted user, also if the bundle has them.
        features: changed values by column; None for a value that was removed.
        all_features: whether `features` replaces all features of the bundle.
        history: ids of items that replace the bundle's history, latest first; None to keep the bundle's.
        interactions: ids of items of logged interactions, latest first; they precede `history`.
        interaction_times: times of `interactions` in seconds since 1970, for their order.
        interaction_data: for each of `interactions`, hash of the data set of the bundle that was served then. A bundle with
            other data may contain the interaction already.
        seen: ids of seen items in addition to the history and the interactions, latest first.
        all_seen: whether `seen` replaces the bundle's seen items.
    """

    known: bool = True
    features: Mapping[str, object] = field(default_factory=dict)
    all_features: bool = False
    history: tuple[str, ...] | None = None
    interactions: tuple[str, ...] = ()
    interaction_times: tuple[float, ...] = ()
    interaction_data: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    all_seen: bool = False

    def apply_to(self, stored: UserRecord | None, data: str) -> UserRecord | None:
        """Return the bundle's record with the changes applied; None for a deleted user.

        Args:
            stored: the bundle's record; None if the bundle does not have the user.
            data: hash of the bundle's data set.
        """
        if not self.known:
            return None
        features = dict(self.features) if self.all_features or stored is None else {**stored.features, **self.features}
        history = self.history if self.history is not None else stored.history if stored is not None else ()
        interactions = self.interactions
        if self.history is None and stored is not None:
            interactions = interactions[: self._count_new(history, data)]
        history = (*interactions, *history)[:MAX_HISTORY]
        stored_seen = stored.seen if stored is not None and not self.all_seen else ()
        return UserRecord(
            {name: value for name, value in features.items() if value is not None},
            history,
            tuple(dict.fromkeys((*history, *self.interactions, *self.seen, *stored_seen))),
        )

    def _count_new(self, history: tuple[str, ...], data: str) -> int:
        """Return the number of latest interactions that a bundle's history lacks.

        Interactions logged while other data was served may be in this bundle's data: if its history begins with the items of
        the older interactions, these are taken to be the same.
        """
        items = self.interactions
        if self.interaction_data.count(data) == len(items):
            return len(items)
        first = next(number for number, served in enumerate(self.interaction_data) if served != data)
        for start in range(first, len(items)):
            shared = min(len(items) - start, len(history))
            if history[:1] == items[start : start + 1] and history[:shared] == items[start : start + shared]:
                return start
        return len(items)

    def to_json(self) -> bytes:
        """Return the stored form.

        Raises:
            TypeError: A feature's value cannot be represented in JSON.
        """
        return orjson.dumps(
            {
                "format": _FORMAT,
                "known": self.known,
                "features": dict(self.features),
                "whole": self.all_features,
                "history": self.history,
                "taken": self.interactions,
                "times": self.interaction_times,
                "data": self.interaction_data,
                "seen": self.seen,
                "all_seen": self.all_seen,
            },
            default=canonical,
            option=orjson.OPT_PASSTHROUGH_DATETIME,
        )

    @staticmethod
    def from_json(raw: bytes) -> "LiveUser":
        """Parse the result of `to_json`.

        Raises:
            StoreError: The stored form is damaged, or newer than this version.
        """
        try:
            read: dict[str, Any] = orjson.loads(raw)
            if read["format"] > _FORMAT:
                raise StoreError(
                    f"a user is stored in format {read['format']}, newer than the format {_FORMAT} that this version reads",
                    hint="Upgrade fm-recall",
                )
            history, items = read["history"], tuple(read["taken"])
            times, data = tuple(read["times"]), tuple(read["data"])
            if not len(items) == len(times) == len(data):
                raise ValueError
            return LiveUser(
                known=read["known"],
                features=read["features"],
                all_features=read["whole"],
                history=None if history is None else tuple(history),
                interactions=items,
                interaction_times=times,
                interaction_data=data,
                seen=tuple(read["seen"]),
                all_seen=read["all_seen"],
            )
        except (ValueError, LookupError, TypeError) as error:
            raise StoreError("what is stored of a user cannot be read", why=type(error).__name__) from None


def limit_seen(items: Iterable[str]) -> tuple[str, ...]:
    """Return the first distinct items, at most `MAX_SEEN`."""
    return tuple(islice(dict.fromkeys(items), MAX_SEEN))
