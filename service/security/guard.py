"""Whether a request may be answered: who asks, under which name of the service, how often, and how long they wait.

All of it is looked at before anything is routed or read, in a few microseconds, and with one pass over the headers.
"""

import time
from collections import Counter
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from service.concurrency import Caller
from service.problems import Kind, ProblemError, send_problem
from service.security.hosts import Hosts
from service.security.keys import Key, KeyRing
from service.security.limits import RateLimits, whole_seconds
from service.security.roles import Access, Role, access
from service.security.sites import SAFE_METHODS, is_cross_site

LONGEST_TIMEOUT = 600_000
"""Milliseconds that X-Request-Timeout-Ms may give."""

_AUTHORISATION, _KEY, _TIMEOUT, _HOST = b"authorization", b"x-api-key", b"x-request-timeout-ms", b"host"
_TOKEN = b"x-recall-token"
_ORIGIN, _FETCH_SITE = b"origin", b"sec-fetch-site"
_LOOKED_AT = frozenset({_AUTHORISATION, _KEY, _TIMEOUT, _HOST, _ORIGIN, _FETCH_SITE, _TOKEN})
_BEARER = b"bearer "
_CHALLENGE = 'Bearer realm="recall"'
_STRANGE_PAGE = "A browser says that a page of another site sent this; without a key that may only be a GET."


class Guard:
    """Lets requests through, or says why not.

    Attributes:
        refused: requests that were not let through, by slug of the problem.
    """

    def __init__(self, keys: KeyRing, limits: RateLimits, hosts: Hosts | None = None, strict: bool = True) -> None:
        """Let these keys in.

        Args:
            keys: those that are known; with none, nobody is asked for one.
            limits: how often each may ask.
            hosts: names that requests are to be sent to; None for any.
            strict: whether that counts for requests with a key too, which no stranger's page has.
        """
        self.refused: Counter[str] = Counter()
        self._hosts = hosts
        self._strict = strict
        self._keys = keys
        self._limits = limits

    def know(self, keys: KeyRing) -> None:
        """Let these keys in from now on, and no others."""
        self._limits.know(keys.keys)
        self._keys = keys

    def admit(self, scope: Scope) -> None:
        """Let a request through, and note in its state who waits for the answer, and how long.

        Args:
            scope: of a request over HTTP, with a state.

        Raises:
            ProblemError: it may not be answered.
        """
        needed = access(scope["method"], scope["path"])
        if needed.role is Role.OPEN:
            return
        secrets, timeout, host, origin, fetch_site, token = _read(scope["headers"])
        try:
            if self._hosts is not None and host is not None and (self._strict or not self._keys):
                self._check_host(host)
            if not self._keys and scope["method"] not in SAFE_METHODS and is_cross_site(fetch_site, origin, host):
                raise ProblemError(Kind.CROSS_SITE, _STRANGE_PAGE)
            key = self._identify(secrets, needed) if self._keys else None
            if self._limits.limited:
                self._count(self._limits.take(key), key)
                scope["state"]["key"] = key
            if needed.searches or token:
                state = scope["state"]
                state["caller"] = Caller(_deadline(timeout), token.decode("latin-1"))
        except ProblemError as problem:
            self.refused[problem.kind.slug] += 1
            raise

    def charge(self, scope: Scope, count: int) -> None:
        """Count a request that was let in as so many.

        Args:
            scope: of the request.
            count: how many it holds.

        Raises:
            ProblemError: its key may not send so many now.
        """
        if self._limits.limited and count > 1:
            key = cast("Key | None", scope["state"].get("key"))
            try:
                self._count(self._limits.take(key, count - 1), key)
            except ProblemError as problem:
                self.refused[problem.kind.slug] += 1
                raise

    def _check_host(self, host: bytes) -> None:
        if self._hosts is not None and not self._hosts.hold(host):
            detail = "Ask for localhost or 127.0.0.1; other names are given to the service as --hosts."
            raise ProblemError(Kind.HOST, detail)

    def _identify(self, secrets: list[bytes], needed: Access) -> Key:
        if len(secrets) != 1:
            detail = "Send one key only." if secrets else "Send a key as Authorization: Bearer, or as X-API-Key."
            raise ProblemError(Kind.NO_KEY, detail, headers={"WWW-Authenticate": _CHALLENGE})
        key = self._keys.find(secrets[0])
        if key is None:
            challenge = f'{_CHALLENGE}, error="invalid_token"'
            raise ProblemError(Kind.NO_KEY, "This key is not known here.", headers={"WWW-Authenticate": challenge})
        if key.role < needed.role:
            challenge = f'{_CHALLENGE}, error="insufficient_scope"'
            raise ProblemError(Kind.FORBIDDEN, "This takes an admin key.", headers={"WWW-Authenticate": challenge})
        return key

    def _count(self, wait: float, key: Key | None) -> None:
        if wait:
            detail = "This key sends more requests than it may." if key else "More requests are sent than may be."
            raise ProblemError(Kind.LIMITED, detail, headers={"Retry-After": whole_seconds(wait)})


class GuardMiddleware:
    """Asks a guard about each request."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or say why not; the server's other messages pass through."""
        if scope["type"] == "http":
            try:
                self._guard.admit(scope)
                if access(scope["method"], scope["path"]).searches:
                    scope["state"]["live"].queue.check_room(short=False)  # before the body is read
            except ProblemError as problem:
                await send_problem(problem, cast(str, scope["state"]["request_id"]), send)
                return
        await self._app(scope, receive, send)


def _read(
    headers: list[tuple[bytes, bytes]],
) -> tuple[list[bytes], bytes | None, bytes | None, bytes | None, bytes | None, bytes]:
    """Read a request's keys, timeout, host, origin, `Sec-Fetch-Site` and token; a header that is sent twice is read as b""."""
    secrets: list[bytes] = []
    token = b""
    timeout = host = origin = fetch_site = None
    for name, value in headers:
        if name in _LOOKED_AT:
            if name == _HOST:
                host = value if host is None else b""
            elif name == _TOKEN:
                token = value if not token else b"?"
            elif name == _TIMEOUT:
                timeout = value if timeout is None else b""
            elif name == _ORIGIN:
                origin = value if origin is None else b""
            elif name == _FETCH_SITE:
                fetch_site = value if fetch_site is None else b""
            elif name == _KEY:
                secrets.append(value)
            else:  # what another scheme says is no key
                secrets.append(value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else b"")
    return secrets, timeout, host, origin, fetch_site, token


def _deadline(timeout: bytes | None) -> float | None:
    if timeout is None:
        return None
    milliseconds = int(timeout) if timeout.isdigit() and len(timeout) <= len(str(LONGEST_TIMEOUT)) else 0
    if not 0 < milliseconds <= LONGEST_TIMEOUT:
        raise ProblemError(Kind.INVALID, f"X-Request-Timeout-Ms is a whole number from 1 to {LONGEST_TIMEOUT}.")
    return time.monotonic() + milliseconds / 1000
