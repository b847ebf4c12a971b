"""Store of user changes in a Redis or a Redis Cluster, shared by several machines.

    recall:user:ID          hash of one user: `user`, a `LiveUser` as JSON; `changes`, the number of changes so far; later
                            interactions, each in a field named by its number; `folded`, the number of the last change that
                            `user` contains; `gone`, if the user was deleted; and a field for each idempotency key
    recall:users:{TAG}      sorted set of the ids of users, deleted ones included; one for each range of slots
    recall:sequence:{TAG}   upper bound of the number of changes of all users in a range
    recall:identity         random; a different one shows that Redis was emptied
    recall:catalog          name of the catalogue, so that the users of two catalogues are not mixed

All data of a user has one key. So it is in one slot of a cluster, is changed by one script, and can migrate between writes. An
interaction adds a field, and only one in `_MAX_PENDING` rewrites the JSON. Earlier versions stored a user as a string under the
same key; it is readable, and the first change converts it to a hash.

Reads have a time limit, and a circuit breaker for each node pauses calls after several failures. Acknowledged changes are as
durable as the Redis: with `appendonly yes` and `appendfsync always` they are on its disk.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import orjson
from redis import exceptions
from typing_extensions import override

from recall._breaker import Breaker
from recall.bundle.files import USERS
from recall.bundle.manifest import Manifest
from recall.errors import StoreBusyError, StoreDownError, StoreError
from recall.store.group_commit import key_conflict
from recall.store.high_water_mark import HighWaterMark, MarkState, damage_warning
from recall.store.redis_nodes import (
    DOWN,
    RANGES,
    Command,
    Node,
    Nodes,
    durability_problems,
    hash_tags,
    slot_range,
    wrong_catalog,
)
from recall.store.users.changes import (
    READ_SECONDS,
    InteractionEvent,
    LiveUsers,
    UserChange,
    WriteResult,
    apply_changes,
    apply_interactions,
    batch_digest,
    group_by_user,
)
from recall.store.users.exported import ExportedUsers
from recall.store.users.record import LiveUser, StoredUsers

WRITE_SECONDS = 1.0
"""Default time limit of a write."""

USERS_REDIS_MARK = "users.redis.mark"
"""File name of the high-water mark of Redis, in a root of published versions."""

_MAX_PENDING = 512  # interactions in separate fields, which reads apply: to rewrite a user takes up to 100 kB
_KEY_TTL = 24 * 60 * 60  # seconds for which an idempotency key is stored
_MAX_KEYS = 1000  # idempotency keys stored for a user; the latest are kept
_DIGEST = 16  # bytes
_ID_BATCH = 256  # users read in one call while listing ids
_TRIES = 50  # attempts of a write while other processes change the same users

_REPEATED, _CONFLICT, _STRING = 0, -1, -2
# The script never deletes the user's key: while its slot migrates, it could not create it again.
_WRITE = f"""
local user, key, appends = KEYS[1], ARGV[1], ARGV[4] == ''
if redis.call('TYPE', user).ok == 'string' then return {{{_STRING}, 0, ''}} end
local stored = redis.call('HMGET', user, 'changes', 'folded', 'gone', key)
local changes, count = tonumber(stored[1] or 0), tonumber(ARGV[5])
local known = stored[3] and 0 or redis.call('EXISTS', user) == 1 and 1 or -1
if stored[4] then return {{{_REPEATED}, known, stored[4]}} end
if appends then
  if changes - tonumber(stored[2] or 0) + count > {_MAX_PENDING} then return {{{_CONFLICT}, known, ''}} end
  if stored[3] then redis.call('HDEL', user, 'gone') end
else
  if changes ~= tonumber(ARGV[4]) then return {{{_CONFLICT}, known, ''}} end
  local kept = {{}}
  for at = 6, #ARGV, 2 do
    redis.call('HSET', user, ARGV[at], ARGV[at + 1])
    kept[ARGV[at]] = true
  end
  for _, field in ipairs(redis.call('HKEYS', user)) do
    if not kept[field] then redis.call('HDEL', user, field) end
  end
