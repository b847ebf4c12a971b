"""User changes in Redis or a Redis Cluster, shared by several machines.

    recall:user:ID          hash of one user: `user`, a `LiveUser` as JSON; `changes`, how many the user had; the interactions
                            since, each in a field named by its number; `folded`, the last one that `user` contains; `gone`, if
                            the user was deleted; and a field for each idempotency key
    recall:users:{TAG}      sorted set of the ids of users, also of deleted ones, one for each range of slots
    recall:sequence:{TAG}   at least how many changes the users of a range had
    recall:identity         random; a different one shows that Redis was emptied
    recall:catalog          name of the catalogue, so that the users of two are not mixed

All of a user is in one key, so it is in one slot of a cluster, is changed by one script, and can move while it is written.
An interaction adds a field, and only one in `_PENDING` rewrites the history. A user as earlier versions wrote it, a string
under the same name, is read, and becomes a hash with the first change.

Redis may not answer. A read has a budget of time, and a circuit breaker for each node pauses calls after a few failures in a
row. What was acknowledged is as durable as that Redis is: with `appendonly yes` and `appendfsync always` it is on its disk.
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
    Written,
    by_user,
    changed,
    digest_of,
    interacted,
)
from recall.store.users.record import LiveUser

WRITE_SECONDS = 1.0
"""Default budget of a write."""

USERS_REDIS_MARK = "users.redis.mark"
"""Name of the file in a root of published versions that says how far Redis had come."""

_PENDING = 512  # interactions beside the rest of a user: reading applies them, and the next one rewrites a user of 100 kB
_REMEMBERED = 24 * 60 * 60  # seconds for which an idempotency key is remembered
_MOST_KEYS = 1000  # and so many of a user, the latest
_DIGEST = 16  # bytes
_LISTED = 256  # ids whose users are read in one call
_TRIES = 50  # of a write whose users others change meanwhile

_REPEATED, _CONFLICT, _STRING = 0, -1, -2
# The key is never deleted on the way: while its slot moves, a script cannot create it again.
_WRITE = f"""
local user, key, appends = KEYS[1], ARGV[1], ARGV[4] == ''
if redis.call('TYPE', user).ok == 'string' then return {{{_STRING}, 0, ''}} end
local held = redis.call('HMGET', user, 'changes', 'folded', 'gone', key)
local changes, count = tonumber(held[1] or 0), tonumber(ARGV[5])
local known = held[3] and 0 or redis.call('EXISTS', user) == 1 and 1 or -1
if held[4] then return {{{_REPEATED}, known, held[4]}} end
if appends then
  if changes - tonumber(held[2] or 0) + count > {_PENDING} then return {{{_CONFLICT}, known, ''}} end
  if held[3] then redis.call('HDEL', user, 'gone') end
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


class _Stored(NamedTuple):
    """A user as it is stored; `keys` are the fields of idempotency keys."""

    user: LiveUser | None
    changes: int
    keys: Mapping[bytes, bytes]


