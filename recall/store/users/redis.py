"""User changes in Redis, shared by services on several machines.

Redis may not answer. A read has a budget of time, and a circuit breaker pauses calls after a few failures in a row. What was
acknowledged is as durable as that Redis is: with `appendonly yes` and `appendfsync always` it is on its disk.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha1
from threading import Lock
from typing import Any, Literal

from redis import ConnectionPool, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry
from typing_extensions import override

from recall.errors import ConfigError, StoreBusyError, StoreDownError, StoreError, StoreFullError
from recall.store.group_commit import names, other_changes
from recall.store.high_water_mark import Mark, Marked, damage
from recall.store.users.changes import READ_SECONDS, LiveUsers, UserChange, changed, digest_of
from recall.store.users.record import LiveUser


class Breaker:
    """Circuit breaker: closed, open after failures, half-open to try one call.

    With it, requests do not wait for a Redis that does not answer. Thread-safe.

    Attributes:
        clock: a monotonic clock, by which calls are late.
    """

    def __init__(self, failures: int = 3, pause: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a closed breaker.

        Args:
            failures: so many in a row open it.
            pause: seconds from there to the next call that is let through, and from one such call to another.
            clock: returns seconds.
        """
        self._failures, self._pause, self.clock = failures, pause, clock
        self._lock = Lock()
        self._failed = 0
        self._due = 0.0
        self._broken = self._trying = False

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """State of the breaker."""
        return "closed" if not self._broken else "half-open" if self._trying else "open"

    def admits(self) -> bool:
        """Whether to make a call now; `succeeded` or `failed` is to report its outcome."""
        if not self._broken:
            return True
        with self._lock:
            now = self.clock()
            if self._broken and now < self._due:
                return False
            self._trying, self._due = self._broken, now + self._pause
            return True

    def succeeded(self) -> None:
        """Record a call that was answered."""
        if self._failed:
            with self._lock:
                self._failed, self._broken, self._trying = 0, False, False

    def failed(self) -> None:
        """Record a call that was not answered in time."""
        with self._lock:
            self._failed += 1
            if self._failed >= self._failures:
                self._broken, self._trying, self._due = True, False, self.clock() + self._pause


WRITE_SECONDS = 1.0
"""Default budget of a write."""
SCHEMES = ("redis://", "rediss://", "unix://")
"""What the address of a Redis begins with."""

USERS_REDIS_MARK = "users.redis.mark"
"""Name of the file in a root of published versions that says how far Redis had come."""

_DOWN = "the store of users does not answer"
_CONNECTIONS = 64  # of reads, and as many of writes
_REMEMBERED = 24 * 60 * 60  # seconds for which the key of a batch is remembered
_TRIES = 50  # of a write whose users others change meanwhile

_WRITE = """
local count = #KEYS - 3
for user = 1, count do
  local held = redis.call('GET', KEYS[3 + user])
  if (held and redis.sha1hex(held) or '') ~= ARGV[4 * user] then return -1 end
end
if ARGV[2] ~= '' and redis.call('EXISTS', KEYS[3]) == 1 then return -1 end
local sequence = redis.call('INCRBY', KEYS[1], ARGV[1])
for user = 1, count do
  redis.call('SET', KEYS[3 + user], ARGV[4 * user + 1])
  if ARGV[4 * user + 2] == '1' then redis.call('ZADD', KEYS[2], 0, ARGV[4 * user + 3])
  else redis.call('ZREM', KEYS[2], ARGV[4 * user + 3]) end
end
if ARGV[2] ~= '' then redis.call('SET', KEYS[3], ARGV[2] .. sequence, 'EX', ARGV[3]) end
return sequence
"""
# All or nothing, and nothing if a user has changed since it was read, by its digest.


