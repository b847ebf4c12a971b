"""Current users: a bundle's records with live changes applied."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import merge
from itertools import islice
from math import isfinite
from typing import NamedTuple

import orjson

from recall._cache import Cache
from recall._ids import check_id, check_ids, check_text
from recall.errors import RequestError, StoreError, did_you_mean, pointer
from recall.features.canonical import TEXT
from recall.features.encoder import FeatureEncoder
from recall.features.novelty import novelties
from recall.features.values import canonical
from recall.store.group_commit import Receipt
from recall.store.users.bundle_users import fold_text
from recall.store.users.changes import InteractionEvent, LiveUsers, UserChange, UserDelete, UserPut, UserUpsert
from recall.store.users.record import LiveUser, StoredUsers, UserRecord

RECENT = 4096
"""Number of the bundle's records in the cache."""
_TAG = 16  # characters of the data set's hash that are stored with an interaction


class Lookup(NamedTuple):
    """Result of looking up a user.

    Attributes:
        record: the user's record; None for an unknown user.
        error: why live changes could not be applied to the record; empty if they were.
    """

    record: UserRecord | None
    error: str = ""


class User(NamedTuple):
    """Changes of one user; history and seen items that are None do not change."""

    user_id: str
    features: Mapping[str, object] = {}
    history: Sequence[str] | None = None
    seen: Sequence[str] | None = None


class Interaction(NamedTuple):
    """An interaction of a user with an item.

    Attributes:
        user_id: id of the user.
        item_id: id of the item.
        time: in seconds since 1970; None for now.
    """

    user_id: str
    item_id: str
    time: float | None = None


