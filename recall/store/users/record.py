"""One user: the record of a bundle, and what has changed since."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from recall.errors import StoreError
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
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

    def encoded(self, encoder: FeatureEncoder, user_id: str) -> SparseRows:
        """Encode the user as a request without context: one row.

        Args:
            encoder: of the model.
            user_id: of the user.
        """
        column = encoder.schema.user_id
        named = {column: user_id} if column in encoder.users.columns else {}
        return encoder.encode_user({**self.features, **named}, self.history).rows


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
        known: whether there is such a user; False when they were deleted, even if a bundle contains them.
        features: by column; None where a value is missing, even if a bundle has one.
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
        """Return the number of latest interactions that a bundle's history lacks.

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
