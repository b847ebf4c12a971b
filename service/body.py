"""Bodies of requests and answers: JSON is read strictly, bounded in size and time.

orjson refuses NaN, numbers beyond a double, lone surrogates, invalid UTF-8 and very deep nesting. It keeps the last of two
equal keys; a second pass refuses those, because other parsers would read another request from the same document.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import orjson
from starlette.types import Receive

from recall import Recommendations, Request, ScoredItem
from recall.errors import pointer
from service.errors import FaultDocument, Kind, ProblemError, parsed
from service.schemas import LONGEST_ID, MOST_RESULTS, RecommendRequest

DEPTH = 64
"""Deepest nesting of objects and lists in a body."""
LARGE = 1 << 15
"""Bytes of a body above which it is parsed on a thread: parsing a megabyte would block all other requests."""

_CLOSE = {"Connection": "close"}


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limit: int, seconds: float) -> bytes:
    """Read a body whose headers declare JSON.

    Args:
        headers: of the request, by name.
        receive: of the request; nothing has been received.
        limit: largest body in bytes.
        seconds: longest time in which the body must arrive.

    Raises:
        ProblemError: The body is of another type, too large, or too slow, or the client has left.
    """
    content, encoding = headers.get(b"content-type", b""), headers.get(b"content-encoding", b"identity")
    if content != b"application/json" or encoding != b"identity":
        _check_content(content.decode("latin-1"), encoding.decode("latin-1"))
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    parts, more = bytearray(), True
    try:
        async with asyncio.timeout(seconds):
            while more and len(parts) <= limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError(Kind.GONE, "The client left before the whole body had arrived.")
                parts += message.get("body", b"")
                more = message.get("more_body", False)
    except TimeoutError:
        raise ProblemError(Kind.TOO_SLOW, f"The body must arrive within {seconds:g} s.", headers=_CLOSE) from None
    if len(parts) > limit:
        raise _too_large(limit)
    return bytes(parts)


def has_disconnected(receive: Receive) -> bool:
    """Return whether the client of a request has disconnected, without waiting.

    Args:
        receive: of the request, whose body has been read.
    """
    step = receive().__await__()
    try:
        next(step)
    except StopIteration as received:
        return bool(received.value["type"] == "http.disconnect")
    if isinstance(step, Generator):  # awaitables of servers in other languages need no close
        step.close()
    return False


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
            raise _not_json("the same key is twice in one object", pointer(*path, twice))
    elif isinstance(value, list):
        children = enumerate(value)
    for step, child in children:
        if isinstance(child, list | tuple):
            _check_nested(child, (*path, step))


def _check_content(media: str, encoding: str) -> None:
    """Raise ProblemError unless Content-Type and Content-Encoding declare plain JSON."""
    kind, _, parameters = media.partition(";")
    name, _, charset = parameters.strip().partition("=")
    if kind.strip().lower() != "application/json" or (
        name.strip().lower() == "charset" and charset.strip(' "').lower() not in ("utf-8", "utf8")
    ):
        raise _content("Send the header Content-Type: application/json; the body is read as UTF-8.")
    if encoding.strip().lower() != "identity":
        raise _content("Send the body uncompressed, without a Content-Encoding.")


def _content(detail: str) -> ProblemError:
    return ProblemError(Kind.CONTENT, detail, [FaultDocument("", detail)], {"Accept": "application/json"})


def _too_large(limit: int) -> ProblemError:
    detail = f"A body may hold {limit} bytes."
    return ProblemError(Kind.TOO_LARGE, detail, [FaultDocument("", detail)], _CLOSE)


def _not_json(message: str, where: str) -> ProblemError:
    return ProblemError(Kind.NOT_JSON, "Send one JSON object, encoded as UTF-8.", [FaultDocument(where, message)])


# The request to the recommender, and its answer as JSON.

_USUAL = {"user_id", "n"}


def parse_request(body: object) -> Request | RecommendRequest:
    """Return a request to the recommender from the plain values of a body.

    One whose answer has tokens is returned as it was parsed.

    Raises:
        ProblemError: They are invalid; names each fault.
    """
    if type(body) is dict and body.keys() == _USUAL:  # most requests need no further validation
        user_id, n = body["user_id"], body["n"]
        if type(user_id) is str and 0 < len(user_id) <= LONGEST_ID and type(n) is int and 0 < n <= MOST_RESULTS:
            return Request(user_id, n=n)
    found = parsed(RecommendRequest, body)
    return found if found.has_tokens else found.request()


def to_json(content: Mapping[str, object]) -> bytes:
    """Return a JSON document.

    Named tuples become objects; values unknown to JSON, such as dates of item columns, become text.
    """
    return orjson.dumps(content, default=_plain)


def _plain(value: Any) -> object:
    if isinstance(value, ScoredItem):
        return {"item_id": value.item_id, "score": value.score}
    return value._asdict() if hasattr(value, "_asdict") else str(value)


def recommendations_of(answer: Recommendations) -> dict[str, object]:
    """Return an answer as values for `to_json`, without the request's id.

    orjson writes dicts several times faster than dataclasses.
    """
    items: list[dict[str, object]] = [
        {"item_id": item_id, "score": score} for item_id, score in zip(answer.ids, answer.scores, strict=True)
    ]
    for name, values in (("fields", answer.fields), ("sources", answer.sources), ("contributions", answer.contributions)):
        if values:
            for item, value in zip(items, values, strict=True):
                item[name] = value
    content: dict[str, object] = {
        "items": items,
        "user": answer.user,
        "bundle": answer.bundle,
        "sequence": answer.sequence,
        "exact": answer.exact,
        "unknown": answer.unknown,
        "warnings": answer.warnings,
        "degraded": answer.degraded,
        "user_offset": answer.user_offset,
    }
    if answer.rows:
        rows = [{"because": one.because, "title": one.title, "items": scored(one.items, one.fields)} for one in answer.rows]
        content["rows"] = rows
    return content


def scored(items: Iterable[ScoredItem], values: Iterable[Mapping[str, object]]) -> list[dict[str, Any]]:
    """Return items as values for `to_json`.

    Args:
        items: with their scores.
        values: of the columns that the request names; empty if it names none.
    """
    listed = [{"item_id": one.item_id, "score": one.score} for one in items]
    for item, fields in zip(listed, values, strict=False):
        item["fields"] = fields
    return listed
