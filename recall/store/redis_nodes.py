"""Connections to a Redis or to the nodes of a cluster, with circuit breakers."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

from redis import Redis, RedisCluster, exceptions
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.retry import Retry

from recall._breaker import Breaker
from recall.errors import ConfigError, RecallError, StoreDownError, StoreError, StoreFullError, raising

_SCHEMES = ("redis://", "rediss://", "unix://")
DOWN = "the store of users does not answer"

RANGES = 256
"""Ranges of hash slots: with more, a page of ids reads more sets; with fewer, nodes of a large cluster have unequal shares."""

_REFRESH = 1.0  # minimum seconds between two refreshes of the slot map
_CONNECTIONS = 64  # for reads to each node, and as many for writes

Key = bytes | str | int
Command = tuple[Key, ...]
Node = Any
"""A `ClusterNode`, which has no types; None is a Redis without cluster mode."""
Value = TypeVar("Value", bound=Hashable)
AnyError = TypeVar("AnyError", bound=RecallError)


CONNECTION_ERRORS = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
"""Errors of a Redis that does not answer."""


def connection_options(seconds: float) -> Mapping[str, Any]:
    """Return the options of a client that does not retry.

    A call that timed out has used up its time limit, and a write may have been executed.

    Args:
        seconds: time limit of one call.
    """
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # like the driver's name, version 3 would add a round trip to connecting
        "driver_info": None,
    }


def split_address(url: str, where: str) -> SplitResult:
    """Split the address of a Redis.

    Args:
        url: `redis://HOST:PORT/DB`, or with another scheme of Redis.
        where: name of the setting, for the error.

    Raises:
        ConfigError: The scheme is missing or unknown.
    """
    if not url.startswith(_SCHEMES):
        raise ConfigError("invalid address of a Redis", where=where, hint=f"Begin it with one of {', '.join(_SCHEMES)}")
    return urlsplit(url)


class Nodes:
    """Connections to a Redis or all nodes of a cluster, made on demand. Thread-safe.

    The slot map is read from the cluster, and again after a failure. Redirections to another node are followed.
    """

    def __init__(self, url: str, seconds: float, breakers: dict[str, Breaker], breaker: Callable[[], Breaker]) -> None:
        """Connect at the first call.

        Args:
            url: `redis://HOST:PORT/DB`, with `USER:PASSWORD@` before the host if required; `rediss://` for TLS,
                `unix://PATH` for a socket. For a cluster, any node, or several as `HOST:PORT,HOST:PORT`.
            seconds: time limit of one call to a node.
            breakers: circuit breakers by name of a node ("" for the address); nodes are added at their first call.
            breaker: returns a new circuit breaker.

        Raises:
            ConfigError: The address is malformed.
        """
        parts = split_address(url, "users")
        user, at, hosts = parts.netloc.rpartition("@")
        self._urls = [urlunsplit(parts._replace(netloc=user + at + host)) for host in hosts.split(",")]
        if parts.scheme == "unix":
            self._urls = [url]
        self._seconds, self._breakers, self._breaker = seconds, breakers, breaker
        self._options = {**connection_options(seconds), "max_connections": _CONNECTIONS}
        with raising(ConfigError, "invalid address of a Redis", where="users", of=ValueError):
            self._addresses = [Redis.from_url(one, **self._options) for one in self._urls]
        self._lock = Lock()
        self._next_refresh = 0.0  # monotonic time of the earliest refresh of the slot map
        self._client: Any = None  # a Redis, or a RedisCluster, which has few types

    def primaries(self) -> list[Node]:
        """Return all nodes with keys. Raises StoreError."""
        client = self._get_client()
        return list(client.get_primaries()) if _is_cluster(client) else [None]

    def group_by_node(self, values: Iterable[Value], key: Callable[[Value], Key]) -> list[tuple[Node, list[Value]]]:
        """Group values by the node of their key.

        Args:
            values: the values.
            key: returns the key of a value.

        Raises:
            StoreDownError: The cluster does not answer, or no node has the slot of a key.
        """
        client = self._get_client()
        if not _is_cluster(client):
            return [(None, list(values))]
        groups: dict[str, tuple[Node, list[Value]]] = {}
        for value in values:
            try:
                node = client.get_node_from_key(key(value))
            except exceptions.SlotNotCoveredError as error:
                self._refresh(client)
                raise StoreDownError(DOWN, why=str(error), hint="Check the cluster: no node has this slot") from None
            groups.setdefault(node.name, (node, []))[1].append(value)
        return list(groups.values())

    def call(
        self, node: Node, what: str, commands: Iterable[Command], *, transaction: bool = False, allow_wrong_type: bool = False
    ) -> list[Any]:
        """Send commands to a node in one pipeline, and return the answers.

        Args:
            node: the node that has the keys.
            what: past participle for messages, such as "read".
            commands: commands with their arguments, each with one key.
            transaction: execute all or none; has no effect in a cluster.
            allow_wrong_type: return the error for a key of another type instead of raising it.

        Raises:
            StoreDownError: The node does not answer in time, or its circuit breaker is open.
            StoreFullError: The node is out of memory or disk space.
            StoreError: The node answered with another error.
        """
        client, sent = self._get_client(), list(commands)
        with self._guard("" if node is None else node.name, what, client):
            target = client.get_redis_connection(node) if node is not None and _is_cluster(client) else client
            pipeline: Any = target.pipeline(transaction=transaction and node is None)
            for command in sent:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
            for number, answer in enumerate(answers):
                if isinstance(answer, exceptions.AskError) and _is_cluster(client):  # or its subclass `MovedError`
                    answers[number] = answer = _follow_redirect(client, sent[number])
                if isinstance(answer, exceptions.RedisError) and not (allow_wrong_type and str(answer).startswith("WRONGTYPE")):
                    raise answer
        return answers

    def call_all(self, what: str, commands: Sequence[Command], *, allow_wrong_type: bool = False) -> list[Any]:
        """Send each command to the node of its key, and return the answers in order.

        Commands for one node are sent in one pipeline, in order.

        Args:
            what: as for `call`.
            commands: commands whose first argument is their key.
            allow_wrong_type: as for `call`.

        Raises:
            StoreError: As `call`.
        """
        answers: list[Any] = [None] * len(commands)
        for node, numbers in self.group_by_node(range(len(commands)), lambda number: commands[number][1]):
            own = self.call(node, what, [commands[number] for number in numbers], allow_wrong_type=allow_wrong_type)
            for number, answer in zip(numbers, own, strict=True):
                answers[number] = answer
        return answers

    def convert_to_hash(self, node: Node, key: bytes, fields: Callable[[bytes], dict[str, bytes]]) -> None:
        """Replace a string by a hash in one transaction, if it is still a string.

        A key that is moving to another node is not changed.

        Args:
            node: the node that has the key.
            key: key of the string.
            fields: returns the fields of the hash for the string's value.

        Raises:
            StoreError: As `call`.
        """

        def change(pipeline: Any) -> None:
            raw = pipeline.get(key) if pipeline.type(key) == b"string" else None
            pipeline.multi()
            if raw is not None:
                pipeline.delete(key)
                pipeline.hset(key, mapping=fields(raw))

        client = self._get_client()
        with self._guard("" if node is None else node.name, "written", client):
            try:
                (client if node is None else client.get_redis_connection(node)).transaction(change, key)
            except (exceptions.AskError, exceptions.TryAgainError):  # or `MovedError`, a subclass of AskError
                self._refresh(client)

    def close(self) -> None:
        """Close all connections; a later call opens them again."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _get_client(self) -> Any:
        client = self._client
        if client is None:
            with self._lock:  # one thread connects, the others wait
                if self._client is None:
                    with self._guard("", "read", None):
                        self._client = self._connect()
                client = self._client
        return client

    def _connect(self) -> Any:
        for number, address in enumerate(self._addresses, 1):
            try:
                mode: Mapping[str, Any] = address.info("cluster")
            except CONNECTION_ERRORS:
                if number == len(self._addresses):
                    raise
                continue
            if mode.get("cluster_enabled"):
                return self._connect_cluster([])
            if len(self._addresses) > 1:
                raise StoreError("several addresses were given of a Redis that is not a cluster", hint="Give one address")
            return address
        raise AssertionError  # unreachable: there is at least one address

    def _connect_cluster(self, known: Iterable[Node]) -> Any:
        """Connect to a cluster and read its slot map. Raises RedisClusterException."""
        others = [Redis.from_url(one).connection_pool.connection_kwargs for one in self._urls[1:]]
        node: Any = ClusterNode
        nodes = [node(one["host"], one.get("port", 6379)) for one in others] + [node(one.host, one.port) for one in known]
        return RedisCluster(url=self._urls[0], startup_nodes=nodes, require_full_coverage=False, **self._options)

    def _refresh(self, client: Any) -> None:
        """Read the slot map again, at most once in `_REFRESH` seconds; keep it on errors.

        Returns at once while another thread does.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._client is client and time.monotonic() >= self._next_refresh:
                with suppress(exceptions.RedisError, exceptions.RedisClusterException, OSError):
                    self._client = self._connect_cluster(client.get_nodes())
                self._next_refresh = time.monotonic() + _REFRESH
        finally:
            self._lock.release()

    @contextmanager
    def _guard(self, name: str, what: str, client: Any) -> Iterator[None]:
        """Guard a call by the node's breaker; a late answer is used, but counts as failed."""
        breaker = self._breakers.get(name) or self._breakers.setdefault(name, self._breaker())
        if not breaker.admits():
            raise StoreDownError(DOWN, why="calls are paused for a moment after several failures")
        start = breaker.clock()
        try:
            yield
        except (*CONNECTION_ERRORS, exceptions.ClusterDownError, exceptions.RedisClusterException) as error:
            breaker.failed()
            if _is_cluster(client):
                self._refresh(client)
            raise StoreDownError(DOWN, why=str(error) or type(error).__name__, hint="Check Redis") from None
        except exceptions.RedisError as error:
            breaker.succeeded()
            if is_full(error):
                raise StoreFullError("there is no room for users in Redis", why=str(error)) from None
            raise StoreError(f"users cannot be {what}", why=str(error), hint="Check Redis") from None
        except BaseException:
            breaker.failed()
            raise
        if breaker.clock() - start > self._seconds:
            breaker.failed()
        else:
            breaker.succeeded()


