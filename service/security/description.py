"""What the OpenAPI document says of keys, limits and deadlines: the same for all paths, so no path says it itself."""

from collections.abc import Iterator
from typing import Any

from service.problems import MEDIA_TYPE, ProblemDocument
from service.security.guard import LONGEST_TIMEOUT
from service.security.roles import Access, Role, access
from service.security.sites import SAFE_METHODS

_STRANGE_PAGE = -403  # a 403 too, of a service without keys
_TEXTS = {
    401: "No key was sent, or one that is not known.",
    403: "The key is not an admin key.",
    _STRANGE_PAGE: "A browser says that a page of another site sent the request.",
    412: "X-Recall-Token names a change of another log: the log was replaced, or another service gave the token.",
    421: "The Host header names another host than this one; see --hosts.",
    422: "A value is wrong; `errors` names it.",
    429: "The key sends more requests than it may; Retry-After says when to come back.",
    503: "No bundle is served, too many requests wait, or the change that X-Recall-Token names is not served in time; "
    "Retry-After says when to come back.",
    504: "The time that X-Request-Timeout-Ms gave had passed before the search began.",
}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds after which the answer is of no use: a search that was not begun by then is not begun.",
    "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST_TIMEOUT},
}
_TOKEN = {
    "name": "X-Recall-Token",
    "in": "header",
    "required": False,
    "description": "The `token` of an acknowledged change of items: the answer waits until it has seen that change.",
    "schema": {"type": "string", "maxLength": 100},
}
_WAITING = frozenset({"/v1/items", "/v1/items/{item_id}"})
"""Paths that are asked by GET and wait for a token, beside those that search."""


def describe_access(document: dict[str, Any], keyed: bool, limited: bool, named: bool) -> None:
    """Add to an OpenAPI document what every path may ask for and answer with.

    Args:
        document: changed in place.
        keyed: whether keys are asked for.
        limited: whether any key's requests are limited.
        named: whether the Host header is looked at.
    """
    if keyed:
        document["components"]["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            needed = access(method.upper(), path)
            if keyed and needed.role is not Role.OPEN:
                operation["security"] = [{name: []} for name in _SCHEMES]
            if needed.searches:
                operation.setdefault("parameters", []).append(_TIMEOUT)
            if _waits(method, path, needed):
                operation.setdefault("parameters", []).append(_TOKEN)
                operation["responses"].setdefault("412", _problem(412))
            responses = operation["responses"]
            for status in _statuses(method, needed, keyed, limited, named):
                responses.setdefault(str(abs(status)), _problem(status))
            operation["responses"] = dict(sorted(responses.items()))


def _waits(method: str, path: str, needed: Access) -> bool:
    """Whether an operation waits for the change that a token names."""
    return needed.searches or (method == "get" and path in _WAITING)


def _statuses(method: str, needed: Access, keyed: bool, limited: bool, named: bool) -> Iterator[int]:
    if needed.role is Role.OPEN:
        return
    if keyed:
        yield 401
    if keyed and needed.role is Role.ADMIN:
        yield 403
    if not keyed and method.upper() not in SAFE_METHODS:
        yield _STRANGE_PAGE
    if limited:
        yield 429
    if named:
        yield 421
    if needed.searches:
        yield from (422, 503, 504)


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
    return {"description": _TEXTS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
