"""Lists that are given page by page, as Google's AIP-158 has it: `page_size`, `page_token` and `next_page_token`.

What is listed stands in order of its ids, so that a token is the id that a page begins after: nothing has to be kept for it.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Any

from fastapi import Request

from service.problems import Fault, Kind, ProblemError
from service.query import check_names, parameter, whole_number

USUAL_PAGE, LARGEST_PAGE = 100, 1000
_LONGEST_TOKEN = 8192
_CHECK = 4  # bytes


def page_parameters(things: str) -> list[dict[str, Any]]:
    """How the OpenAPI document describes the parameters of a list; `things` is what it lists."""
    size = parameter(
        "page_size",
        f"{things} on a page, {USUAL_PAGE} when it is left out or 0; no page holds more than {LARGEST_PAGE}.",
        {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    )
    token = parameter(
        "page_token", "The `next_page_token` of the page before.", {"type": "string", "maxLength": _LONGEST_TOKEN}
    )
    return [size, token]


def page_in(request: Request) -> tuple[int, str | None]:
    """How many a request wants, and the id that its page begins after, None for the first. Raises ProblemError."""
    check_names(request, ("page_size", "page_token"))
    count = min(whole_number(request, "page_size", USUAL_PAGE, 0), LARGEST_PAGE) or USUAL_PAGE
    return count, _after(request.query_params.get("page_token", ""))


def token_after(last: str | None) -> str:
    """An opaque token for the page after an id; it holds what tells it from one that was mangled on the way. Empty for None."""
    if last is None:
        return ""
    encoded = last.encode()
    return urlsafe_b64encode(blake2b(encoded, digest_size=_CHECK).digest() + encoded).decode().rstrip("=")


def _after(token: str) -> str | None:
    if not token:
        return None
    try:
        after = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))[_CHECK:].decode()
    except ValueError:
        after = ""
    if token_after(after) != token:
        detail = "page_token is not one that this service gave."
        raise ProblemError(Kind.INVALID, detail, [Fault("", detail)])
    return after