@cache
def hash_tags() -> tuple[bytes, ...]:
    """Return a hash tag for each range of slots: keys with this tag are in the range."""
    by_range: dict[int, bytes] = {}
    for number in count():
        tag = b"%d" % number
        by_range.setdefault(slot_range(tag), tag)
        if len(by_range) == RANGES:
            break
    return tuple(by_range[number] for number in range(RANGES))


def slot_range(key: bytes) -> int:
    """Return the number of the range that contains a key's slot, in [0, RANGES)."""
    return key_slot(key) * RANGES // REDIS_CLUSTER_HASH_SLOTS


def is_full(error: exceptions.RedisError) -> bool:
    """Return whether a Redis has refused a write for lack of memory or disk space."""
    return isinstance(error, exceptions.OutOfMemoryError) or "No space left" in str(error)


def durability_problems(persistence: Mapping[str, Any], memory: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences about settings with which Redis may lose acknowledged writes.

    `appendfsync` is not checked, as managed Redis services refuse the command that reads it.

    Args:
        persistence: section `persistence` of INFO.
        memory: section `memory` of INFO.
    """
    if not int(persistence.get("aof_enabled", 0)):
        yield "Redis keeps changes in memory until it next saves them: set appendonly yes, and appendfsync always"
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and int(memory.get("maxmemory", 0)):
        yield f"Redis is set up as a cache and drops keys when memory is full ({policy}): set maxmemory-policy noeviction"


def wrong_catalog(kind: type[AnyError], stored: str, name: str, field: str) -> AnyError:
    """Return the error for a Redis with the changes of another catalogue.

    Args:
        kind: class of the error.
        stored: name of the catalogue in Redis.
        name: name of the catalogue of the live version.
        field: key or field of Redis with the stored name.
    """
    return kind(
        "this Redis has the changes of another catalogue",
        why=f"they belong to {stored!r}, and the live version here to {name!r}",
        hint=f"Name a different Redis, or a database of it: redis://HOST:PORT/1; if the catalogue was renamed, remove {field}",
    )


def _is_cluster(client: Any) -> bool:
    return isinstance(client, RedisCluster)


def _follow_redirect(client: Any, command: Command) -> Any:
    """Send a command to the node that has its key now; return the answer or the error."""
    try:
        return client.execute_command(*command)
    except exceptions.ResponseError as error:
        return error
