"""Current users: those of a bundle, overlaid with what has changed since."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import merge
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Literal, NamedTuple

import orjson

from recall._cache import Cache
from recall._ids import check_id, check_ids, check_text
from recall.errors import RequestError, StoreError, did_you_mean, pointer
from recall.features.encoder import FeatureEncoder
from recall.features.novelty import novelties
from recall.features.values import canonical
from recall.store.group_commit import Receipt
from recall.store.users.bundle_users import SqliteUsers, folded
from recall.store.users.changes import InteractionEvent, LiveUsers, UserChange, UserDelete, UserPut, UserUpsert
from recall.store.users.record import LiveUser, UserRecord
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers

RECENT = 4096
"""Size of the cache of recently used users."""
_TAG = 16  # characters of a hash of data that are kept with an interaction


class Lookup(NamedTuple):
    """Profile of one user.

    Attributes:
        record: None for an unknown user.
        error: why later changes are not in the record; empty when they are.
    """

    record: UserRecord | None
    error: str = ""


class User(NamedTuple):
    """Changes of one user; parts that are None stay as they are."""

    user_id: str
    features: Mapping[str, object] = {}
    history: Sequence[str] | None = None
    seen: Sequence[str] | None = None


class Interaction(NamedTuple):
    """An item that a user took: now, or at a time in seconds since 1970."""

    user_id: str
    item_id: str
    time: float | None = None


class UserProfiles:
    """The users of one bundle, and their changes. Safe to share among threads."""

    def __init__(
        self, stored: SqliteUsers, live: LiveUsers | None, encoder: FeatureEncoder, data_hash: str, *, owned: bool = False
    ) -> None:
        """Join them.

        Args:
            stored: the bundle's users.
            live: what changes; without it nothing does.
            encoder: reads the features.
            data_hash: of the data behind the bundle.
            owned: whether `close` closes `live` too.
        """
        self._owned = owned
        self._stored, self._live, self._encoder = stored, live, encoder
        self._data = data_hash[:_TAG]
        self._ids_are_text = encoder.user_ids_are_text
        self._recent: Cache[str, UserRecord] = Cache(RECENT)
        id_column, contexts = encoder.schema.user_id, encoder.context_columns
        read = dict.fromkeys((*encoder.users.columns, *encoder.contexts.columns, *encoder.types.users))
        self.columns = tuple(name for name in read if name not in contexts and name != id_column)
        """Columns that a user may have values in."""

    @classmethod
    def of(
        cls, stored: Path, live: LiveUsers | Literal["own"] | None, root: Path | None, encoder: FeatureEncoder, data_hash: str
    ) -> "UserProfiles":
        """Return the users of a bundle with their changes.

        Args:
            stored: the bundle's file.
            live: the store of changes; "own" is the file in a root, if there is one.
            root: of the versions.
            encoder: of the model.
            data_hash: of the data behind the bundle.
        """
        if live == "own":
            own = None if root is None else SqliteLiveUsers(root / USERS_LIVE)
            return cls(SqliteUsers(stored), own, encoder, data_hash, owned=True)
        return cls(SqliteUsers(stored), live, encoder, data_hash)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def writable(self) -> bool:
        """Whether there is a store for changes."""
        return self._live is not None

    def get(self, user_id: str) -> UserRecord | None:
        """Return the current record of a user, or None.

        Raises:
            StoreError: The changes cannot be read.
        """
        known = self.one(user_id)
        if known.error:
            raise StoreError(known.error)
        return known.record

    def known(self, user_ids: Iterable[str]) -> dict[str, Lookup]:
        """Return the current records of users, or those of the bundle with the reason."""
        named = {user_id: self._encoder.user_id(user_id) for user_id in user_ids}
        live, error = self._changes(list(dict.fromkeys(named.values())))
        return {given: self._lookup(user_id, live.get(user_id), error) for given, user_id in named.items()}

    def one(self, user_id: str) -> Lookup:
        """Return `known` of one user."""
        if not self._ids_are_text:
            user_id = self._encoder.user_id(user_id)
        live, error = self._changes((user_id,))
        return self._lookup(user_id, live.get(user_id), error)

    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        """Return ids of users in order of their UTF-8.

        A user that is known from the first page to the last is on exactly one of them.

        Args:
            after: only ids after this one; None for all.
            count: maximum number.

        Raises:
            StoreError: The changes cannot be read, so that deleted users are unknown.
        """
        if self._live is None:
            return self._stored.ids(after, count)
        changed = self._live.ids(after, count)
        found: list[str] = []
        while len(found) < count and (batch := self._stored.ids(after, count)):
            after = batch[-1]
            states = self._live.get(batch)  # a user in there is in `changed`, or was deleted
            for state in states.values():
                if isinstance(state, StoreError):
                    raise state
            found += [user_id for user_id in batch if user_id not in states]
        return list(islice(merge(found, changed), count))

    @property
    def title(self) -> str | None:
        """The column that holds titles of users, such as a name, if there is one."""
        return self._stored.title

    def find(self, text: str, count: int) -> list[tuple[str, str | None]]:
        """Return id and title of users whose id or title begins with a text.

        Case is ignored in titles, and a word in one may begin with the text, too. The user of that id comes first, then titles
        that begin with the text, those with a word that does, and ids. A title that has changed since the bundle is found
        again in the next one; the user is found by id until then.

        Args:
            text: not empty.
            count: maximum number.

        Raises:
            StoreError: The changes cannot be read.
        """
        needle, first = folded(text), self._encoder.user_id(text)
        ids = [first, *self._stored.titled(needle, count), *(one for one in self.ids(text, count) if one.startswith(text))]
        found = []
        for user_id, known in self.known(dict.fromkeys(ids)).items():
            title = None if known.record is None or self.title is None else known.record.features.get(self.title)
            title = title if isinstance(title, str) else None
            if known.record is not None and (user_id == first or user_id.startswith(text) or needle in folded(title or "")):
                found.append((user_id, title))
        return found[:count]

    def sample(self, count: int, seed: int) -> list[str]:
        """Return ids of random users of the bundle.

        Args:
            count: maximum number.
            seed: of the draw.
        """
        return self._stored.sample(count, seed)

    def put(self, user: User, key: str | None = None) -> Receipt:
        """Replace a user completely: what is None or left out becomes unknown.

        Args:
            user: values by column, items latest first; items of the history count as seen.
            key: idempotency key: a change that is sent again under the same key is applied once.

        Raises:
            RequestError: An id is invalid, a column is unknown, or its field cannot read the value; nothing is changed. Or
                the key belongs to another change.
            StoreError: The change could not be stored, and is not acknowledged; see `LiveUsers.write`.
        """
        features = self._features(user, "")
        history, seen = (tuple(self._encoder.item_ids(items or ())) for items in (user.history, user.seen))
        put = UserPut(self._encoder.user_id(user.user_id), features, history, seen)
        return self._warned(self._write([put], key), [user])

    def upsert(self, users: Sequence[User], key: str | None = None) -> Receipt:
        """Insert or change users, each completely or not at all.

        Features change column by column, and None is a missing value; history and seen items that are given replace the former.
        Of two that name one user the later one is applied last.

        Args:
            users: changes.
            key: as for `put`.

        Raises:
            RequestError: As for `put`.
            StoreError: As for `put`.
        """
        changes = []
        for place, (user_id, _, history, seen) in enumerate(users):
            features = self._features(users[place], f"/users/{place}")
            both = (None if items is None else tuple(self._encoder.item_ids(items)) for items in (history, seen))
            changes.append(UserUpsert(self._encoder.user_id(user_id), features, *both))
        return self._warned(self._write(changes, key), [user for user in users if user.features])

    def log_interactions(self, interactions: Sequence[Interaction], key: str | None = None) -> Receipt:
        """Add interactions to histories and seen items in order, of a user all or none.

        An item need not be in the catalogue. An unknown user becomes known.

        Args:
            interactions: in order.
            key: as for `put`.

        Raises:
            RequestError: As for `put`.
            StoreError: As for `put`.
        """
        for place, (user_id, item_id, time) in enumerate(interactions):
            check_id(user_id, f"/interactions/{place}/user_id")
            check_id(item_id, f"/interactions/{place}/item_id")
            if time is not None and (isinstance(time, bool) or not isinstance(time, int | float) or not isfinite(time)):
                raise RequestError(
                    "the time is not a finite number",
                    where=f"/interactions/{place}/time",
                    hint="Give seconds since 1970, or leave it out for now",
                )
        taken = (
            Interaction(self._encoder.user_id(user_id), self._encoder.item_ids([item_id])[0], time)
            for user_id, item_id, time in interactions
        )
        return self._write([InteractionEvent(*one, self._data) for one in taken], key)

    took = log_interactions  # its name until the next minor version

    def delete(self, user_ids: Sequence[str], key: str | None = None) -> Receipt:
        """Forget users, including those of the bundle; unknown ones stay unknown.

        Args:
            user_ids: of the users.
            key: as for `put`.

        Raises:
            RequestError: As for `put`.
            StoreError: As for `put`.
        """
        check_ids(user_ids, "/user_ids")
        return self._write([UserDelete(one) for one in dict.fromkeys(map(self._encoder.user_id, user_ids))], key)

    def fits(self, features: Mapping[str, object]) -> None:
        """Check that the model's fields can read the features of a user.

        Raises:
            RequestError: They cannot; `where` is a pointer into `{"features": ...}`.
        """
        self._encoder.encode_user({name: value for name, value in features.items() if value is not None})

    def close(self) -> None:
        """Free what the stores hold."""
        self._recent = Cache(1)
        self._stored.close()
        if self._owned and self._live is not None:
            self._live.close()

    def _write(self, changes: Sequence[UserChange], key: str | None) -> Receipt:
        if self._live is None:
            raise StoreError(
                "this bundle has no store of users that change",
                hint="Load the root of published versions, not the folder of one, or name a Redis",
            )
        if key is not None:
            check_text(key, "/key")
        if not changes:
            return Receipt(self._live.sequence(), 0)
        written = self._live.write(changes, key)
        known = 0
        for user_id in dict.fromkeys(change.user_id for change in changes):
            before = written.known.get(user_id)
            known += before if before is not None else self._stored.get(user_id) is not None
        return Receipt(written.sequence, known, repeated=written.repeated)

    def _warned(self, receipt: Receipt, users: Sequence[User]) -> Receipt:
        """Add warnings about values new to the model, unless a user has only a history."""
        given = ({name: value for name, value in user.features.items() if value is not None} for user in users)
        return Receipt(*receipt, warnings=novelties(self._encoder, "user", filter(None, given)), repeated=receipt.repeated)

    def _features(self, user: User, where: str) -> dict[str, object]:
        """Return the features of a user as they are stored."""
        check_id(user.user_id, f"{where}/user_id")
        for name, items in (("history", user.history), ("seen", user.seen)):
            if isinstance(items, str):
                raise RequestError(f"{name} is one text", where=f"{where}/{name}", hint="Give a list of ids")
            check_ids(items or (), f"{where}/{name}")
        for name in user.features:
            if name not in self.columns:
                place = where + pointer("features", name)
                raise RequestError(f"users have no column {name!r}", where=place, hint=did_you_mean(str(name), self.columns))
        try:
            self.fits(user.features)
        except RequestError as error:
            raise RequestError(error.what, where=where + error.where, why=error.why, hint=error.hint) from None
        try:
            plain = orjson.dumps(dict(user.features), default=canonical, option=orjson.OPT_PASSTHROUGH_DATETIME)
        except TypeError as error:
            raise RequestError("a value has no form in JSON", where=f"{where}/features", why=str(error)) from None
        read: dict[str, object] = orjson.loads(plain)
        return read

    def _changes(self, user_ids: Sequence[str]) -> tuple[dict[str, LiveUser | StoreError], str]:
        """Return the changes of users, or why they are unknown."""
        if self._live is None or not user_ids:
            return {}, ""
        try:
            return self._live.get(user_ids), ""
        except StoreError as error:
            return {}, _unread(error)

    def _lookup(self, user_id: str, user: LiveUser | StoreError | None, error: str) -> Lookup:
        """Return a user, from the bundle alone if the changes cannot be read."""
        if isinstance(user, StoreError):
            return Lookup(self._record(user_id, None), _unread(user))
        return Lookup(self._record(user_id, user), error)

    def _record(self, user_id: str, user: LiveUser | None) -> UserRecord | None:
        """Return a user of the bundle with changes; unchanged users are cached."""
        record = self._recent.get(user_id)
        if record is None:
            record = self._stored.get(user_id)
            if record is not None:
                self._recent.put(user_id, record)
        return record if user is None else self._readable(user.over(record, self._data))

    def _readable(self, record: UserRecord | None) -> UserRecord | None:
        """Drop columns of other bundles that this model does not read."""
        if record is None or record.features.keys() <= set(self.columns):
            return record
        features = {name: value for name, value in record.features.items() if name in self.columns}
        return UserRecord(features, record.history, record.seen)


def _unread(error: StoreError) -> str:
    return f"changes of users since the bundle are not known: {error.what}"