class RedisLiveUsers(LiveUsers):
    """Users that change in one Redis; `LiveUsers` has the contract.

    Under a prefix, of each user `user:ID` holds the record, `users` is the sorted set of those who are not deleted, `sequence`
    the number of changes, and `batch:KEY` what was answered to a batch.

    Attributes:
        breaker: says whether Redis is being asked.
    """

    remote = True

    def __init__(
        self,
        url: str,
        *,
        read_seconds: float = READ_SECONDS,
        write_seconds: float = WRITE_SECONDS,
        prefix: str = "recall:",
        breaker: Breaker | None = None,
        mark: Mark | None = None,
    ) -> None:
        """No connection is made before the first call.

        Args:
            url: `redis://HOST:PORT/DB`, with `USER:PASSWORD@` before the host where Redis wants them; `rediss://` for TLS,
                `unix://PATH` for a socket.
            read_seconds: budget of a read until its answer begins, which connecting is part of.
            write_seconds: the same for each of the two commands of a write.
            prefix: what all keys begin with.
            breaker: one of its own when left out.
            mark: a file on this machine that remembers how far Redis had come; without one a loss is noticed by a process that
                has seen more.

        Raises:
            ConfigError: the address is none.
        """
        self.breaker = breaker if breaker is not None else Breaker()
        self._prefix = prefix.encode()
        self._mark = mark
        self._seen: tuple[str, int] | None = None
        self._read_seconds, self._write_seconds = read_seconds, write_seconds
        self._reader, self._writer = _pool(url, read_seconds), _pool(url, write_seconds)

    @override
    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser]:
        if not user_ids:
            return {}
        raws = self._read("MGET", *map(self._user, user_ids))
        return {user_id: LiveUser.from_json(raw) for user_id, raw in zip(user_ids, raws, strict=True) if raw is not None}

    @override
    def write(self, changes: Sequence[UserChange], key: str | None = None) -> int:
        batch, digest = tuple(changes), digest_of(tuple(changes))
        deadline = time.monotonic() + self._write_seconds
        for _ in range(_TRIES):
            last = self._try_to_write(batch, key, digest)
            if last is not None:
                if self._mark is not None and self._seen is not None:
                    self._mark.advance(self._seen[0], last)
                return last
            if time.monotonic() > deadline:
                break
        raise StoreBusyError("others are changing the same users", hint="Try again in a moment")

    @override
    def forget(self, ids: Sequence[str]) -> int:
        named, cursor, start = [], b"0", len(self._prefix) + len(b"batch:")
        while True:
            cursor, found = self._read("SCAN", cursor, "MATCH", _escaped(self._prefix) + b"batch:*", "COUNT", 1000)
            named += [key for key in found if names(key[start:].decode(), ids)]
            if cursor == b"0":
                break
        with self._calling("written", self._write_seconds):
            _ask(self._writer, self._write_seconds, "DEL", *map(self._user, ids), *named)
            _ask(self._writer, self._write_seconds, "ZREM", self._prefix + b"users", *ids)
        return len(set(named))

    @override
    def ids(self, after: str | None = None, count: int = 1000) -> list[str]:
        least = b"-" if after is None else b"(" + after.encode()
        raws = self._read("ZRANGEBYLEX", self._prefix + b"users", least, b"+", b"LIMIT", 0, count)
        return [raw.decode() for raw in raws]

    @override
    def sequence(self) -> int:
        return int(self._read("GET", self._prefix + b"sequence") or 0)

    @override
    def durability_warning(self) -> str:
        return "; ".join(_weaknesses(_fields(self._read("INFO", "persistence")), _fields(self._read("INFO", "memory"))))

    @override
    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._reader.disconnect()
        self._writer.disconnect()

    @override
    def error(self) -> str:
        """Describe lost changes by the mark, or by what this process has seen."""
        if self.breaker.state != "closed":  # requests find out when it answers again
            raise StoreDownError(_DOWN)
        mark = None if self._mark is None else self._mark.read()  # before Redis, which others write meanwhile
        identity, sequence = state = self._state()
        if self._mark is not None and mark is None and sequence:  # the first look from this root, or someone accepted a loss
            self._mark.advance(identity, sequence)
            mark = self._mark.read()
        if self._mark is not None and mark is not None:
            mark = self._mark.follow(mark, identity, sequence)
            self._seen = state
            return _lost(mark, identity, sequence) or damage(mark, USERS_REDIS_MARK, "Redis")
        seen = self._seen if self._seen is not None else state
        if seen[0] == identity and seen[1] <= sequence:
            self._seen = state
            return ""
        return f"{_set_back(seen[1], sequence)}; to go on without them, restart the service"

    def _state(self) -> tuple[str, int]:
        """Return the identity of the data, created if missing, and the number of changes."""
        names = (self._prefix + b"identity", self._prefix + b"sequence")
        identity, raw = self._read("MGET", *names)
        if identity is None:
            with self._calling("written", self._write_seconds):
                _ask(self._writer, self._write_seconds, "SET", names[0], secrets.token_hex(16), "NX")
            identity, raw = self._read("MGET", *names)
        return bytes(identity or b"").decode(), int(raw or 0)

    @override
    def checkpoint(self) -> None:
        """Do nothing: Redis keeps its own files."""

    def _try_to_write(self, batch: tuple[UserChange, ...], key: str | None, digest: bytes) -> int | None:
        """Return the sequence of the last change, or None after a conflict."""
        ids = list(dict.fromkeys(change.user_id for change in batch))
        named = [self._user(user_id) for user_id in ids]
        remembered = self._prefix + b"batch:" + (key or "").encode()
        with self._calling("written", self._write_seconds):
            before, *raws = _ask(self._writer, self._write_seconds, "MGET", remembered, *named)
        if key is not None and before is not None:
            if before[: len(digest)] != digest:
                raise other_changes()
            return int(before[len(digest) :])
        users = {user_id: None if raw is None else LiveUser.from_json(raw) for user_id, raw in zip(ids, raws, strict=True)}
        after = changed(users, batch, time.time())
        rows: list[bytes | str | int] = []
        for user_id, raw in zip(ids, raws, strict=True):
            user = after[user_id]
            state = b"" if raw is None else sha1(raw, usedforsecurity=False).hexdigest()
            rows += (state, user.to_json(), int(user.known), user_id.encode())
        keys = (self._prefix + b"sequence", self._prefix + b"users", remembered, *named)
        told = (len(batch), b"" if key is None else digest, _REMEMBERED)
        with self._calling("written", self._write_seconds):
            last = int(_ask(self._writer, self._write_seconds, "EVAL", _WRITE, len(keys), *keys, *told, *rows))
        return None if last < 0 else last

    def _read(self, *command: bytes | str | int) -> Any:
        with self._calling("read", self._read_seconds):
            return _ask(self._reader, self._read_seconds, *command)

    @contextmanager
    def _calling(self, what: str, seconds: float) -> Iterator[None]:
        """Report a call to the breaker; a late answer counts as failed, and is used."""
        if not self.breaker.admits():
            raise StoreDownError(_DOWN, why="it did not answer lately, and is left alone for a moment")
        start = self.breaker.clock()
        try:
            yield
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            self.breaker.failed()
            raise StoreDownError(_DOWN, why=str(error) or type(error).__name__, hint="Look at Redis") from None
        except exceptions.RedisError as error:
            self.breaker.succeeded()
            if isinstance(error, exceptions.OutOfMemoryError) or "No space left" in str(error):
                raise StoreFullError("there is no room for users in Redis", why=str(error)) from None
            if isinstance(error, exceptions.MovedError | exceptions.ClusterCrossSlotError | exceptions.ClusterDownError):
                raise StoreError(
                    "this Redis is in cluster mode, which is not supported",
                    why=f"a write changes keys of several slots at once ({error})",
                    hint="Give a Redis without cluster mode, for instance a primary with replicas",
                ) from None
            raise StoreError(f"users cannot be {what}", why=str(error), hint="Look at Redis") from None
        except BaseException:
            self.breaker.failed()
            raise
        if self.breaker.clock() - start > seconds:
            self.breaker.failed()
        else:
            self.breaker.succeeded()

    def _user(self, user_id: str) -> bytes:
        return self._prefix + b"user:" + user_id.encode()