end
local fields = {{'changes', changes + count}}
local function put(field, value) fields[#fields + 1] = field; fields[#fields + 1] = value end
if appends then for at = 1, count do put(changes + at, ARGV[5 + at]) end else put('folded', changes + count) end
if key ~= '' then put(key, ARGV[2] .. changes + count .. ' ' .. ARGV[3]) end
redis.call('HSET', user, unpack(fields))
return {{1, known, changes + count}}
"""


class _StoredUser(NamedTuple):
    """Stored state of a user; `keys` has the fields of idempotency keys."""

    user: LiveUser | None
    changes: int
    keys: Mapping[bytes, bytes]


class RedisLiveUsers(LiveUsers):
    """Store in a Redis or a cluster; see `LiveUsers`.

    Attributes:
        breakers: circuit breakers by name of a node; "" is the configured address.
        exports: users of bundles.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        read_seconds: float = READ_SECONDS,
        write_seconds: float = WRITE_SECONDS,
        prefix: str = "recall:",
        breaker: Callable[[], Breaker] = Breaker,
        mark: HighWaterMark | None = None,
        catalog: Callable[[], str] = str,
        exported: bool = False,
    ) -> None:
        """Connect at the first call.

        Args:
            url: as for `Nodes`.
            read_seconds: time limit of a read until its answer begins, including the time to connect.
            write_seconds: the same for each call of a write.
            prefix: prefix of all keys.
            breaker: returns a new circuit breaker.
            mark: high-water mark, a file on this machine; without one, only a process that has read later changes detects a
                loss.
            catalog: returns the name of the catalogue; empty while it is unknown.
            exported: whether the users of bundles are read from this Redis, too, after `exports.load` has loaded them.

        Raises:
            ConfigError: The address is malformed.
        """
        self.breakers: dict[str, Breaker] = {}
        self._prefix = prefix.encode()
        self._mark = mark
        self._catalog = catalog
        self._name = self._owner = ""  # names of the catalogue here and of that in Redis, once known
        self._identity = ""
        self._counts: dict[bytes, int] = {}  # largest value read of each counter of changes
        self._write_seconds = write_seconds
        self._reader = Nodes(url, read_seconds, self.breakers, breaker)
        self._writer = Nodes(url, write_seconds, self.breakers, breaker)
        self.exports = ExportedUsers(url, self._prefix, self._reader, lambda: self._check_owner(claim=True))
        self._reads_exports = exported

    @override
    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser | StoreError]:
        found: dict[str, LiveUser | StoreError] = {}
        down: list[StoreDownError] = []
        self._check_owner()
        groups = self._reader.group_by_node(user_ids, self._user_key)
        for node, ids in groups:
            try:
                stored = self._read_users(self._reader, node, ids)
                found.update((user_id, one.user) for user_id, one in stored.items() if one.user is not None)
            except StoreDownError as error:
                down.append(error)
                found.update(dict.fromkeys(ids, error))
        if down and len(down) == len(groups):
            raise down[0]
        return found

    @override
    def write(self, changes: Sequence[UserChange], key: str | None = None) -> WriteResult:
        batch, digest = tuple(changes), batch_digest(tuple(changes))
        pending, done = group_by_user(batch), dict[str, tuple[int, bool, bool | None]]()
        rewritten = {change.user_id for change in batch if not isinstance(change, InteractionEvent)}
        deadline = time.monotonic() + self._write_seconds
        field = b"" if key is None else _key_field(key)
        self._check_owner(claim=True)
        if not self._identity:  # a loss right after the first write must be detected, too
            self._identity, self._counts = self._state()
        if field and len(pending) > 1:  # a conflict must be detected before any user is written
            self._check_key(pending, field, digest)
        for _ in range(_TRIES):
            for node, ids in self._writer.group_by_node(pending, self._user_key):
                done |= self._write(node, {user_id: pending[user_id] for user_id in ids}, rewritten, field, digest)
            rewritten |= pending.keys() - done.keys()
            pending = {user_id: changes for user_id, changes in pending.items() if user_id not in done}
            if not pending:
                if self._mark is not None:
                    self._mark.advance(self._identity, sum(self._counts.values()))
                known = {user_id: existed for user_id, (_, _, existed) in done.items()}
                return WriteResult(done[batch[-1].user_id][0], all(repeated for _, repeated, _ in done.values()), known)
            if time.monotonic() > deadline:
                break
        raise StoreBusyError("other processes are changing the same users", hint="Try again in a moment")

    @override
    def forget(self, ids: Sequence[str]) -> int:
        self._check_owner()
        users = [self._user_key(user_id) for user_id in ids]
        fields = self._writer.call_all("read", [("HKEYS", key) for key in users], allow_wrong_type=True)
        listings: list[Command] = [("ZREM", self._range_key(b"users", user_id), user_id) for user_id in ids]
        listings.append(("ZREM", self._prefix + b"users", *ids))  # where earlier versions listed them
        self._writer.call_all("written", [*(("DEL", key) for key in users), *listings])
        self.exports.forget(ids)
        return sum(field.startswith(b"k") for own in fields if not isinstance(own, Exception) for field in own)

    @override
    def exported(self, manifest: Manifest) -> StoredUsers | None:
        if not self._reads_exports or USERS not in manifest.files:
            return None
        self._check_owner()
        return self.exports.open(manifest.files[USERS].sha256, manifest.sizes.users)

    @override
    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        self._check_owner()
        names = [self._prefix + b"users", *(self._prefix + b"users:{%b}" % tag for tag in hash_tags())]
        limit = count // RANGES * 2 + 16  # per set: a page rarely has more ids of one set
        start = b"-" if after is None else b"(" + after.encode()
        found: list[bytes] = []
        while len(found) < count:
            parts = self._reader.call_all("read", [("ZRANGEBYLEX", name, start, b"+", b"LIMIT", 0, limit) for name in names])
            ends = [part[-1] for part in parts if len(part) == limit]  # these sets have further ids
            page = sorted({user_id for part in parts for user_id in part if not ends or user_id <= min(ends)})
            for first in range(0, len(page), _ID_BATCH):
                if len(found) < count:
                    found += self._existing(page[first : first + _ID_BATCH])
            if not ends:
                break
            start = b"(" + min(ends)
        return [user_id.decode() for user_id in found[:count]]

    @override
    def sequence(self) -> int:
        return sum(self._state()[1].values())

    @override
    def durability_warning(self) -> str:
        problems: dict[str, None] = {}
        for node in self._reader.primaries():
            commands: list[Command] = [("INFO", "persistence"), ("INFO", "memory")]
            problems |= dict.fromkeys(durability_problems(*self._reader.call(node, "read", commands)))
        return "; ".join(problems)

    @override
    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._reader.close()
        self._writer.close()
        self.exports.close()

    @override
    def error(self) -> str:
        """Describe lost changes, by the mark or by the counters this process has read."""
        breaker = self.breakers.get("")
        if breaker is not None and breaker.state != "closed":  # requests test whether it answers again
            raise StoreDownError(DOWN)
        # both before Redis, which other processes write meanwhile
        mark, seen = None if self._mark is None else self._mark.read(), dict(self._counts)
        identity, counts = self._state()
        if identity != self._identity or self._owner != self._name:  # emptied, or refused until now
            self._owner = ""
        self._check_owner(claim=sum(counts.values()) > 0)
        sequence, same = sum(counts.values()), identity == self._identity
        highest = {name: max(count, seen.get(name, 0)) for name, count in counts.items()} if same else counts
        if self._mark is not None:
            if mark is None:  # the first call from this root, or an operator accepted a loss
                highest = counts
                if sequence:
                    self._mark.advance(identity, sequence)
                    mark = self._mark.read()
            mark = self._mark.raise_to(mark, identity, sum(highest.values()))
            self._identity, self._counts = identity, dict(highest)
            return _loss_warning(mark, identity, sequence) or damage_warning(mark, USERS_REDIS_MARK, "Redis")
        if not self._identity or (same and highest == counts):
            self._identity, self._counts = identity, dict(counts)
            return ""
        return f"{_loss_message(sum(seen.values()), sequence)}; to go on without them, restart the service"

    @override
    def checkpoint(self) -> None:
        """Do nothing: Redis keeps its own files."""

    def _check_owner(self, *, claim: bool = False) -> None:
        """Check that the Redis has the users of this catalogue; reads until it has a name.

        Args:
            claim: store the catalogue's name if it is missing, and check again after a refusal.

        Raises:
            StoreError: The users belong to another catalogue.
        """
        self._name = self._name or self._catalog()
        if not self._name or self._owner == self._name:
            return
        key, nodes = self._prefix + b"catalog", self._writer if claim else self._reader
        if claim or not self._owner:
            claims: list[Command] = [("SET", key, self._name, "NX")] if claim else []
            owner = nodes.call_all("written" if claim else "read", [*claims, ("GET", key)])[-1]
            self._owner = bytes(owner or b"").decode()
        if self._owner not in ("", self._name):
            raise wrong_catalog(StoreError, self._owner, self._name, f"the key {key.decode()}")

    def _check_key(self, ids: Iterable[str], field: bytes, digest: bytes) -> None:
        """Raise RequestError if a user has other changes with the same idempotency key."""
        commands: list[Command] = [("HGET", self._user_key(user_id), field) for user_id in ids]
        for stored in self._writer.call_all("read", commands, allow_wrong_type=True):
            if isinstance(stored, bytes) and stored[:_DIGEST] != digest:
                raise key_conflict()

    def _state(self) -> tuple[str, dict[bytes, int]]:
        """Return the identity, which is created if missing, and the counters of changes."""
        name = self._prefix + b"identity"
        counters = [self._prefix + b"sequence", *(self._prefix + b"sequence:{%b}" % tag for tag in hash_tags())]
        identity, *counts = self._reader.call_all("read", [("GET", key) for key in (name, *counters)])
        if identity is None:
            made: list[Command] = [("SET", name, secrets.token_hex(16), "NX"), ("GET", name)]
            identity = self._writer.call_all("written", made)[1]
        return bytes(identity or b"").decode(), {name: int(raw or 0) for name, raw in zip(counters, counts, strict=True)}

    def _read_users(self, nodes: Nodes, node: Node, ids: Sequence[str]) -> dict[str, _StoredUser]:
        """Return the stored states of users that are on one node, by id."""
        answers = nodes.call(node, "read", [("HGETALL", self._user_key(one)) for one in ids], allow_wrong_type=True)
        found = {
            one: _parse_user(answer) for one, answer in zip(ids, answers, strict=True) if isinstance(answer, dict) and answer
        }
        strings = [one for one, answer in zip(ids, answers, strict=True) if isinstance(answer, exceptions.ResponseError)]
        if strings:  # written by an earlier version, or changed by another process meanwhile
            raws = nodes.call(node, "read", [("GET", self._user_key(one)) for one in strings], allow_wrong_type=True)
            found |= {
                user_id: _parse_user({b"user": raw})
                for user_id, raw in zip(strings, raws, strict=True)
                if isinstance(raw, bytes)
            }
            for error in raws:
                if isinstance(error, exceptions.ResponseError):
                    raise StoreBusyError("another process changes the same user", why=str(error), hint="Try again in a moment")
        return found

    def _write(
        self, node: Node, changes: Mapping[str, list[UserChange]], rewritten: set[str], key: bytes, digest: bytes
    ) -> dict[str, tuple[int, bool, bool | None]]:
        """Write changes of users on one node.

        Args:
            node: node of the users.
            changes: changes by user.
            rewritten: users whose JSON is read and written again; interactions of other users are appended.
            key: field of the idempotency key; empty without one.
            digest: digest of the batch.

        Returns:
            For each user written: number of the last change, whether the batch was repeated, and whether the user was known
            before. The other users were changed by another process meanwhile.
        """
        now, range_key = time.time(), self._range_key
        read = [*(changes.keys() & rewritten)]
        stored = self._read_users(self._writer, node, read) if read else {}
        scripts: list[Command] = []
        deleted: list[str] = []
        for user_id, own in changes.items():
            command: list[bytes | str | int] = ["EVAL", _WRITE, 1, self._user_key(user_id), key, digest, int(now)]
            if user_id in rewritten:
                before = stored.get(user_id, _StoredUser(None, 0, {}))
                user = apply_changes({user_id: before.user}, tuple(own), now)[user_id]
                command += [before.changes, len(own), b"user", user.to_json(), *_live_keys(before.keys, now)]
                if not user.known:
                    deleted.append(user_id)
                    command += [b"gone", 1]
            else:
                command += [b"", len(own), *(_event_field(event, now) for event in own if isinstance(event, InteractionEvent))]
            scripts.append(tuple(command))
        listings: list[Command] = [("ZADD", range_key(b"users", one), 0, one) for one in changes if one not in deleted]
        counters = [range_key(b"sequence", user_id) for user_id in changes]
        counts: list[Command] = [("INCRBY", name, len(own)) for name, own in zip(counters, changes.values(), strict=True)]
        answers = self._writer.call(node, "written", [*scripts, *listings, *counts], transaction=len(changes) > 1)
        for name, count in zip(counters, answers[-len(changes) :], strict=True):
            self._counts[name] = max(self._counts.get(name, 0), int(count))
        done = dict[str, tuple[int, bool, bool | None]]()
        for user_id, (outcome, known, answer) in zip(changes, answers, strict=False):
            if outcome == _REPEATED and answer[:_DIGEST] != digest:
                raise key_conflict()
            if outcome == _STRING:
                self._writer.convert_to_hash(node, self._user_key(user_id), _legacy_fields)
            elif outcome != _CONFLICT:
                number = int(answer[_DIGEST:].split()[0]) if outcome == _REPEATED else answer
                done[user_id] = int(number), outcome == _REPEATED, None if known < 0 else bool(known)
        return done

    def _existing(self, ids: Sequence[bytes]) -> list[bytes]:
        """Return the ids of stored users that are not deleted, in the same order."""
        commands: list[Command] = [("HMGET", self._prefix + b"user:" + user_id, b"changes", b"gone") for user_id in ids]
        # with the time limit of a write, as that of a read is set for a recommendation
        answers = self._writer.call_all("read", commands, allow_wrong_type=True)
        return [
            user_id
            for user_id, fields in zip(ids, answers, strict=True)  # an error is a string of an earlier version
            if isinstance(fields, Exception) or (fields[0] is not None and fields[1] is None)
        ]

    def _user_key(self, user_id: str) -> bytes:
        return self._prefix + b"user:" + user_id.encode()

    def _range_key(self, name: bytes, user_id: str) -> bytes:
        """Return the key of the set or counter of a user's range of slots."""
        return self._prefix + name + b":{%b}" % hash_tags()[slot_range(self._user_key(user_id))]