class RedisLiveUsers(LiveUsers):
    """Users that change in Redis; `LiveUsers` has the contract.

    Attributes:
        breakers: by name of a node, whether it is being asked; "" is the address that was given.
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
    ) -> None:
        """No connection is made before the first call.

        Args:
            url: as for `Nodes`.
            read_seconds: budget of a read until its answer begins, which connecting is part of.
            write_seconds: the same for each call of a write.
            prefix: what all keys begin with.
            breaker: returns a new one for a node.
            mark: a file on this machine that remembers how far Redis had come; without one a loss is noticed by a process that
                has seen more.
            catalog: returns the name of the catalogue; empty as long as it is not known.

        Raises:
            ConfigError: The address is malformed.
        """
        self.breakers: dict[str, Breaker] = {}
        self._prefix = prefix.encode()
        self._mark = mark
        self._catalog = catalog
        self._name = self._owner = ""  # of the catalogue here, and of the one whose users these are, once known
        self._identity = ""
        self._counts: dict[bytes, int] = {}  # by name of the counter, as far as was seen
        self._write_seconds = write_seconds
        self._reader = Nodes(url, read_seconds, self.breakers, breaker)
        self._writer = Nodes(url, write_seconds, self.breakers, breaker)

    @override
    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser | StoreError]:
        found: dict[str, LiveUser | StoreError] = {}
        down: list[StoreDownError] = []
        self._check_owner()
        groups = self._reader.group_by_node(user_ids, self._user)
        for node, ids in groups:
            try:
                stored = self._stored(self._reader, node, ids)
                found.update((user_id, one.user) for user_id, one in stored.items() if one.user is not None)
            except StoreDownError as error:
                down.append(error)
                found.update(dict.fromkeys(ids, error))
        if down and len(down) == len(groups):
            raise down[0]
        return found

    @override
    def write(self, changes: Sequence[UserChange], key: str | None = None) -> Written:
        batch, digest = tuple(changes), digest_of(tuple(changes))
        waiting, done = by_user(batch), dict[str, tuple[int, bool, bool | None]]()
        rewritten = {one.user_id for one in batch if not isinstance(one, InteractionEvent)}
        deadline = time.monotonic() + self._write_seconds
        field = b"" if key is None else _field(key)
        self._check_owner(claim=True)
        if field and len(waiting) > 1:  # before any of them is written
            self._check_key(waiting, field, digest)
        for _ in range(_TRIES):
            for node, ids in self._writer.group_by_node(waiting, self._user):
                own = {user_id: waiting[user_id] for user_id in ids}
                done |= self._write(node, own, rewritten, field, digest)
            rewritten |= waiting.keys() - done.keys()
            waiting = {user_id: own for user_id, own in waiting.items() if user_id not in done}
            if not waiting:
                if self._mark is not None and self._identity:
                    self._mark.advance(self._identity, sum(self._counts.values()))
                known = {user_id: was for user_id, (_, _, was) in done.items()}
                return Written(done[batch[-1].user_id][0], all(again for _, again, _ in done.values()), known)
            if time.monotonic() > deadline:
                break
        raise StoreBusyError("others are changing the same users", hint="Try again in a moment")

    @override
    def forget(self, ids: Sequence[str]) -> int:
        self._check_owner()
        keys = 0
        for node, some in self._writer.group_by_node(ids, self._user):
            fields = self._writer.call(node, "read", [("HKEYS", self._user(one)) for one in some], allow_wrong_type=True)
            keys += sum(field.startswith(b"k") for one in fields if not isinstance(one, Exception) for field in one)
            own = [("ZREM", self._of(b"users", one), one) for one in some]
            self._writer.call(node, "written", [*(("DEL", self._user(one)) for one in some), *own])
        for node, _ in self._writer.group_by_node([self._prefix + b"users"], bytes):
            self._writer.call(node, "written", [("ZREM", self._prefix + b"users", *ids)])
        return keys

    @override
    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        self._check_owner()
        names = [self._prefix + b"users", *(self._prefix + b"users:{%b}" % tag for tag in hash_tags())]
        most = count // RANGES * 2 + 16  # of one set: so many are hardly ever in a page
        least = b"-" if after is None else b"(" + after.encode()
        found: list[bytes] = []
        while len(found) < count:
            parts = dict[bytes, list[bytes]]()
            for node, some in self._reader.group_by_node(names, bytes):
                asked: list[Command] = [("ZRANGEBYLEX", name, least, b"+", b"LIMIT", 0, most) for name in some]
                parts |= dict(zip(some, self._reader.call(node, "read", asked), strict=True))
            ends = [part[-1] for part in parts.values() if len(part) == most]
            page = sorted({one for part in parts.values() for one in part if not ends or one <= min(ends)})
            for start in range(0, len(page), _LISTED):
                if len(found) < count:
                    found += self._known(page[start : start + _LISTED])
            if not ends:
                break
            least = b"(" + min(ends)
        return [one.decode() for one in found[:count]]

    @override
    def sequence(self) -> int:
        return sum(self._state()[1].values())

    @override
    def durability_warning(self) -> str:
        said: dict[str, None] = {}
        for node in self._reader.primaries():
            asked: list[Command] = [("INFO", "persistence"), ("INFO", "memory")]
            said |= dict.fromkeys(durability_problems(*self._reader.call(node, "read", asked)))
        return "; ".join(said)

    @override
    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._reader.close()
        self._writer.close()

    @override
    def error(self) -> str:
        """Describe lost changes by the mark, or by what this process has seen."""
        breaker = self.breakers.get("")
        if breaker is not None and breaker.state != "closed":  # requests find out when it answers again
            raise StoreDownError(DOWN)
        # both before Redis, which is written meanwhile
        mark, seen = None if self._mark is None else self._mark.read(), dict(self._counts)
        identity, counts = self._state()
        if identity != self._identity or self._owner != self._name:  # emptied, or refused until now
            self._owner = ""
        self._check_owner(claim=sum(counts.values()) > 0)
        sequence, same = sum(counts.values()), identity == self._identity
        reached = {name: max(found, seen.get(name, 0)) for name, found in counts.items()} if same else counts
        if self._mark is not None:
            if mark is None:  # the first look from this root, or someone accepted a loss
                reached = counts
                if sequence:
                    self._mark.advance(identity, sequence)
                    mark = self._mark.read()
            mark = self._mark.raise_to(mark, identity, sum(reached.values()))
            self._identity, self._counts = identity, dict(reached)
            return _lost(mark, identity, sequence) or damage_warning(mark, USERS_REDIS_MARK, "Redis")
        if not self._identity or (same and reached == counts):
            self._identity, self._counts = identity, dict(counts)
            return ""
        return f"{_set_back(sum(seen.values()), sequence)}; to go on without them, restart the service"

    @override
    def checkpoint(self) -> None:
        """Do nothing: Redis keeps its own files."""

    def _check_owner(self, *, claim: bool = False) -> None:
        """Refuse users of another catalogue; ask until it is known whose they are.

        Args:
            claim: note that they are of this one, if nothing is noted, and look again after a refusal.

        Raises:
            StoreError: They are of another catalogue.
        """
        self._name = self._name or self._catalog()
        if not self._name or self._owner == self._name:
            return
        key, nodes = self._prefix + b"catalog", self._writer if claim else self._reader
        if claim or not self._owner:
            ((node, _),) = nodes.group_by_node([key], bytes)
            noted: list[Command] = [("SET", key, self._name, "NX")] if claim else []
            held = nodes.call(node, "written" if claim else "read", [*noted, ("GET", key)])[-1]
            self._owner = bytes(held or b"").decode()
        if self._owner not in ("", self._name):
            raise wrong_catalog(StoreError, self._owner, self._name, f"the key {key.decode()}")

    def _check_key(self, ids: Iterable[str], field: bytes, digest: bytes) -> None:
        """Raise RequestError if one of some users had other changes with the same key."""
        for node, some in self._writer.group_by_node(ids, self._user):
            asked: list[Command] = [("HGET", self._user(one), field) for one in some]
            for told in self._writer.call(node, "read", asked, allow_wrong_type=True):
                if isinstance(told, bytes) and told[:_DIGEST] != digest:
                    raise key_conflict()

    def _state(self) -> tuple[str, dict[bytes, int]]:
        """Return identity, which is created if missing, and counters of changes."""
        name = self._prefix + b"identity"
        counters = [self._prefix + b"sequence", *(self._prefix + b"sequence:{%b}" % tag for tag in hash_tags())]
        found = dict[bytes, bytes | None]()
        for node, some in self._reader.group_by_node([name, *counters], bytes):
            found |= dict(zip(some, self._reader.call(node, "read", [("GET", one) for one in some]), strict=True))
        identity = found.pop(name)
        if identity is None:
            ((node, _),) = self._writer.group_by_node([name], bytes)
            made: list[Command] = [("SET", name, secrets.token_hex(16), "NX"), ("GET", name)]
            identity = self._writer.call(node, "written", made)[1]
        return bytes(identity or b"").decode(), {counter: int(raw or 0) for counter, raw in found.items()}

    def _stored(self, nodes: Nodes, node: Node, ids: Sequence[str]) -> dict[str, _Stored]:
        """Return what is stored of users who are all on one node."""
        answers = nodes.call(node, "read", [("HGETALL", self._user(one)) for one in ids], allow_wrong_type=True)
        found = {one: _parsed(answer) for one, answer in zip(ids, answers, strict=True) if isinstance(answer, dict) and answer}
        strings = [one for one, answer in zip(ids, answers, strict=True) if isinstance(answer, exceptions.ResponseError)]
        if strings:  # as an earlier version wrote them, or changed by another process meanwhile
            raws = nodes.call(node, "read", [("GET", self._user(one)) for one in strings], allow_wrong_type=True)
            own = zip(strings, raws, strict=True)
            found |= {one: _parsed({b"user": raw}) for one, raw in own if isinstance(raw, bytes)}
            for error in raws:
                if isinstance(error, exceptions.ResponseError):
                    raise StoreBusyError("another process changes the same user", why=str(error), hint="Try again in a moment")
        return found

    def _write(
        self, node: Node, own: Mapping[str, list[UserChange]], rewritten: set[str], key: bytes, digest: bytes
    ) -> dict[str, tuple[int, bool, bool | None]]:
        """Write changes of users on one node.

        Returns:
            Number, repetition and earlier state of those that were written; the others had conflicts.
        """
        now, at = time.time(), self._of
        stored = self._stored(self._writer, node, [*(own.keys() & rewritten)]) if own.keys() & rewritten else {}
        scripts: list[Command] = []
        gone: list[str] = []
        for user_id, some in own.items():
            said: list[bytes | str | int] = ["EVAL", _WRITE, 1, self._user(user_id), key, digest, int(now)]
            if user_id in rewritten:
                before = stored.get(user_id, _Stored(None, 0, {}))
                user = changed({user_id: before.user}, tuple(some), now)[user_id]
                said += [before.changes, len(some), b"user", user.to_json(), *_remembered(before.keys, now)]
                if not user.known:
                    gone.append(user_id)
                    said += [b"gone", 1]
            else:
                said += [b"", len(some), *(_event(one, now) for one in some if isinstance(one, InteractionEvent))]
            scripts.append(tuple(said))
        known: list[Command] = [("ZADD", at(b"users", one), 0, one) for one in own if one not in gone]
        counters = [at(b"sequence", one) for one in own]
        counted: list[Command] = [("INCRBY", name, len(some)) for name, some in zip(counters, own.values(), strict=True)]
        answers = self._writer.call(node, "written", [*scripts, *known, *counted], transaction=len(own) > 1)
        for name, count in zip(counters, answers[-len(own) :], strict=True):
            self._counts[name] = max(self._counts.get(name, 0), int(count))
        done = dict[str, tuple[int, bool, bool | None]]()
        for user_id, (outcome, was, told) in zip(own, answers, strict=False):
            if outcome == _REPEATED and told[:_DIGEST] != digest:
                raise key_conflict()
            if outcome == _STRING:
                self._writer.convert_to_hash(node, self._user(user_id), _fields)
            elif outcome != _CONFLICT:
                number = int(told[_DIGEST:].split()[0]) if outcome == _REPEATED else told
                done[user_id] = int(number), outcome == _REPEATED, None if was < 0 else bool(was)
        return done

    def _known(self, ids: Sequence[bytes]) -> list[bytes]:
        """Return those who are stored and not deleted, in the same order."""
        found = set[bytes]()
        # not within the budget of a read, which is that of a recommendation
        for node, some in self._writer.group_by_node(ids, lambda one: self._prefix + b"user:" + one):
            asked: list[Command] = [("HMGET", self._prefix + b"user:" + one, b"changes", b"gone") for one in some]
            answers = self._writer.call(
                node, "read", asked, allow_wrong_type=True
            )  # an error is a string of an earlier version
            own = zip(some, answers, strict=True)
            found |= {one for one, told in own if isinstance(told, Exception) or (told[0] is not None and told[1] is None)}
        return [one for one in ids if one in found]

    def _user(self, user_id: str) -> bytes:
        return self._prefix + b"user:" + user_id.encode()

    def _of(self, name: bytes, user_id: str) -> bytes:
        """Return the name of the set or counter of a user's range of slots."""
        return self._prefix + name + b":{%b}" % hash_tags()[slot_range(self._user(user_id))]


