"""Connections to a Redis or to the nodes of a cluster, with circuit breakers."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
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
"""Ranges of slots: with more, a page of ids asks for more sets; with fewer, nodes of a large cluster have unequal shares."""

_REFRESH = 1.0  # seconds from one question where the slots are to the next
_CONNECTIONS = 64  # to each node of reads, and as many of writes

Command = tuple[bytes | str | int, ...]
Node = Any
"""A `ClusterNode`, which has no types; None is a Redis without cluster mode."""
Kind = TypeVar("Kind", bound=Hashable)
AnyError = TypeVar("AnyError", bound=RecallError)


def split_address(url: str, where: str) -> SplitResult:
    """Split the address of a Redis.

    Args:
        url: `redis://HOST:PORT/DB` and the like.
        where: what the Redis holds, for the error.

    Raises:
        ConfigError: It begins with none of the schemes.
    """
    if not url.startswith(_SCHEMES):
        raise ConfigError("invalid address of a Redis", where=where, hint=f"Begin it with one of {', '.join(_SCHEMES)}")
    return urlsplit(url)


class Nodes:
    """Connections to all nodes; made when they are needed. Thread-safe.

    Which node has a key is learnt from the cluster, and again after a failure; a key that has moved is followed.
    """

    def __init__(self, url: str, seconds: float, breakers: dict[str, Breaker], breaker: Callable[[], Breaker]) -> None:
        """Make no connection yet.

        Args:
            url: `redis://HOST:PORT/DB`, with `USER:PASSWORD@` before the host where Redis wants them; `rediss://` for TLS,
                `unix://PATH` for a socket. Of a cluster, any node, or several as `HOST:PORT,HOST:PORT`.
            seconds: budget of one call to a node.
            breakers: by name of a node, "" for the address; filled as nodes are called.
            breaker: returns a new one.

        Raises:
            ConfigError: The address is malformed.
        """
        parts = split_address(url, "users")
        user, at, hosts = parts.netloc.rpartition("@")
        self._urls = [urlunsplit(parts._replace(netloc=user + at + host)) for host in hosts.split(",")]
        if parts.scheme == "unix":
            self._urls = [url]
        self._seconds, self._breakers, self._breaker = seconds, breakers, breaker
        self._options: Mapping[str, Any] = {
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "max_connections": _CONNECTIONS,
            "protocol": 2,  # and no name of the library: each would be one more answer to wait for when connecting
            "driver_info": None,
        }
        with raising(ConfigError, "invalid address of a Redis", where="users", of=ValueError):
            self._addresses = [Redis.from_url(one, retry=_once(), **self._options) for one in self._urls]
        self._lock = Lock()
        self._due = 0.0  # when to ask a cluster again
        self._client: Any = None  # a Redis, or a RedisCluster, most of which has no types

    def every(self) -> list[Node]:
        """Return all nodes that have keys. Raises StoreError."""
        client = self._connected()
        return list(client.get_primaries()) if _is_cluster(client) else [None]

    def by_node(self, all_of: Iterable[Kind], key: Callable[[Kind], bytes]) -> list[tuple[Node, list[Kind]]]:
        """Group things by the node that has their key.

        Args:
            all_of: the things.
            key: returns the key of one.

        Raises:
            StoreDownError: The cluster does not answer, or no node has a slot.
        """
        client = self._connected()
        if not _is_cluster(client):
            return [(None, list(all_of))]
        found: dict[str, tuple[Node, list[Kind]]] = {}
        for one in all_of:
            try:
                node = client.get_node_from_key(key(one))
            except exceptions.SlotNotCoveredError as error:
                self._refresh(client)
                raise StoreDownError(DOWN, why=str(error), hint="Look at the cluster: no node has this slot") from None
            found.setdefault(node.name, (node, []))[1].append(one)
        return list(found.values())

    def call(
        self, node: Node, what: str, commands: Iterable[Command], *, whole: bool = False, tolerant: bool = False
    ) -> list[Any]:
        """Return the answers of a node to commands, which are sent at once.

        Args:
            node: that has their keys.
            what: past participle for messages, such as "read".
            commands: with their arguments, each of one key.
            whole: all or none are carried out, outside of a cluster.
            tolerant: of a key of another type, the error is among the answers.

        Raises:
            StoreDownError: It does not answer in time, or did not lately.
            StoreFullError: It has no room.
            StoreError: It answered with another error.
        """
        client, sent = self._connected(), list(commands)
        with self._reporting("" if node is None else node.name, what, client):
            target = client.get_redis_connection(node) if node is not None and _is_cluster(client) else client
            pipeline: Any = target.pipeline(transaction=whole and node is None)
            for command in sent:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
            for place, answer in enumerate(answers):
                if isinstance(answer, exceptions.AskError) and _is_cluster(client):  # or it was moved
                    answers[place] = answer = _answer(client, sent[place])
                if isinstance(answer, exceptions.RedisError) and not (tolerant and str(answer).startswith("WRONGTYPE")):
                    raise answer
        return answers

    def make_hash(self, node: Node, key: bytes, fields: Callable[[bytes], dict[str, bytes]]) -> None:
        """Replace a string by a hash in one transaction, if it is still a string.

        Of a key that moves to another node, nothing is changed.

        Args:
            node: that has the key.
            key: of the string.
            fields: returns those of the hash for the string.

        Raises:
            StoreError: As `call`.
        """

        def change(pipeline: Any) -> None:
            raw = pipeline.get(key) if pipeline.type(key) == b"string" else None
            pipeline.multi()
            if raw is not None:
                pipeline.delete(key)
                pipeline.hset(key, mapping=fields(raw))

        client = self._connected()
        with self._reporting("" if node is None else node.name, "written", client):
            try:
                (client if node is None else client.get_redis_connection(node)).transaction(change, key)
            except (exceptions.AskError, exceptions.TryAgainError):  # or `MovedError`, which is one
                self._refresh(client)

    def close(self) -> None:
        """Close all connections; a later call opens them again."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> Any:
        client = self._client
        if client is None:
            with self._lock:  # one thread asks, and the others need not wait for long
                if self._client is None:
                    with self._reporting("", "read", None):
                        self._client = self._connect()
                client = self._client
        return client

    def _connect(self) -> Any:
        for place, address in enumerate(self._addresses, 1):
            try:
                mode: Mapping[str, Any] = address.info("cluster")
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
                if place == len(self._addresses):
                    raise
                continue
            if mode.get("cluster_enabled"):
                return self._cluster([])
            if len(self._addresses) > 1:
                raise StoreError("several addresses were given of a Redis that is not a cluster", hint="Give one address")
            return address
        raise AssertionError  # there is at least one

    def _cluster(self, known: Iterable[Node]) -> Any:
        """Ask a cluster which node has which slots. Raises RedisClusterException."""
        others = [Redis.from_url(one).connection_pool.connection_kwargs for one in self._urls[1:]]
        node: Any = ClusterNode
        nodes = [node(one["host"], one.get("port", 6379)) for one in others] + [node(one.host, one.port) for one in known]
        # what timed out once has used up its budget, and a write may have been carried out
        return RedisCluster(url=self._urls[0], startup_nodes=nodes, require_full_coverage=False, retry=_once(), **self._options)

    def _refresh(self, client: Any) -> None:
        """Ask again which node has which slots; the old answer stays if there is none.

        Returns at once while another thread asks, and shortly after.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._client is client and time.monotonic() >= self._due:
                with suppress(exceptions.RedisError, exceptions.RedisClusterException, OSError):
                    self._client = self._cluster(client.get_nodes())
                self._due = time.monotonic() + _REFRESH
        finally:
            self._lock.release()

    @contextmanager
    def _reporting(self, name: str, what: str, client: Any) -> Iterator[None]:
        """Report a call to the breaker; a late answer counts as failed, and is used."""
        breaker = self._breakers.get(name) or self._breakers.setdefault(name, self._breaker())
        if not breaker.admits():
            raise StoreDownError(DOWN, why="it did not answer lately, and is left alone for a moment")
        start = breaker.clock()
        try:
            yield
        except (
            exceptions.ConnectionError,
            exceptions.TimeoutError,
            exceptions.ClusterDownError,
            exceptions.RedisClusterException,
            OSError,
        ) as error:
            breaker.failed()
            if _is_cluster(client):
                self._refresh(client)
            raise StoreDownError(DOWN, why=str(error) or type(error).__name__, hint="Look at Redis") from None
        except exceptions.RedisError as error:
            breaker.succeeded()
            if isinstance(error, exceptions.OutOfMemoryError) or "No space left" in str(error):
                raise StoreFullError("there is no room for users in Redis", why=str(error)) from None
            raise StoreError(f"users cannot be {what}", why=str(error), hint="Look at Redis") from None
        except BaseException:
            breaker.failed()
            raise
        if breaker.clock() - start > self._seconds:
            breaker.failed()
        else:
            breaker.succeeded()


@cache
def tags() -> tuple[bytes, ...]:
    """Return a hash tag for each range of slots, whose own slot is in that range."""
    found: dict[int, bytes] = {}
    for number in count():
        tag = b"%d" % number
        found.setdefault(range_of(tag), tag)
        if len(found) == RANGES:
            break
    return tuple(found[place] for place in range(RANGES))


def range_of(key: bytes) -> int:
    """Return the range that has the slot of a key."""
    return key_slot(key) * RANGES // REDIS_CLUSTER_HASH_SLOTS


def weaknesses(persistence: Mapping[str, Any], memory: Mapping[str, Any]) -> Iterator[str]:
    """Yield ways in which a Redis may lose acknowledged writes, in sentences.

    `appendfsync` is not among them: managed Redis services refuse the command that would read it.

    Args:
        persistence: section of INFO.
        memory: section of INFO.
    """
    if not int(persistence.get("aof_enabled", 0)):
        yield "Redis keeps changes in memory until it next saves them: set appendonly yes, and appendfsync always"
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and int(memory.get("maxmemory", 0)):
        yield f"Redis is set up as a cache and drops keys when memory is full ({policy}): set maxmemory-policy noeviction"


def other_catalog(kind: type[AnyError], held: str, name: str, field: str) -> AnyError:
    """Return the error for a Redis that has the changes of another catalogue.

    Args:
        kind: of the error.
        held: name of the catalogue there.
        name: of the one here.
        field: that has the name there.
    """
    return kind(
        "this Redis has the changes of another catalogue",
        why=f"they are of {held!r}, and the live version here is of {name!r}",
        hint=f"Name a different Redis, or a database of it: redis://HOST:PORT/1; if the catalogue was renamed, remove {field}",
    )


def _is_cluster(client: Any) -> bool:
    return isinstance(client, RedisCluster)


def _answer(client: Any, command: Command) -> Any:
    """Return the answer of the node that has the key now, or its error."""
    try:
        return client.execute_command(*command)
    except exceptions.ResponseError as error:
        return error


def _once() -> Retry:
    return Retry(NoBackoff(), 0)