def _escaped(prefix: bytes) -> bytes:
    """Return a prefix as a pattern of Redis."""
    return re.sub(rb"([*?\[\]\\^])", rb"\\\1", prefix)


def _lost(mark: Marked | None, identity: str, sequence: int) -> str:
    """Describe what Redis lacks by a mark, in a sentence; empty if nothing."""
    if mark is None:
        return ""
    reached = mark.lost.through if mark.lost is not None else 0
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


def _fields(info: bytes) -> dict[str, str]:
    """Parse the answer to INFO."""
    pairs = (line.partition(":") for line in info.decode().splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, _, value in pairs}


def _weaknesses(persistence: Mapping[str, str], memory: Mapping[str, str]) -> Iterator[str]:
    """Yield ways in which such a Redis may lose acknowledged writes, in sentences.

    `appendfsync` is not among them: managed Redis services refuse the command that would read it.
    """
    if persistence.get("aof_enabled") != "1":
        yield "Redis keeps changes in memory until it next saves them: set appendonly yes, and appendfsync always"
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and memory.get("maxmemory") != "0":
        dropped = "users" if policy.startswith("allkeys") else "keys of batches that were already written"
        yield f"Redis is set up as a cache and drops {dropped} when memory is full ({policy}): set maxmemory-policy noeviction"


def _pool(url: str, seconds: float) -> ConnectionPool:
    if not url.startswith(SCHEMES):
        raise ConfigError("invalid address of a Redis", where="users", hint=f"Begin it with one of {', '.join(SCHEMES)}")
    try:
        return ConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),  # what timed out once has used up its budget, and a write may have been carried out
            protocol=2,  # and no name of the library: each would be one more answer to wait for when connecting
            driver_info=None,
        )
    except ValueError as error:
        raise ConfigError("invalid address of a Redis", where="users", why=str(error)) from None


def _ask(pool: ConnectionPool, seconds: float, *command: bytes | str | int) -> Any:
    """Return the answer to a command; connecting and waiting share one budget."""
    until = time.monotonic() + seconds
    connection: Any = pool.get_connection()
    try:
        connection.send_command(*command)
        if not connection.can_read(timeout=max(until - time.monotonic(), 0.0)):
            raise exceptions.TimeoutError(f"no answer came within {seconds:g} s")
        return connection.read_response()
    except exceptions.ResponseError:  # an answer like others
        raise
    except BaseException:
        connection.disconnect()  # or the answer would be taken for that to the next command
        raise
    finally:
        pool.release(connection)