def _field(key: str) -> bytes:
    """Return the field of an idempotency key: a hash, since the key may name users."""
    return b"k" + blake2b(key.encode(), digest_size=_DIGEST).digest()


def _remembered(keys: Mapping[bytes, bytes], now: float) -> Iterable[bytes]:
    """Yield fields and values of the keys that are still remembered."""
    recent = [(float(raw[_DIGEST:].split()[1]), field) for field, raw in keys.items()]
    for at, field in sorted(recent, reverse=True)[:_MOST_KEYS]:
        if at > now - _REMEMBERED:
            yield from (field, keys[field])


def _fields(raw: bytes) -> dict[str, bytes]:
    """Return the hash of a user whom an earlier version wrote."""
    return {"user": raw, "changes": b"0"} | ({} if LiveUser.from_json(raw).known else {"gone": b"1"})


def _event(event: InteractionEvent, now: float) -> bytes:
    return orjson.dumps([event.item_id, event.data, event.time, *([] if event.time is not None else [now])])


def _parsed(fields: Mapping[bytes, bytes]) -> _Stored:
    """Parse the hash of a user. Raises StoreError."""
    try:
        changes, folded = (int(fields.get(name, 0)) for name in (b"changes", b"folded"))
        read = [orjson.loads(fields[b"%d" % number]) for number in range(folded + 1, changes + 1)]
        events = [(InteractionEvent("", item, at, data), *(now or (at,))) for item, data, at, *now in read]
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError("what is stored of a user cannot be read", why=type(error).__name__) from None
    user = LiveUser.from_json(fields[b"user"]) if b"user" in fields else None
    if events or user is None:
        user = interacted(user, events)
    return _Stored(user, changes, {name: raw for name, raw in fields.items() if name.startswith(b"k")})


def _lost(mark: MarkState | None, identity: str, sequence: int) -> str:
    """Describe what Redis lacks by a mark, in a sentence; empty if nothing."""
    if mark is None:
        return ""
    reached = mark.first_loss.through if mark.first_loss is not None else 0
    if mark.identity and (mark.identity != identity or mark.sequence > sequence):
        reached = max(reached, mark.sequence)
    if not reached:
        return ""
    return f"{_set_back(reached, sequence)}; to go on without them, remove {USERS_REDIS_MARK}"


def _set_back(reached: int, sequence: int) -> str:
    return (
        f"Redis was emptied, set back, or replaced by a different one: {reached} changes of users were acknowledged, "
        f"and it holds {sequence}. Restore it from its own backup, or make those changes again"
    )
