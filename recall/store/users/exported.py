"""Users of bundles in Redis, so that a service needs no file of users.

    recall:exported                 hash with a field for each loaded file of users, named by its SHA-256: the number of its
                                    users, the number of those loaded so far, and a sample of their ids
    recall:exported:SHA256:NUMBER   bucket: hash of the users whose CRC-32 modulo the number of buckets is NUMBER, with
                                    features, history and seen items by id; and the field "" once all users are loaded

Versions with the same file share its users. The buckets are spread over the slots of a cluster. The field "" lets a reader
distinguish an unknown user from a lost bucket.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import orjson
from typing_extensions import override

from recall._breaker import Breaker
from recall.errors import RequestError, StoreDownError, StoreError
from recall.store.redis_nodes import Nodes
from recall.store.users.bundle_users import SqliteUsers
from recall.store.users.record import StoredUsers, UserRecord

LOAD_SECONDS = 30.0
"""Time limit of one call while users are loaded, checked or removed."""
SAMPLE = 256
"""Number of users whose ids are stored for `RedisUsers.sample`."""

_SEAL = b""  # field of a complete bucket; no id is empty
_NAME = 16  # characters of the SHA-256 in names of keys
_BUCKET_USERS = 4096  # about 2 MB, which a cluster moves, and Redis removes, at once. Chosen, not tuned.
_MIN_BUCKETS = 256  # so that the nodes of a cluster have similar numbers of users
_HINT = "Run `recall users load ROOT` where the version was published"


class Buckets(NamedTuple):
    """The hashes with the users of one file.

    Attributes:
        prefix: prefix of their keys.
        users: number of users in the file.
    """

    prefix: bytes
    users: int

    def all_keys(self) -> list[bytes]:
        """Return all keys."""
        return [b"%b%d" % (self.prefix, number) for number in range(self._count)]

    def key(self, user_id: str) -> bytes:
        """Return the key of the hash that has a user."""
        return b"%b%d" % (self.prefix, crc32(user_id.encode()) % self._count)

    @property
    def entries(self) -> int:
        """Number of fields of all hashes when all users are loaded."""
        return self.users + self._count

    @property
    def _count(self) -> int:
        return max(self.users // _BUCKET_USERS, _MIN_BUCKETS)


class RedisUsers(StoredUsers):
    """The users of one file in Redis; see `StoredUsers`."""

    title = None
    remote = True

    def __init__(self, nodes: Nodes, buckets: Buckets, sample: Sequence[str]) -> None:
        """Read nothing yet.

        Args:
            nodes: connections with the time limit of a request.
            buckets: the hashes with the users.
            sample: ids of some users.
        """
        self._nodes, self._buckets, self._sample = nodes, buckets, sample

    @override
    def __len__(self) -> int:
        return self._buckets.users

    @override
    def get_many(self, user_ids: Sequence[str]) -> dict[str, UserRecord | StoreError]:
        found: dict[str, UserRecord | StoreError] = {}
        try:
            groups = self._nodes.group_by_node(user_ids, self._buckets.key)
        except StoreDownError as error:
            return dict.fromkeys(user_ids, error)
        for node, ids in groups:
            try:
                answers = self._nodes.call(node, "read", [("HMGET", self._buckets.key(one), _SEAL, one) for one in ids])
            except StoreError as error:
                found.update(dict.fromkeys(ids, error))
                continue
            for user_id, (seal, raw) in zip(ids, answers, strict=True):
                if seal is None:
                    found[user_id] = StoreError("users of the export are missing in Redis", hint=_HINT)
                elif raw:
                    found[user_id] = _parse(raw)
        return found

    @override
    def sample(self, count: int, seed: int) -> list[str]:
        return random.Random(seed).sample(self._sample, min(count, len(self._sample)))  # noqa: S311

    @override
    def ids(self, after: str | None, count: int) -> list[str]:
        raise RequestError(
            "users cannot be listed or searched for here",
            why="users of the export are stored in Redis by id only",
            hint="Look up a user by id, or list them where the version was published",
        )

    @override
    def find_by_title(self, text: str, count: int) -> list[str]:
        return []

    @override
    def close(self) -> None:
        """Do nothing: the connections belong to the store of changes."""


class ExportedUsers:
    """The users of all files loaded into a Redis or a cluster. Thread-safe."""

    def __init__(self, url: str, prefix: bytes, reader: Nodes, claim: Callable[[], None]) -> None:
        """Connect at the first call.

        Args:
            url: as for `Nodes`.
            prefix: prefix of all keys.
            reader: connections for requests.
            claim: called before keys are written or removed; raises StoreError if they belong to another catalogue.
        """
        self._claim = claim
        self._index, self._reader = prefix + b"exported", reader
        self._nodes = Nodes(url, LOAD_SECONDS, {}, Breaker)

    def open(self, digest: str, size: int) -> RedisUsers:
        """Open the users of a file.

        Args:
            digest: SHA-256 of the file.
            size: number of its users.

        Raises:
            StoreError: Users are missing, or Redis does not answer.
        """
        name = digest[:_NAME].encode()
        buckets, stored = self._buckets(name, size), self._loaded().get(name)
        count = self._count(buckets)
        if stored is None or count != buckets.entries:
            raise StoreError(
                "the users of the version are not in Redis, or not all of them",
                where=f"{self._index.decode()}:{name.decode()}",
                why=f"{count:,} of {buckets.entries:,} entries are there",
                hint=_HINT,
            )
        return RedisUsers(self._reader, buckets, stored[-1])

    def load(self, file: Path, digest: str, on_progress: Callable[[int, int], None] = lambda _done, _all: None) -> int:
        """Load the users of a file, or continue an interrupted load.

        Args:
            file: file of users of a bundle.
            digest: its SHA-256.
            on_progress: called with the number of users loaded so far, and of all.

        Returns:
            The number of users sent; 0 if all were loaded before.

        Raises:
            StoreError: Redis does not answer, is full, or has the users of another catalogue.
        """
        self._claim()
        name, sent = digest[:_NAME].encode(), 0
        with closing(SqliteUsers(file)) as users:
            size, sample, buckets = len(users), users.sample(SAMPLE, 0), self._buckets(name, len(users))
            start = self._loaded().get(name, (size, 0))[1]
            for first in dict.fromkeys((start, 0)):  # again from the beginning if Redis has lost some of the users
                if self._count(buckets) == buckets.entries:
                    break
                done = first
                for batch in users.batches(first):
                    self._send(buckets, batch)
                    done += len(batch)
                    sent += len(batch)
                    self._record(name, size, done, sample)
                    on_progress(done, size)
                self._nodes.call_all("written", [("HSET", key, _SEAL, b"") for key in buckets.all_keys()])
                self._record(name, size, size, sample)
            self.open(digest, size)
        return sent

    def prune(self, kept: Iterable[str]) -> list[str]:
        """Remove the users of all but some files; return the removed files' names.

        Args:
            kept: SHA-256 of the files to keep.

        Returns:
            The first digits of the SHA-256 of the removed files.

        Raises:
            StoreError: Redis does not answer.
        """
        self._claim()
        names, loaded = {digest[:_NAME].encode() for digest in kept}, self._loaded()
        removed = sorted(loaded.keys() - names)
        for name in removed:
            self._nodes.call_all("written", [("UNLINK", key) for key in self._buckets(name, loaded[name][0]).all_keys()])
            self._nodes.call_all("written", [("HDEL", self._index, name)])
        return [name.decode() for name in removed]

    def forget(self, ids: Sequence[str]) -> None:
        """Remove users, so that versions with their file count as incomplete.

        Raises:
            StoreError: Redis does not answer.
        """
        for name, (size, done, sample) in self._loaded().items():
            buckets = self._buckets(name, size)
            self._nodes.call_all("written", [("HDEL", buckets.key(user_id), user_id) for user_id in ids])
            self._record(name, size, done, [user_id for user_id in sample if user_id not in ids])

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._nodes.close()

    def _buckets(self, name: bytes, size: int) -> Buckets:
        return Buckets(b"%b:%b:" % (self._index, name), size)

    def _loaded(self) -> dict[bytes, tuple[int, int, Sequence[str]]]:
        """Return the numbers of users and of loaded users, and ids, of each file."""
        (stored,) = self._nodes.call_all("read", [("HGETALL", self._index)])
        return {name: orjson.loads(raw) for name, raw in stored.items()}

    def _record(self, name: bytes, size: int, done: int, sample: Sequence[str]) -> None:
        """Store the entry of a file, as `_loaded` returns it."""
        self._nodes.call_all("written", [("HSET", self._index, name, orjson.dumps((size, done, sample)))])

    def _count(self, buckets: Buckets) -> int:
        """Return the number of fields of all hashes."""
        return sum(map(int, self._nodes.call_all("read", [("HLEN", key) for key in buckets.all_keys()])))

    def _send(self, buckets: Buckets, batch: Sequence[tuple[str, bytes]]) -> None:
        fields: dict[bytes, list[str | bytes]] = {}
        for user_id, record in batch:
            fields.setdefault(buckets.key(user_id), []).extend((user_id, record))
        self._nodes.call_all("written", [("HSET", key, *parts) for key, parts in fields.items()])


def _parse(raw: bytes) -> UserRecord | StoreError:
    try:
        features, history, *seen = orjson.loads(raw)
        return UserRecord(features, tuple(history), tuple(seen[0] if seen else history))
    except (ValueError, LookupError, TypeError) as error:
        return StoreError("what is stored of a user cannot be read", why=type(error).__name__)
