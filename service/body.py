"""Read the body of a request: strict JSON, bounded in size and time.

orjson refuses NaN, numbers beyond a double, lone surrogates, invalid UTF-8 and very deep nesting. It keeps the last of two
equal keys; a second pass refuses those, because other parsers would read another request from the same document.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable

import orjson
from starlette.types import Receive

from service.errors import FaultDocument, Kind, ProblemError, pointer

DEPTH = 64
"""Deepest nesting of objects and lists in a body."""
LARGE = 1 << 15
"""Bytes of a body above which it is parsed on a thread: parsing a megabyte would block all other requests."""

_CLOSE = {"Connection": "close"}


async def read_body(headers: Iterable[tuple[bytes, bytes]], receive: Receive, limit: int, seconds: float) -> bytes:
    """Read a body whose headers declare JSON.

    Args:
        headers: of the request; names in lower case.
        receive: of the request; nothing has been received.
        limit: largest body in bytes.
        seconds: longest time in which the body must arrive.

    Raises:
        ProblemError: The body is of another type, too large, or too slow, or the client has left.
    """
    content = encoding = declared = None
    for name, value in headers:
        if name == b"content-type" and content is None:
            content = value
        elif name == b"content-encoding" and encoding is None:
            encoding = value
        elif name == b"content-length":
            declared = value
    if content != b"application/json" or encoding is not None:
        check_content((content or b"").decode("latin-1"), (b"identity" if encoding is None else encoding).decode("latin-1"))
    if declared is not None and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError(Kind.GONE, "The client left before the whole body had arrived.")
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
                size += len(parts[-1])
                if size > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise ProblemError(Kind.TOO_SLOW, f"The body must arrive within {seconds:g} s.", headers=_CLOSE) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def parse_json(body: bytes) -> object:
    """Return the values in a JSON document. Raises ProblemError."""
    if not body:
        raise _not_json("the body is empty", "")
    try:
        value: object = orjson.loads(body)
        # an object without inner objects that has as many keys as the body has colons lost none
        flat = isinstance(value, dict) and body.count(b":") == len(value) and body.count(b"{") == 1
        if not flat or body.count(b"[") >= DEPTH:
            _check_nested(json.loads(body, object_pairs_hook=tuple), ())
    except orjson.JSONDecodeError as error:
        raise _not_json(str(error), "") from None
    except RecursionError:
        raise _not_json("nested too deeply", "") from None
    return value


def _check_nested(value: object, path: tuple[str | int, ...]) -> None:
    """Raise ProblemError for a key that an object has twice, and for deep nesting.

    Args:
        value: a list, an object as a tuple of pairs, or a scalar.
        path: that leads to it.
    """
    if len(path) >= DEPTH:
        raise ProblemError(Kind.INVALID, "The body is too deep.", [FaultDocument("", f"Objects and lists may be {DEPTH} deep")])
    children: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, tuple):
        children, keys = value, [key for key, _ in value]
        if len(set(keys)) < len(keys):
            twice = next(key for key, count in Counter(keys).items() if count > 1)
            raise _not_json("the same key is twice in one object", pointer((*path, twice)))
    elif isinstance(value, list):
        children = enumerate(value)
    for step, child in children:
        if isinstance(child, list | tuple):
            _check_nested(child, (*path, step))


def check_content(media: str, encoding: str) -> None:
    """Check that Content-Type and Content-Encoding declare plain JSON.

    Args:
        media: the Content-Type.
        encoding: the Content-Encoding.

    Raises:
        ProblemError: They do not.
    """
    kind, _, parameters = media.partition(";")
    name, _, charset = parameters.strip().partition("=")
    if kind.strip().lower() != "application/json" or (
        name.strip().lower() == "charset" and charset.strip(' "').lower() not in ("utf-8", "utf8")
    ):
        raise _content("Send the header Content-Type: application/json; the body is read as UTF-8.")
    if encoding.strip().lower() != "identity":
        raise _content("Send the body as it is, without a Content-Encoding.")


def _content(detail: str) -> ProblemError:
    return ProblemError(Kind.CONTENT, detail, [FaultDocument("", detail)], {"Accept": "application/json"})


def _too_large(limit: int) -> ProblemError:
    detail = f"A body may hold {limit} bytes."
    return ProblemError(Kind.TOO_LARGE, detail, [FaultDocument("", detail)], _CLOSE)


def _not_json(message: str, where: str) -> ProblemError:
    return ProblemError(Kind.NOT_JSON, "Send one JSON object, encoded as UTF-8.", [FaultDocument(where, message)])
