"""Routes that admit requests, their parameters, and answers in JSON."""

import asyncio
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from hashlib import blake2b
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Header, Path, Query, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import override

from recall.serving.recommender import Recommender
from recall.serving.request import Basis, Degraded
from recall.serving.request import Request as Asked
from service.auth import LONGEST_TIMEOUT, Guard
from service.body import LARGE, parse_json, read_body, to_json
from service.concurrency import Caller
from service.errors import Kind, ProblemError, problems
from service.keys import Role
from service.live import Live
from service.schemas import MOST_RESULTS, Id

USUAL_PAGE, LARGEST_PAGE, USUAL_COUNT = 100, 1000, 10
_LONGEST_TOKEN = 8192
_CHECK = 4  # bytes of the checksum of a page token

KEY = (
    Security(HTTPBearer(scheme_name="bearer", auto_error=False)),
    Security(APIKeyHeader(scheme_name="header", name="X-API-Key", auto_error=False)),
)
"""Declare the two ways of sending a key, which admission reads."""
_Timeout = Annotated[
    str | None,
    Header(
        alias="X-Request-Timeout-Ms",
        description="Milliseconds after which the answer is useless; 504 is answered then.",
    ),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": LONGEST_TIMEOUT}),
]
_Token = Annotated[
    str | None,
    Header(
        alias="X-Recall-Token",
        description="The `token` of an acknowledged change of items: the answer waits until it includes that change.",
    ),
    WithJsonSchema({"type": "string", "maxLength": 100}),
]


def live_of(request: Request) -> Live:
    """Return the `Live` of the request's application."""
    return cast(Live, request.app.state.live)


def request_id_of(request: Request) -> str:
    """Return the id of this request: the client's own, or one made here."""
    return cast(str, request.scope["state"]["request_id"])


def caller_of(request: Request) -> Caller:
    """Return the caller of this request, and its deadline."""
    return cast(Caller, request.scope["state"]["caller"])


@contextmanager
def timed(request: Request, stage: str) -> Iterator[None]:
    """Add the time of a `with` block to the Server-Timing header.

    Args:
        request: in progress.
        stage: its name there, one of `service.metrics.STAGES`.
    """
    start = time.perf_counter()
    yield
    request.scope["state"]["timings"][stage] = time.perf_counter() - start


class JsonRequest(Request):
    """A request whose body is strict JSON, bounded in size and time."""

    _read: bytes | None = None

    @override
    async def body(self) -> bytes:
        """Read the body. Raises ProblemError."""
        if self._read is None:
            settings = live_of(self).settings
            self._read = await read_body(self.state.headers, self.receive, settings.max_body, settings.patience)
            if not self._read:
                parse_json(self._read)
        return self._read

    @override
    async def json(self) -> object:
        """Return the values in the body. Raises ProblemError."""
        with timed(self, "parse"):
            body = await self.body()
            self.scope["state"]["large"] = len(body) > LARGE
            return await asyncio.to_thread(parse_json, body) if len(body) > LARGE else parse_json(body)


class Route(APIRoute):
    """A route whose requests are admitted before their bodies are read.

    Attributes:
        role: that the key of a request must allow.
        searches: whether there must be room in the search queue.
    """

    role: Role
    searches = False

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            cast(Guard, request.app.state.guard).admit(request.scope, request.receive, self.role, searches=self.searches)
            queue = live_of(request).queue
            if self.searches and not queue.has_room(short=False):
                raise queue.shed("full")
            names = [name for name, _ in request.query_params.multi_items()]
            if len(names) > len(set(names)):
                raise ProblemError(Kind.INVALID, "A query parameter is given twice.")
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


class ReadRoute(Route):
    """A route that needs a read key."""

    role = Role.READ


class SearchRoute(ReadRoute):
    """A route whose requests wait for a turn to search."""

    searches = True


class AdminRoute(Route):
    """A route that needs an admin key."""

    role = Role.ADMIN


def _search_headers(x_request_timeout_ms: _Timeout = None, x_recall_token: _Token = None) -> None:
    """Declare the headers that admission reads."""


def _token_header(x_recall_token: _Token = None) -> None:
    """Declare the header that admission reads."""


def _routes(route_class: type[Route], *statuses: int, headers: Callable[..., None] | None = None) -> dict[str, Any]:
    dependencies = [] if headers is None else [Depends(headers)]
    answers = problems(401, 403, 421, 422, 429, 503, *statuses)
    return {"route_class": route_class, "dependencies": dependencies, "responses": answers}


READ = _routes(ReadRoute)
"""Arguments of routers that need a read key."""
READ_CHANGES = _routes(ReadRoute, 412, headers=_token_header)
"""The same where answers wait for the change that a token names."""
SEARCH = _routes(SearchRoute, 412, 504, headers=_search_headers)
"""The same for routes that search."""
ADMIN = _routes(AdminRoute)
"""Arguments of routers that need an admin key."""
CHANGE = _routes(AdminRoute, 409, 500, 507)
"""The same for routes that change items or users."""
BODY = problems(400, 408, 413, 415)
"""Further responses of a route that reads a body."""


