"""What is counted and timed, for Prometheus."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from service.context import live_of

_TEXT: dict[str, Any] = {
    "description": "Every metric of all workers.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}


async def metrics(request: Request) -> Response:
    """Every metric of all workers, in the format of Prometheus; never waits for a search."""
    live = live_of(request)
    live.measure()
    body, media_type = await run_in_threadpool(live.meters.exposition, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


def add_metric_routes(app: FastAPI) -> None:
    """Answer the path for metrics."""
    app.add_api_route(
        "/metrics",
        metrics,
        operation_id="getMetrics",
        tags=["service"],
        response_class=Response,
        responses={200: _TEXT},
    )
