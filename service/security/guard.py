"""Whether a request may be answered: who asks, how often, and how long they wait.

All of it is looked at before anything is routed or read, in a few microseconds, and with one pass over the headers.
"""

import time
from collections import Counter
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import Caller
from service.problems import Kind, ProblemError, send_problem
from service.security.keys import Key, KeyRing
from service.security.limits import RateLimits, whole_seconds
from service.security.roles import Access, Role, access

LONGEST_TIMEOUT = 600_000
"""Milliseconds that X-Request-Timeout-Ms may give."""

_AUTHORISATION, _KEY, _TIMEOUT = b"authorization", b"x-api-key", b"x-request-timeout-ms"
_LOOKED_AT = frozenset({_AUTHORISATION, _KEY, _TIMEOUT})
_BEARER = b"bearer "
_CHALLENGE = 'Bearer realm="recall"'


class Guard:
    """Lets requests through, or says why not.

    Attributes:
        refused: requests that were not let through, by slug of the problem.
    """

    def __init__(self, keys: KeyRing, limits: RateLimits) -> None:
        self.refused: Counter[str] = Counter()
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
        secrets, timeout = _read(scope["headers"])
        try:
            key = self._identify(secrets, needed) if self._keys else None
            if self._limits.limited:
                self._count(key)
            if needed.searches:
                state = scope["state"]
                state["caller"] = Caller(_deadline(timeout), state.get("gone"))
        except ProblemError as problem:
            self.refused[problem.kind.slug] += 1
            raise

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

    def _count(self, key: Key | None) -> None:
        wait = self._limits.take(key)
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
            except ProblemError as problem:
                await send_problem(problem, cast(str, scope["state"]["request_id"]), send)
                return
        await self._app(scope, receive, send)


def _read(headers: list[tuple[bytes, bytes]]) -> tuple[list[bytes], bytes | None]:
    """The keys that a request sends, and its timeout."""
    secrets: list[bytes] = []
    timeout = None
    for name, value in headers:
        if name in _LOOKED_AT:
            if name == _TIMEOUT:
                timeout = value if timeout is None else b""
            elif name == _KEY:
                secrets.append(value)
            else:  # what another scheme says is no key
                secrets.append(value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else b"")
    return secrets, timeout


def _deadline(timeout: bytes | None) -> float | None:
    if timeout is None:
        return None
    milliseconds = int(timeout) if timeout.isdigit() and len(timeout) <= len(str(LONGEST_TIMEOUT)) else 0
    if not 0 < milliseconds <= LONGEST_TIMEOUT:
        raise ProblemError(Kind.INVALID, f"X-Request-Timeout-Ms is a whole number from 1 to {LONGEST_TIMEOUT}.")
    return time.monotonic() + milliseconds / 1000
