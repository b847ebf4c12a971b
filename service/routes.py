"""The paths that are answered, as plain functions of a request."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.body import read_json
from service.context import live_of, note_time, request_id_of, settings_of
from service.openapi import body_of
from service.problems import Kind, ProblemDocument, ProblemError
from service.wire import (
    Columns,
    Info,
    Liveness,
    Readiness,
    RecommendRequest,
    RecommendResponse,
    RefusedBundle,
    Sizes,
    parse_request,
    render_answer,
)


async def recommend(request: Request) -> Response:
    """The best items for a user: known by `user_id`, by what the request says of them, or both."""
    settings = settings_of(request)
    start = time.perf_counter()
    asked = parse_request(await read_json(request, settings.max_body, settings.patience))
    parsed = time.perf_counter()
    answer = await live_of(request).recommend(asked)
    note_time(request, "parse", parsed - start)
    note_time(request, "recommend", time.perf_counter() - parsed)
    return Response(render_answer(answer, request_id_of(request)), media_type="application/json")


async def info(request: Request) -> Info:
    """The bundle that is served now: its version, age, sizes, index, and the columns that a request may name."""
    recommender = live_of(request).serving().recommender
    bundle = recommender.bundle
    manifest, encoder = bundle.manifest, bundle.encoder
    columns = dict.fromkeys((*encoder.users.columns, *encoder.contexts.columns))
    return Info(
        name=manifest.name,
        bundle=manifest.version,
        sequence=manifest.sequence,
        created=manifest.created,
        sizes=Sizes(users=manifest.sizes.users, items=manifest.sizes.items, factors=manifest.sizes.k),
        index=manifest.index.kind,
        columns=Columns(
            features=[name for name in columns if name not in encoder.context_columns],
            context=[name for name in columns if name in encoder.context_columns],
            history=manifest.schema_.history is not None,
            filter=list(recommender.eligibility.attributes.names),
            boosts=list(manifest.boosts),
        ),
    )


async def is_live() -> Liveness:
    """Whether the process runs. Restart it when this fails."""
    return Liveness()


async def is_ready(request: Request) -> Readiness:
    """Whether requests should be sent here. A newer bundle that was refused does not make the service unready."""
    live = live_of(request)
    if live.draining:
        raise ProblemError(Kind.DRAINING, "Send requests elsewhere.")
    refusal = live.refusal
    return Readiness(
        bundle=live.serving().recommender.bundle.manifest.version,
        refused=RefusedBundle(bundle=refusal.folder.name, reason=refusal.reason) if refusal else None,
    )


def routes() -> APIRouter:
    """All paths but the documentation."""
    router = APIRouter()
    router.add_api_route(
        "/v1/recommend",
        recommend,
        methods=["POST"],
        operation_id="recommend",
        tags=["recommendations"],
        response_class=Response,
        responses={
            200: {"model": RecommendResponse, "description": "The best items, best first."},
            **_problems(
                {
                    400: "The body is not JSON.",
                    408: "The body did not arrive in time.",
                    413: "The body is too large.",
                    415: "The body is not plain application/json.",
                    422: "A value is wrong; `errors` names it.",
                    503: "No bundle is served, or too many requests wait; Retry-After says when to come back.",
                }
            ),
        },
        openapi_extra=body_of(RecommendRequest.__name__),
    )
    for path, endpoint, operation in (
        ("/v1/info", info, "getInfo"),
        ("/health/live", is_live, "isLive"),
        ("/health/ready", is_ready, "isReady"),
    ):
        problems = {} if endpoint is is_live else _problems({503: "No bundle is served, or the service is shutting down."})
        router.add_api_route(path, endpoint, operation_id=operation, tags=["service"], responses=problems)
    return router


def _problems(texts: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ProblemDocument, "description": text} for status, text in texts.items()}
