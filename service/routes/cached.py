"""Recommendations as something that can be fetched, and kept for as long as they are the same."""

import time
from hashlib import blake2b
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response

from recall.serving.request import Request as Asked
from service.context import caller_of, live_of, note_time, request_id_of
from service.openapi import problems
from service.paths import id_in, id_parameter
from service.query import check_names, parameter, whole_number
from service.wire import MOST_RESULTS, RecommendResponse, recommendations_of

_USUAL = 10


async def get_recommendations(request: Request) -> Response:
    """The best items for a user who is known by their id alone."""
    user_id = id_in(request, "user_id")
    check_names(request, ("n",))
    asked = Asked(user_id=user_id, n=whole_number(request, "n", _USUAL, 1, MOST_RESULTS))
    start = time.perf_counter()
    document = recommendations_of(await live_of(request).recommend(asked, caller_of(request)))
    note_time(request, "recommend", time.perf_counter() - start)
    # of the whole answer: it changes with the user's history as well as with the items, and not with every change of either
    tag = f'W/"{blake2b(orjson.dumps(document), digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if _known(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    document["request_id"] = request_id_of(request)
    return Response(orjson.dumps(document), media_type="application/json", headers=headers)


def add_cached_routes(app: FastAPI) -> None:
    """Answer the path for recommendations of a known user."""
    number = parameter(
        "n", "Number of items wanted.", {"type": "integer", "minimum": 1, "maximum": MOST_RESULTS, "default": _USUAL}
    )
    condition: dict[str, Any] = {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "Tags of answers that are at hand: where one of them is still right, 304 says so.",
        "schema": {"type": "string"},
    }
    app.add_api_route(
        "/v1/users/{user_id}/recommendations",
        get_recommendations,
        operation_id="getRecommendations",
        tags=["recommendations"],
        response_class=Response,
        responses={
            200: {
                "model": RecommendResponse,
                "description": "The best items, best first.",
                "headers": {"ETag": {"description": "Names this answer.", "schema": {"type": "string"}}},
            },
            304: {"description": "The answer that is at hand is still right."},
            **problems(422, 503),
        },
        openapi_extra={"parameters": [id_parameter("user_id"), number, condition]},
    )


def _known(conditions: list[str], tag: str) -> bool:
    """Whether If-None-Match names a tag, compared weakly as RFC 9110 has it."""
    given = [one.strip() for condition in conditions for one in condition.split(",")]
    return "*" in given or tag.removeprefix("W/") in [one.removeprefix("W/") for one in given]
