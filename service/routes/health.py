"""Whether the process runs, and whether requests should be sent to it."""

from typing import Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from service.context import live_of
from service.openapi import problems
from service.problems import Kind, ProblemError
from service.security.renewing import degraded_keys
from service.wire import Degradation


class Liveness(BaseModel):
    """The process runs."""

    status: Literal["live"] = "live"


class RefusedBundle(BaseModel):
    """A published bundle that is not served."""

    bundle: str = Field(description="Name of its folder.")
    reason: str


class Readiness(BaseModel):
    """Requests are answered."""

    status: Literal["ready"] = "ready"
    bundle: str = Field(description="Version of the bundle that is served.", examples=["000001-4f2a90c1"])
    refused: RefusedBundle | None = Field(
        description="The live bundle, when it was refused and another one is served; null when all is well."
    )
    degraded: list[Degradation] = Field(description="What is not as it should be; empty when all is well.")


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
        degraded=[Degradation(part=one.part, reason=one.reason) for one in (*live.lacking(), *degraded_keys(request))],
    )


def add_health_routes(app: FastAPI) -> None:
    """Answer the paths that ask how the service is."""
    app.add_api_route("/health/live", is_live, operation_id="isLive", tags=["service"])
    app.add_api_route(
        "/health/ready",
        is_ready,
        operation_id="isReady",
        tags=["service"],
        responses=problems(texts={503: "No bundle is served, or the service is shutting down."}),
    )
