"""Scenarios: named presets of requests, and how often their lists were taken from."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, Field

from service.dependencies import BODY, READ, SEARCH, caller_of, live_of, request_id_of, timed
from service.errors import problems
from service.lists import answer_with_tokens
from service.schemas import Degradation, RecommendResponse, Reply, ScenarioRequest


class ScenarioEntry(BaseModel):
    """A scenario."""

    name: str
    description: str
    settings: dict[str, Any] = Field(description="What it sets in a request.", examples=[{"n": 20, "fields": ["genre"]}])


class Attribution(BaseModel):
    """Outcome of the lists of one scenario and version."""

    scenario: str = Field(description="Empty for lists without a scenario.")
    bundle: str = Field(description="Version of the bundle.")
    answers: int = Field(description="Lists with a `recommendation_id` since the service started.")
    hits: int = Field(description="Interactions with that id and an item of the list.")


class ScenariosResponse(Reply):
    """All scenarios, and the hit rates of lists."""

    scenarios: list[ScenarioEntry]
    attribution: list[Attribution] = Field(description="By scenario and version, of all workers of this service.")
    degraded: list[Degradation] = Field(description="Why the file of scenarios is not in use as it is; empty if all is well.")


reads, searches = APIRouter(tags=["scenarios"], **READ), APIRouter(tags=["scenarios"], **SEARCH)
TOKENS = problems(410)
MISSING = problems(texts={404: "There is no such scenario."})


@reads.get("/v1/scenarios")
async def list_scenarios(request: Request) -> ScenariosResponse:
    """Return the scenarios, and the hit rates of lists by scenario and version."""
    live = live_of(request)
    figures = await run_in_threadpool(live.meters.attribution)
    return ScenariosResponse(
        scenarios=[
            ScenarioEntry(
                name=name,
                description=one.description,
                settings=one.model_dump(mode="json", exclude_unset=True, exclude={"description"}),
            )
            for name, one in live.scenarios.known.items()
        ],
        attribution=[Attribution(scenario=key[0], bundle=key[1], answers=found[0], hits=found[1]) for key, found in figures],
        degraded=[Degradation(part=one.part, reason=one.reason) for one in live.scenarios.degraded],
        request_id=request_id_of(request),
    )


@searches.post("/v1/scenarios/{name}:recommend", response_model=RecommendResponse, responses={**BODY, **MISSING, **TOKENS})
async def recommend_scenario(
    request: Request, name: Annotated[str, Path(description="Name of the scenario.")], body: ScenarioRequest
) -> Response:
    """Return the top items for a user, as a scenario says.

    The request may add the user, the context, the history, items to leave out, and the number of items.
    """
    live = live_of(request)
    with timed(request, "recommend"):
        if name not in live.scenarios.known:  # it may have been added a moment ago
            with live.serving() as snapshot:
                await run_in_threadpool(live.scenarios.look, snapshot.recommender)
        asked = live.scenarios.request(name, body)
        content = await answer_with_tokens(live, asked, caller_of(request), request_id_of(request), scenario=name)
    return Response(content, media_type="application/json")
