"""Errors as RFC 9457 problem documents."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Annotated, Any, TypeVar, get_args

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from recall.config.run import models_of
from recall.errors import (
    IndexFileError,
    JournalBusyError,
    JournalDownError,
    JournalError,
    JournalFullError,
    JournalReadOnlyError,
    RequestError,
    StoreBusyError,
    StoreDownError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    did_you_mean,
    pointer,
)
from recall.serving.rerank.base import without_tags
from recall.serving.rerank.channels import AnyChannel, Channels
from recall.serving.rerank.rules import AnyRule

MEDIA_TYPE = "application/problem+json"
MOST_FAULTS = 20
"""Faults listed in one document; a body can have thousands."""

_AGAIN = "Send a change again with the same Idempotency-Key: it is not applied twice."
NOT_WRITABLE = "The service may not write to the folder of versions, where changes are kept. Nothing was changed."
"""Where storage is read-only, by a mount or by rights."""
_NO_ROOM = "Nothing was changed. Send the change again when there is room."

_TEXTS = {
    400: "The body is not JSON.",
    401: "No key was sent, or one that is not known.",
    403: "The key does not allow this, or a browser says that a page of another site sent the request.",
    408: "The body did not arrive in time.",
    409: "Nothing can be changed: a single bundle is served, or its folder cannot be written.",
    410: "The token was valid, and is not any more.",
    412: "X-Recall-Token names a change of another log of changes.",
    413: "The body is too large.",
    415: "The body is not plain application/json.",
    421: "The Host header names another host; see --hosts.",
    422: "A value is wrong; `errors` names it.",
    429: "The key sends more requests than it may; Retry-After says when to send the next.",
    500: "The change could not be stored, and was not acknowledged.",
    503: "No bundle is served, or too many requests wait; Retry-After says when to try again.",
    504: "The time that X-Request-Timeout-Ms gave has passed.",
    507: "There is no room to store the change.",
}

log = logging.getLogger("service")
Body = TypeVar("Body", bound=BaseModel)


class Kind(Enum):
    """A kind of problem: its name in `type`, its status, and its title."""

    NOT_JSON = ("not-json", 400, "The body is not a JSON document")
    NO_KEY = ("no-key", 401, "A key is needed")
    FORBIDDEN = ("forbidden", 403, "The key does not allow this")
    CROSS_SITE = ("cross-site", 403, "A page of another site may not ask for this")
    NOT_FOUND = ("not-found", 404, "There is nothing at this path")
    NO_ITEM = ("no-such-item", 404, "There is no item of this id")
    NO_USER = ("no-such-user", 404, "There is no user of this id")
    NO_SCENARIO = ("no-such-scenario", 404, "There is no scenario of this name")
    NO_MODEL = ("no-such-model", 404, "There is no model of this name")
    NO_VERSION = ("no-such-version", 404, "There is no version of this name")
    METHOD = ("method-not-allowed", 405, "This path does not answer that method")
    READ_ONLY = ("read-only", 409, "This service does not accept changes")
    UNFIT = ("bundle-refused", 409, "The version is not fit to be served")
    NO_WAY_BACK = ("no-way-back", 409, "There is no version to go back to")
    PUBLISHING = ("publishing", 409, "Another process is publishing")
    TOO_SLOW = ("too-slow", 408, "The request did not arrive in time")
    STALE = ("stale-token", 410, "The token is no longer valid")
    MOVED = ("version-moved", 412, "Another version is live than was expected")
    OTHER_LOG = ("other-log", 412, "The token is of another log of changes")
    TOO_LARGE = ("too-large", 413, "The body is too large")
    CONTENT = ("unsupported-content", 415, "The body is not plain application/json")
    HOST = ("wrong-host", 421, "The request is meant for another host")
    INVALID = ("invalid-request", 422, "The request is invalid")
    LIMITED = ("rate-limited", 429, "Requests come too fast")
    GONE = ("client-gone", 499, "The client has gone")
    INTERNAL = ("internal", 500, "The service failed; the request was not at fault")
    NOT_STORED = ("not-stored", 500, "The change could not be stored")
    NOT_READY = ("not-ready", 503, "No bundle is being served")
    DRAINING = ("draining", 503, "The service is shutting down")
    BUSY = ("busy", 503, "Too many requests are waiting")
    STORE_DOWN = ("store-down", 503, "The store of the changes does not answer")
    INDEX_DOWN = ("index-down", 503, "The server of the index does not answer")
    BEHIND = ("not-seen-yet", 503, "A change that the answer must include is not served yet")
    LATE = ("deadline-passed", 504, "The time for an answer has passed")
    FULL = ("storage-full", 507, "There is no room to store the change")

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.type = f"urn:fm-recall:problem:{slug}"
        self.status = status
        self.title = title


@dataclass(frozen=True, slots=True)
class FaultDocument:
    """One thing that is wrong with the body."""

    pointer: Annotated[
        str, Field(description="JSON pointer to the value that is wrong; empty for the whole body.", examples=["/n"])
    ]
    message: Annotated[
        str, Field(description="What is wrong with it.", examples=["Input should be less than or equal to 1000"])
    ]


class ProblemDocument(BaseModel):
    """A problem document after RFC 9457."""

    type: str = Field(description="Names the kind of problem; stable.", examples=["urn:fm-recall:problem:invalid-request"])
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="What is wrong this time, and what to do.")
    request_id: str | None = Field(description="The same as the X-Request-ID header; null before a request was understood.")
    errors: list[FaultDocument] = Field(default=[], description="What is wrong with the body, at most 20 entries.")


class ProblemError(HTTPException):
    """Answers a request with a problem document; status 503 has `Retry-After`."""

    def __init__(
        self, kind: Kind, detail: str, faults: Sequence[FaultDocument] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(kind.status, detail, {"Retry-After": "1"} if headers is None and kind.status == 503 else headers)
        self.kind, self.message, self.faults = kind, detail, faults

    def document(self, request_id: str | None) -> dict[str, object]:
        """Return the fields of `ProblemDocument`, for orjson.

        Args:
            request_id: of the request; None where it is not known.
        """
        detail = self.message
        if len(self.faults) > MOST_FAULTS:
            detail = f"{detail} The first {MOST_FAULTS} of {len(self.faults)} faults are named."
        return {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": detail,
            "request_id": request_id,
            "errors": self.faults[:MOST_FAULTS],
        }


def as_problem(error: RequestError) -> ProblemError:
    """Return the problem of an invalid request."""
    message = f"{error.what} ({error.why})" if error.why else error.what
    message = f"{message}. {error.hint}" if error.hint else message
    where = error.where if error.where.startswith("/") else ""
    return ProblemError(Kind.INVALID, "One value is wrong.", [FaultDocument(where, message)])


_ITEMS, _USERS = "a change was not stored", "users"
_STORAGE: dict[type[Exception], tuple[Kind, str, str]] = {
    JournalBusyError: (Kind.BUSY, "Another process is changing items.", _ITEMS),
    StoreBusyError: (Kind.BUSY, "Others are changing the same users.", _USERS),
    StoreDownError: (Kind.STORE_DOWN, f"Come back in a moment. {_AGAIN}", _USERS),
    JournalDownError: (Kind.STORE_DOWN, f"Come back in a moment. {_AGAIN}", _ITEMS),
    JournalReadOnlyError: (Kind.READ_ONLY, NOT_WRITABLE, _ITEMS),
    StoreReadOnlyError: (Kind.READ_ONLY, NOT_WRITABLE, _USERS),
    JournalFullError: (Kind.FULL, _NO_ROOM, _ITEMS),
    StoreFullError: (Kind.FULL, _NO_ROOM, _USERS),
    JournalError: (Kind.NOT_STORED, _AGAIN, _ITEMS),
    StoreError: (Kind.NOT_STORED, _AGAIN, _USERS),
    IndexFileError: (Kind.INDEX_DOWN, "Come back in a moment.", "index"),
}
"""Problem, its detail, and the subject in the log, of errors of the stores and of an index on a server; the first that fits."""


def problem_of(error: Exception, *, trace: bool = True) -> ProblemError:
    """Return the problem of any error; server errors are logged.

    Args:
        error: any.
        trace: whether to log the traceback of an unexpected error.
    """
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, RequestError):
        return as_problem(error)
    for error_type, (kind, detail, part) in _STORAGE.items():
        if isinstance(error, error_type):
            if not getattr(error, "repeated", False):
                log.error("%s: %s", part, error)
            return ProblemError(kind, detail)
    log.error("the request failed: %s", type(error).__name__, exc_info=error if trace else None)
    return ProblemError(Kind.INTERNAL, "The log has the cause under this request's id.")


def handle_problems(app: FastAPI) -> None:
    """Answer every error of an application with a problem document."""
    for kind in (ProblemError, RequestError, JournalError, StoreError, IndexFileError, Exception):
        app.add_exception_handler(kind, _problem)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


def problem_response(error: Exception, request_id: str | None, *, trace: bool = True) -> Response:
    """Return the problem document of any error.

    Args:
        error: any.
        request_id: of the request; None where it is not known.
        trace: as for `problem_of`.
    """
    problem = problem_of(error, trace=trace)
    body = orjson.dumps(problem.document(request_id))
    return Response(body, problem.kind.status, headers=problem.headers, media_type=MEDIA_TYPE)


async def _problem(request: Request, error: Exception) -> Response:
    return problem_response(error, request.state.request_id, trace=False)  # the server logs the traceback


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = next((kind for kind in (Kind.NOT_FOUND, Kind.METHOD) if kind.status == error.status_code), Kind.INTERNAL)
    detail = "See /docs or /openapi.json for the paths and their methods."
    if kind is not Kind.METHOD:
        return await _problem(request, ProblemError(kind, detail, headers=error.headers))
    routes = (route for router in request.app.state.routers for route in router.routes)
    methods = {one for route in routes if route.matches(request.scope)[0] is not Match.NONE for one in route.methods}
    if "GET" in methods:
        methods.add("HEAD")
    headers = {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))} if methods else error.headers  # of a mounted application
    if methods and request.method == "OPTIONS":
        return Response(status_code=204, headers=headers)
    return await _problem(request, ProblemError(kind, detail, headers=headers))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    field = request.scope["route"].body_field
    faults = []
    for entry in error.errors():
        place, *path = entry["loc"]
        if place == "body":
            faults.append(fault_of({**entry, "loc": tuple(path)}, field.field_info.annotation))
        else:
            text = "this parameter is not known" if entry["type"] == "extra_forbidden" else entry["msg"]
            faults.append(FaultDocument("", f"{path[-1] if path else place}: {text}"))
    return await _problem(request, invalid(faults))


_TAGGED = (*get_args(AnyRule), *get_args(AnyChannel))  # classes that `kind` distinguishes
_LONGEST = 256  # characters of an unknown name that are compared with the known ones


def fault_of(entry: Mapping[str, Any], model: type[BaseModel]) -> FaultDocument:
    """Return the fault of one entry of a validation error.

    Args:
        entry: of `errors()` of the exception.
        model: of the body.
    """
    path: tuple[str | int, ...] = entry["loc"]
    known = _keys(path, model)
    if path[:1] in (("rules",), ("channels",)):
        path = tuple(without_tags(path))
    match entry["type"]:
        case "extra_forbidden" if path[-1] in getattr(model, "preset", ()):
            return FaultDocument(
                pointer(*path), f"Only a scenario sets this. A request may have {', '.join(model.model_fields)}"
            )
        case "extra_forbidden" | "unexpected_keyword_argument":
            return FaultDocument(pointer(*path), f"This key is not known. {did_you_mean(str(path[-1])[:_LONGEST], known)}")
        case "union_tag_invalid":
            kinds = [tag.strip(" '") for tag in entry["ctx"]["expected_tags"].split(",")]
            near = did_you_mean(str(entry["ctx"]["tag"])[:_LONGEST], kinds)
            return FaultDocument(pointer(*path, "kind"), f"This kind is not known. {near}")
        case "union_tag_not_found":
            return FaultDocument(pointer(*path), "An object with a 'kind' is needed here")
        case "model_type" | "model_attributes_type" | "missing" if not path:
            return FaultDocument("", "The body is a JSON object")
        case "dataclass_type" | "model_type" | "model_attributes_type":
            return FaultDocument(pointer(*path), "An object is needed here")
    if path and path[-1] == "[key]":  # an invalid key is not repeated
        return FaultDocument(pointer(*path[:-2]), f"A name here is wrong: {entry['msg']}")
    return FaultDocument(pointer(*path), entry["msg"])


def _keys(path: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Return the valid keys of the object that a path leads into."""
    if path[:1] not in (("rules",), ("channels",)):
        for step in path[:-1]:
            field = model.model_fields.get(step) if isinstance(step, str) else None
            model = model if field is None else next(iter(models_of(field.annotation)), model)
        return list(model.model_fields)
    kinds = {field.default: one for one in _TAGGED for field in fields(one) if field.name == "kind"}
    of = next((kinds[step] for step in reversed(path[:-1]) if step in kinds), Channels)
    return [field.name for field in fields(of)]


def parsed(model: type[Body], body: object) -> Body:
    """Validate the plain values of a body.

    Args:
        model: of the body.
        body: plain values.

    Raises:
        ProblemError: They are invalid; names each fault.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise invalid([fault_of(entry, model) for entry in error.errors(include_url=False, include_input=False)]) from None


def invalid(faults: Sequence[FaultDocument]) -> ProblemError:
    """Return the problem of a request with wrong values."""
    return ProblemError(Kind.INVALID, "One value is wrong." if len(faults) == 1 else "Some values are wrong.", faults)


def problems(*statuses: int, texts: Mapping[int, str] | None = None) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route that are problem documents.

    Args:
        statuses: those with a usual meaning.
        texts: descriptions of further ones, by status.
    """
    described = {status: _TEXTS[status] for status in statuses} | dict(texts or {})
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": described[status], "content": content} for status in sorted(described)}
