"""What every answer says of itself, and how answers that are not the recommendations themselves are written."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import orjson
from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from recall.serving.recommender import Recommender
from recall.serving.response import Basis, Degraded
from service.context import caller_of, live_of, note_time, request_id_of
from service.wire import Degradation

Found = TypeVar("Found")


class Answer(BaseModel):
    """What an answer rests on."""

    bundle: str = Field(description="Version of the bundle that this whole answer comes from.", examples=["000001-4f2a90c1"])
    sequence: int = Field(description="The last live change of items that this answer has seen; 0 before the first.")
    exact: bool = Field(description="Whether it is surely right, or rests on an approximate search.")
    degraded: list[Degradation] = Field(
        description="Parts of the service that this answer had to do without, or with less of; empty when all is well."
    )
    request_id: str = Field(description="The same as the X-Request-ID header.")


class CallerAnswer(Answer):
    """An answer that speaks of a user."""

    user: Literal["known", "unknown", "anonymous"] = Field(description="As in an answer of recommendations.")
    unknown: list[str] = Field(description="Columns whose value the model has never seen.")
    warnings: list[str] = Field(description="Parts of the request that had no effect.")
    user_offset: float = Field(description="Add it to a score for the model's full score; the same for all items.")


async def answered(request: Request, part: str, act: Callable[[Recommender], Found]) -> Found:
    """What the bundle that is served answers, on a search thread and in its turn.

    Args:
        request: who waits for it.
        part: what Server-Timing calls the time that it took, in a bare word.
        act: asks the recommender; what it raises is raised here.
    """
    start = time.perf_counter()
    found = await live_of(request).ask(act, caller_of(request))
    note_time(request, part, time.perf_counter() - start)
    return found


def respond(request: Request, basis: Basis, content: dict[str, Any], *, exact: bool = True) -> Response:
    """An answer as JSON: its content, and what it rests on."""
    return json_response({**content, **basis_of(request, basis.bundle, basis.sequence, basis.degraded, exact=exact)})


def basis_of(request: Request, bundle: str, sequence: int, degraded: Sequence[Degraded], *, exact: bool) -> dict[str, Any]:
    """The fields of `Answer`; what the service itself has to do without is added to what the answer had to."""
    told = dict.fromkeys((*degraded, *live_of(request).degraded))
    return {
        "bundle": bundle,
        "sequence": sequence,
        "exact": exact,
        "degraded": [{"part": one.part, "reason": one.reason} for one in told],
        "request_id": request_id_of(request),
    }


def json_response(content: dict[str, Any]) -> Response:
    """A JSON document. Values that JSON does not have, which only columns of items can hold, are written as text."""
    return Response(orjson.dumps(content, default=str), media_type="application/json")