def _decoded(encoded: object) -> object:
    """Decode a part of a path, which is matched encoded: an id may contain %2F."""
    try:
        return unquote_to_bytes(str(encoded).encode("latin-1")).decode()
    except UnicodeError:
        raise PydanticCustomError("id", "An id is UTF-8 of 1 to 1024 characters, percent-encoded") from None


PathId = Annotated[Id, BeforeValidator(_decoded), Path(description="Percent-encoded; a slash need not be encoded.")]
"""An id in a path."""
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[A-Za-z0-9._:-]+$",
        description="Name of this change: one that is sent again with the same key is not applied twice.",
    ),
]


def _digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise PydanticCustomError("whole_number", "Input should be a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_digits)]


class Count(BaseModel):
    """Query of a list."""

    model_config = ConfigDict(extra="forbid")

    n: Whole = Field(default=USUAL_COUNT, ge=1, le=MOST_RESULTS, description="Number of items wanted.")
    fields: str = Field(default="", max_length=10_000, description="Columns of the items, separated by commas.")

    def request(self, user_id: str | None = None) -> Asked:
        """Return the request to the recommender."""
        return Asked(user_id=user_id, n=self.n, fields=tuple(filter(None, self.fields.split(","))))


def _after(token: str) -> str:
    """Return the id that a page begins after."""
    if not token:
        return ""
    try:
        after = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))[_CHECK:].decode()
    except ValueError:
        after = ""
    if token_after(after) != token:
        raise PydanticCustomError("page_token", "page_token is not from this service")
    return after


class Page(BaseModel):
    """Query of a list in pages, as in Google's AIP-158."""

    model_config = ConfigDict(extra="forbid")

    page_size: Whole = Field(default=USUAL_PAGE, ge=0, lt=10**18, description="Entries of a page, at most 1000; 0 for 100.")
    page_token: Annotated[str, AfterValidator(_after)] = Field(
        default="", max_length=_LONGEST_TOKEN, description="The `next_page_token` of the page before."
    )

    @property
    def count(self) -> int:
        """Entries of the page."""
        return min(self.page_size, LARGEST_PAGE) or USUAL_PAGE

    @property
    def after(self) -> str | None:
        """The id that the page begins after; None for the first page."""
        return self.page_token or None


CountQuery = Annotated[Count, Query()]


def token_after(last: str | None) -> str:
    """Return an opaque token with a checksum for the page after an id; empty for None."""
    if last is None:
        return ""
    encoded = last.encode()
    return urlsafe_b64encode(blake2b(encoded, digest_size=_CHECK).digest() + encoded).decode().rstrip("=")


def charge(request: Request, count: int) -> None:
    """Count a request as several.

    Args:
        request: with its key.
        count: how many.

    Raises:
        ProblemError: The key exceeds its rate.
    """
    cast(Guard, request.app.state.guard).charge(request.scope, count)


Found = TypeVar("Found")


async def answered(request: Request, stage: str, act: Callable[[Recommender], Found]) -> Found:
    """Run a query of the served bundle on a search thread, when it is its turn.

    Args:
        request: that waits for it.
        stage: as for `timed`.
        act: queries the recommender; its exceptions are raised here.
    """
    with timed(request, stage):
        return await live_of(request).ask(act, caller_of(request))


def respond(request: Request, found: Basis, content: Mapping[str, object] | None = None, *, exact: bool = True) -> Response:
    """Return an answer as JSON.

    Args:
        request: in progress.
        found: the answer, with the versions and changes that it rests on.
        content: of the document; None for all fields of the answer.
        exact: whether it is exact.
    """
    if content is None:
        content = {field.name: getattr(found, field.name) for field in fields(found)}
    return json_response({**content, **basis_of(request, found.bundle, found.sequence, found.degraded, exact=exact)})


def basis_of(request: Request, bundle: str, sequence: int, degraded: Sequence[Degraded], *, exact: bool) -> dict[str, object]:
    """Return the fields of `Answer`, with the degradations of the service itself.

    Args:
        request: in progress.
        bundle: version of the bundle.
        sequence: of the last live change.
        degraded: of the answer.
        exact: whether it is exact.
    """
    return {
        "bundle": bundle,
        "sequence": sequence,
        "exact": exact,
        "degraded": tuple(dict.fromkeys((*degraded, *live_of(request).degraded))),
        "request_id": request_id_of(request),
    }


def json_response(content: Mapping[str, object], headers: dict[str, str] | None = None) -> Response:
    """Return a JSON document.

    Args:
        content: of the document.
        headers: further ones.
    """
    return Response(to_json(content), media_type="application/json", headers=headers)