class UserProfiles:
    """The users of one bundle, and their changes. Safe to share among threads."""

    def __init__(
        self, stored: StoredUsers, live: LiveUsers | None, encoder: FeatureEncoder, data_hash: str, *, owned: bool = False
    ) -> None:
        """Combine the bundle's users with a store of changes.

        Args:
            stored: the bundle's users.
            live: store of changes; None for users that do not change.
            encoder: the model's encoder.
            data_hash: hash of the bundle's data set.
            owned: whether `close` also closes `live`.
        """
        self._owned = owned
        self._stored, self._live, self._encoder = stored, live, encoder
        self._data = data_hash[:_TAG]
        self._recent: Cache[str, UserRecord] = Cache(RECENT)
        id_column, contexts = encoder.schema.user_id, encoder.context_columns
        # an id of type text is always canonical
        self._canonical: Callable[[str], str] = str if encoder.types.users.get(id_column, TEXT) == TEXT else encoder.user_id
        read = dict.fromkeys((*encoder.users.columns, *encoder.contexts.columns, *encoder.types.users))
        self.columns = tuple(name for name in read if name not in contexts and name != id_column)
        """Names of the columns that the model reads for users, and of the user table."""

    def without_changes(self) -> "UserProfiles":
        """Return the users as in the bundle, which are closed with these."""
        return UserProfiles(self._stored, None, self._encoder, self._data)

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
        record, error = self.known([user_id])[user_id]
        if error:
            raise StoreError(error)
        return record

    def known(self, user_ids: Iterable[str]) -> dict[str, Lookup]:
        """Return the current records of users by id, or the bundle's with an error."""
        canonical_ids = {user_id: self._canonical(user_id) for user_id in user_ids}
        distinct = list(dict.fromkeys(canonical_ids.values()))
        live, error = self._read_changes(distinct)
        stored = self._read_stored(distinct, error)
        return {name: self._lookup(stored.get(user_id), live.get(user_id), error) for name, user_id in canonical_ids.items()}

    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        """Return ids of users in order of their UTF-8.

        A user that exists while all pages are read is on exactly one page.

        Args:
            after: exclusive lower bound; None for none.
            count: maximum number of ids.

        Raises:
            StoreError: The changes cannot be read, so that deleted users are unknown.
        """
        if self._live is None:
            return self._stored.ids(after, count)
        upserted = self._live.ids(after, count)
        found: list[str] = []
        while len(found) < count and (batch := self._stored.ids(after, count)):
            after = batch[-1]
            states = self._live.get(batch)  # a user with changes is in `upserted`, or was deleted
            for state in states.values():
                if isinstance(state, StoreError):
                    raise state
            found += [user_id for user_id in batch if user_id not in states]
        return list(islice(merge(found, upserted), count))

    @property
    def title(self) -> str | None:
        """The column that holds titles of users, such as a name, if there is one."""
        return self._stored.title

    def find(self, text: str, count: int) -> list[tuple[str, str | None]]:
        """Find users by a prefix of the id, the title or a word in the title.

        Case is ignored in titles. A user with exactly this id comes first, then titles that begin with the text, titles with a
        word that does, and ids that begin with it. A title that changed after the bundle is found once a later bundle has it.

        Args:
            text: the prefix, not empty.
            count: maximum number of users.

        Returns:
            Id and title (None without one) of each user.

        Raises:
            StoreError: The changes cannot be read.
        """
        needle, first = fold_text(text), self._canonical(text)
        ids = [
            first,
            *self._stored.find_by_title(needle, count),
            *(user_id for user_id in self.ids(text, count) if user_id.startswith(text)),
        ]
        found = []
        for user_id, (record, _) in self.known(dict.fromkeys(ids)).items():
            title = None if record is None or self.title is None else record.features.get(self.title)
            title = title if isinstance(title, str) else None
            if record is not None and (user_id == first or user_id.startswith(text) or needle in fold_text(title or "")):
                found.append((user_id, title))
        return found[:count]

    def sample(self, count: int, seed: int) -> list[str]:
        """Return ids of random users of the bundle.

        Args:
            count: maximum number of ids.
            seed: seed of the random generator.
        """
        return self._stored.sample(count, seed)

    def put(self, user: User, key: str | None = None) -> Receipt:
        """Replace a user completely: values that are None or left out become missing.

        Args:
            user: features by column, and ids of items, latest first; items of the history count as seen.
            key: idempotency key: a change that is sent again with its key is applied once.

        Raises:
            RequestError: An id is invalid, a column is unknown, or its field cannot read the value; no user is changed. Or
                the key belongs to another change.
            StoreError: The change could not be stored, and is not acknowledged; see `LiveUsers.write`.
        """
        features = self._checked_features(user, "")
        history, seen = (tuple(self._encoder.item_ids(items or ())) for items in (user.history, user.seen))
        put = UserPut(self._canonical(user.user_id), features, history, seen)
        return self._with_warnings(self._write([put], key), [user])

    def upsert(self, users: Sequence[User], key: str | None = None) -> Receipt:
        """Insert or change users; the change of one user is atomic.

        Features change column by column, with None for a missing value; history and seen items are replaced if they are not
        None. Changes of the same user are applied in order.

        Args:
            users: the changes.
            key: as for `put`.

        Raises:
            RequestError: As for `put`.
            StoreError: As for `put`.
        """
        changes = []
        for place, (user_id, _, history, seen) in enumerate(users):
            features = self._checked_features(users[place], f"/users/{place}")
            both = (None if items is None else tuple(self._encoder.item_ids(items)) for items in (history, seen))
            changes.append(UserUpsert(self._canonical(user_id), features, *both))
        return self._with_warnings(self._write(changes, key), [user for user in users if user.features])

    def log_interactions(self, interactions: Sequence[Interaction], key: str | None = None) -> Receipt:
        """Add interactions to histories and seen items; those of one user are atomic.

        Items need not be in the catalogue. An unknown user is created.

        Args:
            interactions: interactions in order.
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
            Interaction(self._canonical(user_id), self._encoder.item_ids([item_id])[0], time)
            for user_id, item_id, time in interactions
        )
        return self._write([InteractionEvent(*one, self._data) for one in taken], key)

    took = log_interactions  # its name until the next minor version

    def delete(self, user_ids: Sequence[str], key: str | None = None) -> Receipt:
        """Delete users, also those of the bundle; unknown ones are ignored.

        Args:
            user_ids: ids of the users.
            key: as for `put`.

        Raises:
            RequestError: As for `put`.
            StoreError: As for `put`.
        """
        check_ids(user_ids, "/user_ids")
        return self._write([UserDelete(one) for one in dict.fromkeys(map(self._canonical, user_ids))], key)

    def close(self) -> None:
        """Close the stores."""
        self._recent = Cache(1)
        self._stored.close()
        if self._owned and self._live is not None:
            self._live.close()

    def _write(self, changes: Sequence[UserChange], key: str | None) -> Receipt:
        if self._live is None:
            raise StoreError(
                "this bundle has no store for changes of users",
                hint="Load the root of published versions, not the folder of one, or name a Redis",
            )
        if key is not None:
            check_text(key, "/key")
        if not changes:
            return Receipt(self._live.sequence(), 0)
        written = self._live.write(changes, key)
        before = {change.user_id: written.known.get(change.user_id) for change in changes}
        stored = self._stored.get_many([user_id for user_id, was in before.items() if was is None])
        known = sum(map(bool, before.values())) + sum(isinstance(one, UserRecord) for one in stored.values())
        return Receipt(written.sequence, known, repeated=written.repeated)

    def _with_warnings(self, receipt: Receipt, users: Sequence[User]) -> Receipt:
        """Add warnings about features that the model does not know."""
        features = ({name: value for name, value in user.features.items() if value is not None} for user in users)
        return Receipt(*receipt, warnings=novelties(self._encoder, "user", filter(None, features)), repeated=receipt.repeated)

    def _checked_features(self, user: User, where: str) -> dict[str, object]:
        """Check a change of a user; return the features in their stored form."""
        check_id(user.user_id, f"{where}/user_id")
        for name, items in (("history", user.history), ("seen", user.seen)):
            check_ids(items or (), f"{where}/{name}")
        for name in user.features:
            if name not in self.columns:
                place = where + pointer("features", name)
                raise RequestError(f"users have no column {name!r}", where=place, hint=did_you_mean(str(name), self.columns))
        try:
            self._encoder.encode_user({name: value for name, value in user.features.items() if value is not None})
        except RequestError as error:
            raise RequestError(error.what, where=where + error.where, why=error.why, hint=error.hint) from None
        try:
            plain = orjson.dumps(dict(user.features), default=canonical, option=orjson.OPT_PASSTHROUGH_DATETIME)
        except TypeError as error:
            raise RequestError("a value cannot be stored as JSON", where=f"{where}/features", why=str(error)) from None
        read: dict[str, object] = orjson.loads(plain)
        return read

    def _read_changes(self, user_ids: Sequence[str]) -> tuple[dict[str, LiveUser | StoreError], str]:
        """Return the changes of users by id, or why they cannot be read."""
        if self._live is None or not user_ids:
            return {}, ""
        try:
            return self._live.get(user_ids), ""
        except StoreError as error:
            return {}, _unread(error)

    def _read_stored(self, user_ids: Sequence[str], error: str) -> dict[str, UserRecord | StoreError]:
        """Return records of the bundle, from the cache if possible.

        Args:
            user_ids: distinct ids.
            error: why no changes can be read; then records on another machine are not read either.
        """
        cached = {user_id: self._recent.get(user_id) for user_id in user_ids}
        found: dict[str, UserRecord | StoreError] = {name: one for name, one in cached.items() if one is not None}
        if len(found) < len(cached) and not (error and self._stored.remote):
            for user_id, record in self._stored.get_many([name for name, one in cached.items() if one is None]).items():
                found[user_id] = record
                if isinstance(record, UserRecord):
                    self._recent.put(user_id, record)
        return found

    def _lookup(self, stored: UserRecord | StoreError | None, user: LiveUser | StoreError | None, error: str) -> Lookup:
        """Return a user with the readable data: the bundle's record, and the changes."""
        if isinstance(user, StoreError):
            error = _unread(user)
            user = None
        if isinstance(stored, StoreError):
            error = f"users of the export are not known: {stored.what}"
            stored = None
        if user is None:
            return Lookup(stored, error)
        return Lookup(self._without_foreign_columns(user.apply_to(stored, self._data)), error)

    def _without_foreign_columns(self, record: UserRecord | None) -> UserRecord | None:
        """Drop columns that were stored with another bundle, and that this one lacks."""
        if record is None or record.features.keys() <= set(self.columns):
            return record
        features = {name: value for name, value in record.features.items() if name in self.columns}
        return UserRecord(features, record.history, record.seen)


def _unread(error: StoreError) -> str:
    return f"changes of users since the bundle are not known: {error.what}"
