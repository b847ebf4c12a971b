"""How answers are asked for and written."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Request
from fastapi.responses import Response

from recall.serving.recommender import Recommender
from recall.serving.response import Basis, Degraded
from service.dependencies import caller_of, live_of, note_time, request_id_of

Found = TypeVar("Found")


async def answered(request: Request, part: str, act: Callable[[Recommender], Found]) -> Found:
    """Ask the bundle that is served, on a search thread and in turn.

    Args:
        request: who waits for it.
        part: name of the time that it takes in Server-Timing, a bare word.
        act: asks the recommender; what it raises is raised here.
    """
    start = time.perf_counter()
    found = await live_of(request).ask(act, caller_of(request))
    note_time(request, part, time.perf_counter() - start)
    return found


def respond(request: Request, basis: Basis, content: dict[str, Any], *, exact: bool = True) -> Response:
    """Return an answer as JSON: its content, and what it rests on."""
    return json_response({**content, **basis_of(request, basis.bundle, basis.sequence, basis.degraded, exact=exact)})


def basis_of(request: Request, bundle: str, sequence: int, degraded: Sequence[Degraded], *, exact: bool) -> dict[str, Any]:
    """Return the fields of `Answer`; what the service itself does without is added to what the answer did without."""
    return {
        "bundle": bundle,
        "sequence": sequence,
        "exact": exact,
        "degraded": [
            {"part": one.part, "reason": one.reason} for one in dict.fromkeys((*degraded, *live_of(request).degraded))
        ],
        "request_id": request_id_of(request),
    }


def json_response(content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """Return a JSON document. Values that JSON does not have, which only columns of items can hold, are written as text."""
    return Response(orjson.dumps(content, default=str), media_type="application/json", headers=headers)
