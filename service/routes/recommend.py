"""The best items for a user."""

import time

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.body import read_json
from service.context import caller_of, live_of, note_time, request_id_of, settings_of
from service.openapi import add_question
from service.wire import RecommendRequest, RecommendResponse, parse_request, render_answer


async def recommend(request: Request) -> Response:
    """The best items for a user: known by `user_id`, by what the request says of them, or both."""
    settings = settings_of(request)
    start = time.perf_counter()
    asked = parse_request(await read_json(request, settings.max_body, settings.patience))
    parsed = time.perf_counter()
    answer = await live_of(request).recommend(asked, caller_of(request))
    note_time(request, "parse", parsed - start)
    note_time(request, "recommend", time.perf_counter() - parsed)
    return Response(render_answer(answer, request_id_of(request)), media_type="application/json")


def add_recommend_routes(app: FastAPI) -> None:
    """Answer the paths for recommendations."""
    bodies = RecommendRequest, RecommendResponse
    add_question(app, "/v1/recommend", recommend, "recommend", "recommendations", bodies, "The best items, best first.")
