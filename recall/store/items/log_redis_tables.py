"""Tables of a change log in Redis: connection, errors, and the commit script."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from redis import Redis, exceptions
from typing_extensions import override

from recall.errors import (
    ConfigError,
    JournalDamagedError,
    JournalDownError,
    JournalError,
    JournalFullError,
    JournalReadOnlyError,
    raising,
)
from recall.store.group_commit import KeyTable
from recall.store.items.log_base import REMOTE, LogTables
from recall.store.items.log_position import KEPT_HEADS, LogRow, State
from recall.store.redis_nodes import (
    CONNECTION_ERRORS,
    connection_options,
    durability_problems,
    is_full,
    split_address,
    wrong_catalog,
)

DOWN = "the log of changes does not answer"

_WAITAOF = (7, 2)  # first version of Redis with the command
_KEY_TTL = 24 * 60 * 60  # seconds for which an idempotency key is stored
_DIGEST = 16  # bytes of a batch's digest
_HINT = "Restore Redis from its own backup; or remove the keys of the log, and give every change since the live version again"

_COMMIT = """
if (redis.call('HGET', KEYS[1], 'state') or '') ~= ARGV[1] then return -1 end
if ARGV[#KEYS + 4] and redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for at = 1, #info, 2 do
    local last = info[at] == 'last-generated-id' and string.match(info[at + 1], '^%d+')
    if last and tonumber(last) >= tonumber(ARGV[#KEYS + 4]) then return redis.error_reply('the stream is ahead of the log') end
  end
end
if ARGV[3] ~= '' then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', ARGV[3])) do
    redis.call('XDEL', KEYS[2], entry[1])
    redis.call('HDEL', KEYS[3], entry[2][2])
  end
end
for key = 5, #KEYS do redis.call('SET', KEYS[key], ARGV[key + 3], 'EX', ARGV[6]) end
for at = #KEYS + 4, #ARGV, 4 do
  local earlier = redis.call('HGET', KEYS[3], ARGV[at + 1])
  if earlier then redis.call('XDEL', KEYS[2], earlier .. '-0') end
  redis.call('XADD', KEYS[2], ARGV[at] .. '-0', 'id', ARGV[at + 1], 'at', ARGV[at + 2], 'features', ARGV[at + 3])
  redis.call('HSET', KEYS[3], ARGV[at + 1], ARGV[at])
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], ARGV[4], ARGV[4])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[4] .. ':' .. ARGV[5])
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, ARGV[7])
redis.call('HSET', KEYS[1], 'state', ARGV[2], 'number', redis.call('XLEN', KEYS[2]))
return 1
"""
LOG, CHANGES, LATEST, HEADS = NAMES = ("recall:log", "recall:log:changes", "recall:log:latest", "recall:log:heads")
"""Redis keys of the tables."""
KEY = "recall:log:key:"
"""Prefix of the Redis keys for idempotency keys."""

Command = tuple[bytes | str | int, ...]


class Server:
    """Connections to one Redis, made on demand. Thread-safe.

    Attributes:
        where: the address without a password.
        seconds: time limit of one call.
    """

    def __init__(self, url: str, seconds: float) -> None:
        """Connect at the first call.

        Args:
            url: as for `RedisChangeLog`.
            seconds: time limit of one call.

        Raises:
            ConfigError: The address is malformed.
        """
        parts = split_address(url, "items")
        self.where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.seconds = seconds
        with raising(ConfigError, "invalid address of a Redis", where="items", of=ValueError):
            self._client: Any = Redis.from_url(url, **connection_options(seconds))

    def ask(self, *command: bytes | str | int) -> Any:
        """Return the answer to a command. Raises RedisError, see `translate_errors`."""
        return self._client.execute_command(*command)

    def ask_all(self, *commands: Command, transaction: bool = False, return_errors: bool = False) -> list[Any]:
        """Send commands in one pipeline, and return the answers.

        Args:
            commands: commands with their arguments.
            transaction: run them atomically.
            return_errors: return errors among the answers instead of raising the first.
        """
        pipeline = self._client.pipeline(transaction=transaction)
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute(raise_on_error=not return_errors))

    def scan(self, pattern: str) -> Iterator[bytes]:
        """Yield the keys that match a pattern. Raises RedisError."""
        return iter(self._client.scan_iter(match=pattern, count=1000))

    @contextmanager
    def translate_errors(self, what: str) -> Iterator[None]:
        """Raise errors of the server and of the connection as JournalError.

        Args:
            what: past participle for the message, such as "read".
        """
        try:
            yield
        except CONNECTION_ERRORS as error:
            raise JournalDownError(DOWN, where=self.where, why=str(error) or type(error).__name__, hint="Check Redis") from None
        except exceptions.RedisError as error:
            why = str(error)
            if is_full(error):
                raise JournalFullError("there is no room for changes in Redis", where=self.where, why=why) from None
            if isinstance(error, exceptions.ReadOnlyError):
                raise JournalReadOnlyError("this Redis is a replica", where=self.where, hint="Name the primary") from None
            if isinstance(error, exceptions.MovedError | exceptions.ClusterCrossSlotError | exceptions.ClusterDownError):
                raise JournalError(
                    "this Redis is in cluster mode, which is not supported",
                    where=self.where,
                    why=f"a commit changes keys of several slots at once ({error})",
                    hint="Use a Redis without cluster mode, for instance a primary with replicas",
                ) from None
            raise JournalError(f"changes cannot be {what}", where=self.where, why=why, hint="Check Redis") from None

    def durability_warning(self) -> str:
        """Return a warning if acknowledged changes may be lost. Raises RedisError."""
        persistence, memory, server = (self._client.info(part) for part in ("persistence", "memory", "server"))
        waits = tuple(map(int, str(server["redis_version"]).split(".")[:2])) >= _WAITAOF
        try:
            fsync = str(self._client.config_get("appendfsync").get("appendfsync", ""))
        except exceptions.ResponseError:  # managed services refuse the command
            fsync = ""
        problems = list(durability_problems(persistence, memory))
        if int(persistence.get("aof_enabled", 0)) and fsync != "always" and not waits:
            cause = f"appendfsync is {fsync}" if fsync else "this Redis does not report its setting of appendfsync"
            hint = "set appendfsync always, or use Redis 7.2 or Valkey"
            problems.insert(0, f"{cause}, so changes of the last second may be lost: {hint}")
        return "; ".join(problems)

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        self._client.connection_pool.disconnect()


class ConcurrentWriteError(Exception):
    """Another process wrote to the log between two calls."""


class RedisTables(LogTables, KeyTable):
    """The tables as read by one call, and the writes to commit."""

    def __init__(self, server: Server, keys: Sequence[str] = (), catalog: str = "") -> None:
        """Read the state.

        Args:
            server: connections to the Redis.
            keys: idempotency keys of the batches to write.
            catalog: name of the catalogue; empty if it is unknown.

        Raises:
            JournalError: The log has the changes of another catalogue.
        """
        self._server, self._catalog = server, catalog
        command = ("HMGET", LOG, "state", "number", "catalog")
        (self._raw, number, owner), *answers = server.ask_all(command, *(("GET", KEY + key) for key in keys))
        if catalog and owner is not None and owner.decode() != catalog:
            raise wrong_catalog(JournalError, owner.decode(), catalog, f"the field `catalog` of the hash {LOG}")
        self._keys: dict[str, bytes] = {key: raw for key, raw in zip(keys, answers, strict=True) if raw is not None}
        self._keys_before = frozenset(self._keys)
        self._number = int(number or 0)
        self._state = self._parsed(self._number)
        self._entries: dict[str, LogRow] = {}
        self._arguments: list[bytes | str | int] = []
        self._dropped = ""

    @property
    def exists(self) -> bool:
        """Whether there is a log."""
        return self._raw is not None

    @override
    def state(self) -> State:
        return self._state

    @override
    def has_head(self, sequence: int, head: bytes) -> bool:
        if sequence == 0 or (sequence == self._state.last and head == self._state.head):
            return True
        found = self._server.ask("ZRANGEBYSCORE", HEADS, sequence, sequence)
        return bool(found == [f"{sequence}:{head.hex()}".encode()])

    @override
    def rows_after(self, sequence: int, *, whole: bool) -> list[LogRow]:
        (raw, number), length, found = self._server.ask_all(
            ("HMGET", LOG, "state", "number"),
            ("XLEN", CHANGES),
            ("XREAD", "STREAMS", CHANGES, f"{sequence}-0"),
            transaction=True,
        )
        if raw != self._raw:
            raise ConcurrentWriteError
        if length != int(number or 0):
            raise JournalDamagedError(
                f"{int(number or 0) - length} changes are missing from the journal",
                where=self._server.where,
                why="the stream was trimmed, or entries of it were deleted",
                hint=_HINT,
            )
        return [self._row(*entry) for entry in (found[0][1] if found else ())]

    @override
    def time_of(self, item_id: str) -> int:
        if item_id in self._entries:
            return self._entries[item_id].at
        sequence = self._server.ask("HGET", LATEST, item_id)
        if sequence is None:
            return -1
        entry_id = f"{int(sequence)}-0"
        entries = self._server.ask("XRANGE", CHANGES, entry_id, entry_id)
        return self._row(*entries[0]).at if entries else -1

    @override
    def write(self, state: State, rows: Sequence[LogRow]) -> State:
        for row in rows:
            self._entries[row.item_id] = row
            self._arguments += [row.sequence, row.item_id.encode(), row.at, row.features or b""]
        self._state = state
        return state

    @override
    def drop(self, upto: int) -> int:
        entries = self._server.ask("XRANGE", CHANGES, "-", str(upto))
        self._dropped = str(upto)
        self._state = self._state._replace(pruned=max(self._state.pruned, upto))
        return len(entries)

    @override
    def find_key(self, key: str) -> tuple[bytes, int] | None:
        stored = self._keys.get(key)
        return None if stored is None else (stored[:_DIGEST], int(stored[_DIGEST:]))

    @override
    def store_key(self, key: str, digest: bytes, last: int) -> None:
        self._keys[key] = digest + str(last).encode()

    def commands(self) -> list[Command]:
        """Return the commit script with arguments, and a command for the catalogue.

        The script writes nothing if the state is no longer the one that was read.
        """
        state = self._state
        added = [(KEY + key, raw) for key, raw in self._keys.items() if key not in self._keys_before]
        keys = [*NAMES, *(name for name, _ in added)]
        values = {**state._asdict(), "head": state.head.hex()}
        after = orjson.dumps({name: value for name, value in values.items() if name not in ("number", "digest")})
        fixed = (self._raw or b"", after, self._dropped, state.last, state.head.hex(), _KEY_TTL, -1 - KEPT_HEADS)
        claim: list[Command] = [("HSETNX", LOG, "catalog", self._catalog)] if self._catalog else []
        return [("EVAL", _COMMIT, len(keys), *keys, *fixed, *(raw for _, raw in added), *self._arguments), *claim]

    def _parsed(self, number: int) -> State:
        if self._raw is None:
            return State(REMOTE + secrets.token_hex(16)[1:], 0, 0, b"", 0, 0, 0, 0, None, 0, 0)
        try:
            values: dict[str, Any] = orjson.loads(self._raw)
            return State(**{**values, "head": bytes.fromhex(values["head"])}, number=number, digest=0)
        except (ValueError, LookupError, TypeError):
            raise JournalDamagedError("this is not a log of changes", where=self._server.where, hint=_HINT) from None

    def _row(self, entry_id: bytes, values: Mapping[bytes, bytes]) -> LogRow:
        try:
            sequence, _, _ = entry_id.partition(b"-")
            return LogRow(int(sequence), values[b"id"].decode(), values[b"features"] or None, int(values[b"at"]))
        except (ValueError, LookupError):
            what = f"change {entry_id.decode()} was damaged after it was written"
            raise JournalDamagedError(what, where=self._server.where, hint=_HINT) from None
