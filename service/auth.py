"""Admission of requests: host, origin, key, rate and deadline."""

import math
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import lru_cache, partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import Receive, Scope

from recall.errors import ConfigError
from service.body import has_disconnected
from service.concurrency import Caller
from service.config import ANY, Settings
from service.errors import Kind, ProblemError
from service.keys import Key, KeyRing, Role


def check_binding(host: str, keyed: bool, insecure: bool) -> None:
    """Refuse to listen on a public address without keys, unless that is explicit.

    Args:
        host: name or address to listen on.
        keyed: whether any key is known.
        insecure: whether to listen anyway.

    Raises:
        ConfigError: Other machines could send requests without a key.
    """
    if not keyed and not insecure and not is_loopback(host):
        raise ConfigError(
            "other machines could send requests and change items and users, and no key is set",
            where=f"--host {host}",
            hint="Set a key in RECALL_ADMIN_KEY or with --keys (recall key new makes one), listen on 127.0.0.1, "
            "or add --insecure where a proxy in front of the service checks keys",
        )


def is_loopback(host: str) -> bool:
    """Return whether all addresses of a name are reachable from this machine only."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return False  # binding reports the error
    return bool(found) and all(ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)


class Hosts:
    """Names of this machine itself, and allowed further ones.

    Attributes:
        allow: returns whether a Host header names one of them, on any port.
    """

    def __init__(self, names: Iterable[str] = (), *, network: bool = False) -> None:
        """Accept the names of this machine for itself, and others.

        Args:
            names: further names, with or without a port.
            network: also accept every IP address and every name without a dot, for a service that other machines reach. No
                owner of a web page can point these at this machine: addresses are not looked up, and names without a dot
                (such as those of containers) are resolved by the local network only.
        """
        self._names = {_host_name(name.strip().encode()) for name in names}
        self._network = network
        self.allow = lru_cache(256)(self._allow)

    def _allow(self, host: bytes) -> bool:
        """Return whether a Host header names one of them, on any port."""
        name = _host_name(host)
        try:
            address = ip_address(name.strip(b"[]").decode("ascii"))
        except ValueError:
            own = name == b"localhost" or name.endswith(b".localhost")
            local = b"." not in name and name.isascii() and name.replace(b"-", b"").replace(b"_", b"").isalnum()
        else:
            own, local = address.is_loopback, True
        return own or name in self._names or (self._network and local)


def _host_name(host: bytes) -> bytes:
    """Return a Host header in lower case, without the port."""
    name = host[: host.find(b"]") + 1] if host.startswith(b"[") else host.partition(b":")[0]
    return name.lower().removesuffix(b".")


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing, and whose answers a browser hides from pages of another origin."""

_OWN = (b"same-origin", b"none")  # "none": from the address bar, or a bookmark


def is_cross_site(fetch_site: bytes | None, origin: bytes | None, host: bytes | None) -> bool:
    """Return whether a browser names a page of another origin as the sender.

    `Sec-Fetch-Site` decides where it is sent: a proxy may change `Host`, so that `Origin` differs from it even on the service's
    own page.

    Args:
        fetch_site: the `Sec-Fetch-Site` header; None without one, b"?" if there are several.
        origin: the `Origin` header, in the same form.
        host: the `Host` header, in the same form.
    """
    if fetch_site is not None:
        return fetch_site not in _OWN
    if origin is None:
        return False
    try:
        asked_from = urlsplit(origin.decode("ascii")).netloc
    except ValueError:
        return True
    return not asked_from or host is None or asked_from.lower() != host.decode("latin-1").lower()


_LONGEST_WINDOW = 4
"""Longest window for a rate that is not a whole number: a shorter one rounds more, a longer one allows longer bursts."""


class RateLimits:
    """A limit for each key, and one for all requests without a key."""

    def __init__(self, rate: float | None, workers: int = 1) -> None:
        """Create the limits.

        Args:
            rate: requests a second of a key without its own rate, and of all requests without a key; None for no limit.
            workers: processes among which each rate is shared.
        """
        self._rate, self._workers = rate, workers
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def take(self, key: Key | None, count: int = 1) -> float:
        """Count requests of a key.

        Args:
            key: None for a request without one.
            count: requests; at most the limit is counted.

        Returns:
            0.0 when they may be sent; otherwise the seconds after which to ask again, and none was counted.
        """
        rate = self._rate if key is None or key.rate is None else key.rate
        if rate is None:
            return 0.0
        name, item = "" if key is None else key.digest.hex(), _window(rate / self._workers)
        if self._limiter.hit(item, name, cost=min(count, item.amount)):
            return 0.0
        return max(0.001, self._limiter.get_window_stats(item, name).reset_time - time.time())


@lru_cache
def _window(rate: float) -> RateLimitItem:
    """Return a limit of whole requests in whole seconds for a rate."""
    if rate < 1:
        return RateLimitItemPerSecond(1, math.ceil(1 / rate))
    whole = Fraction(rate).limit_denominator(_LONGEST_WINDOW)
    return RateLimitItemPerSecond(whole.numerator, whole.denominator)