def _key_field(key: str) -> bytes:
    """Return the field of an idempotency key: a hash, as the key may contain user ids."""
    return b"k" + blake2b(key.encode(), digest_size=_DIGEST).digest()


def _live_keys(keys: Mapping[bytes, bytes], now: float) -> Iterable[bytes]:
    """Yield fields and values of the idempotency keys that have not expired."""
    recent = [(float(raw[_DIGEST:].split()[1]), field) for field, raw in keys.items()]
    for at, field in sorted(recent, reverse=True)[:_MAX_KEYS]:
        if at > now - _KEY_TTL:
            yield from (field, keys[field])


def _legacy_fields(raw: bytes) -> dict[str, bytes]:
    """Return the hash for a user that an earlier version stored as a string."""
    return {"user": raw, "changes": b"0"} | ({} if LiveUser.from_json(raw).known else {"gone": b"1"})


def _event_field(event: InteractionEvent, now: float) -> bytes:
    return orjson.dumps([event.item_id, event.data, event.time, *([] if event.time is not None else [now])])


def _parse_user(fields: Mapping[bytes, bytes]) -> _StoredUser:
    """Parse the hash of a user. Raises StoreError."""
    try:
        changes, folded = (int(fields.get(name, 0)) for name in (b"changes", b"folded"))
        read = [orjson.loads(fields[b"%d" % number]) for number in range(folded + 1, changes + 1)]
        events = [(InteractionEvent("", item, at, data), *(now or (at,))) for item, data, at, *now in read]
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError("what is stored of a user cannot be read", why=type(error).__name__) from None
    user = LiveUser.from_json(fields[b"user"]) if b"user" in fields else None
    if events or user is None:
        user = apply_interactions(user, events)
    return _StoredUser(user, changes, {name: raw for name, raw in fields.items() if name.startswith(b"k")})


def _loss_warning(mark: MarkState | None, identity: str, sequence: int) -> str:
    """Describe changes that Redis lacks according to a mark; empty if none are."""
    if mark is None:
        return ""
    acknowledged = mark.first_loss.through if mark.first_loss is not None else 0
    if mark.identity and (mark.identity != identity or mark.sequence > sequence):
        acknowledged = max(acknowledged, mark.sequence)
    if not acknowledged:
        return ""
    return f"{_loss_message(acknowledged, sequence)}; to go on without them, remove {USERS_REDIS_MARK}"


def _loss_message(acknowledged: int, sequence: int) -> str:
    return (
        f"Redis was emptied, set back, or replaced by a different one: {acknowledged} changes of users were acknowledged, "
        f"and it holds {sequence}. Restore it from its own backup, or make those changes again"
    )