def whole_seconds(wait: float) -> str:
    """Return the value of Retry-After for a wait in seconds."""
    return str(max(1, math.ceil(wait)))


LONGEST_TIMEOUT = 600_000
"""Largest number of milliseconds in X-Request-Timeout-Ms."""

_BEARER = b"bearer "
_CHALLENGE = 'Bearer realm="recall"'
_FOREIGN_PAGE = "A browser says that a page of another site sent this; without a key, only GET is allowed then."


class Guard:
    """Admits requests, or raises the problem that refuses them."""

    def __init__(self, keys: KeyRing, settings: Settings, on_refuse: Callable[[str], None]) -> None:
        """Create a guard.

        Args:
            keys: the known ones; without any, no key is required.
            settings: name hosts, origins and the rate.
            on_refuse: called with the slug of the problem for which a request is refused.
        """
        names = settings.hosts
        self._hosts = None if ANY in names else Hosts(names, network=not names and not is_loopback(settings.host))
        self._strict = bool(names)  # hosts are also checked for requests with a key, which no page of another site has
        self._origins = {one.encode() for one in settings.cors_origins}
        self._keys = keys
        self._limits = RateLimits(settings.rate, settings.workers)
        self._on_refuse = on_refuse

    def admit(self, scope: Scope, receive: Receive, role: Role, *, searches: bool) -> None:
        """Admit a request, and note in its state the caller and the deadline.

        Args:
            scope: of a request over HTTP, with its `headers` by name in the state.
            receive: of the request.
            role: the least role whose keys may send it.
            searches: whether it may have a deadline.

        Raises:
            ProblemError: It may not be answered.
        """
        found: Mapping[bytes, bytes] = scope["state"]["headers"]
        host, token, keyed = found.get(b"host"), found.get(b"x-recall-token"), bool(self._keys.keys)
        if self._hosts is not None and host is not None and (self._strict or not keyed) and not self._hosts.allow(host):
            raise self._refuse(Kind.HOST, "Send it to localhost or 127.0.0.1; other names are set with --hosts.")
        if not keyed and scope["method"] not in SAFE_METHODS and self._is_foreign(found):
            raise self._refuse(Kind.CROSS_SITE, _FOREIGN_PAGE)
        key = scope["state"]["key"] = self._identify(_secrets(scope["headers"]), role) if keyed else None
        self._count(key)
        deadline = self._deadline(found.get(b"x-request-timeout-ms")) if searches or token else None
        text = token.decode("latin-1") if token else ""
        scope["state"]["caller"] = Caller(deadline, text, partial(has_disconnected, receive))

    def charge(self, scope: Scope, count: int) -> None:
        """Count an admitted request as several.

        Args:
            scope: of the request.
            count: how many it holds.

        Raises:
            ProblemError: Its key may not send so many now.
        """
        if count > 1:
            self._count(scope["state"]["key"], count - 1)

    def _is_foreign(self, found: Mapping[bytes, bytes]) -> bool:
        origin = found.get(b"origin")
        cross_site = is_cross_site(found.get(b"sec-fetch-site"), origin, found.get(b"host"))
        return cross_site and origin not in self._origins and b"*" not in self._origins

    def _identify(self, secrets: list[bytes], role: Role) -> Key:
        if len(secrets) != 1:
            detail = "Send one key only." if secrets else "Send a key as Authorization: Bearer, or as X-API-Key."
            raise self._refuse(Kind.NO_KEY, detail, {"WWW-Authenticate": _CHALLENGE})
        key = self._keys.find(secrets[0])
        if key is None:
            challenge = f'{_CHALLENGE}, error="invalid_token"'
            raise self._refuse(Kind.NO_KEY, "This key is not known here.", {"WWW-Authenticate": challenge})
        if key.role < role:
            challenge = f'{_CHALLENGE}, error="insufficient_scope"'
            raise self._refuse(Kind.FORBIDDEN, "This needs an admin key.", {"WWW-Authenticate": challenge})
        return key

    def _count(self, key: Key | None, count: int = 1) -> None:
        wait = self._limits.take(key, count)
        if wait:
            detail = "This key sends more requests than it may." if key else "Too many requests are sent."
            raise self._refuse(Kind.LIMITED, detail, {"Retry-After": whole_seconds(wait)})

    def _deadline(self, timeout: bytes | None) -> float | None:
        if timeout is None:
            return None
        milliseconds = int(timeout) if timeout.isdigit() and len(timeout) <= len(str(LONGEST_TIMEOUT)) else 0
        if not 0 < milliseconds <= LONGEST_TIMEOUT:
            raise self._refuse(Kind.INVALID, f"X-Request-Timeout-Ms is a whole number from 1 to {LONGEST_TIMEOUT}.")
        return time.monotonic() + milliseconds / 1000

    def _refuse(self, kind: Kind, detail: str, headers: Mapping[str, str] | None = None) -> ProblemError:
        self._on_refuse(kind.slug)
        return ProblemError(kind, detail, headers=headers)


def _secrets(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return all keys of a request; other schemes of authorization carry none."""
    return [
        value if name == b"x-api-key" else value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else b""
        for name, value in headers
        if name in (b"x-api-key", b"authorization")
    ]
