"""Recommendations for one user or many, or by scenario; scores; query vectors."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import accumulate, groupby
from typing import Annotated, Any, NamedTuple

import orjson
from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, SkipValidation

from recall import Recommendations, Recommender, RequestError
from recall import Request as Asked
from recall.store.items.snapshot import CatalogSnapshot
from service.body import recommendations_of, scored, to_json
from service.dependencies import (
    BODY,
    READ,
    SEARCH,
    CountQuery,
    PathId,
    answered,
    basis_of,
    caller_of,
    charge,
    json_response,
    live_of,
    request_id_of,
    respond,
    timed,
)
from service.errors import ProblemDocument, ProblemError, as_problem, parsed, problems
from service.live import Live
from service.recommend import answer_request, answer_with_tokens
from service.schemas import (
    MOST_RESULTS,
    Answer,
    Attributes,
    Body,
    Caller,
    CallerAnswer,
    Degradation,
    Dial,
    Id,
    Listing,
    ListRequest,
    RecommendRequest,
    RecommendResponse,
    Reply,
    ScenarioRequest,
    Scoring,
)

MOST_REQUESTS = 256


class BatchRequest(
    Body, json_schema_extra={"examples": [{"requests": [{"user_id": "42", "n": 10}, {"user_id": "43", "n": 10}]}]}
):
    """Independent requests."""

    requests: Annotated[list[SkipValidation[ListRequest]], Field(min_length=1, max_length=MOST_REQUESTS)] = Field(
        description="Each is answered as it would be alone; an invalid one is refused alone."
    )


class BatchAnswer(BaseModel):
    """The outcome of one of the requests."""

    status: int = Field(description="The status that it would have alone.", examples=[200])
    answer: RecommendResponse | None = Field(default=None, description="Only with status 200.")
    problem: ProblemDocument | None = Field(default=None, description="Only with another status.")


class BatchResponse(Answer):
    """An answer or a problem for each request in order, all from one snapshot."""

    answers: list[BatchAnswer]


class ScoreRequest(Scoring, Listing, json_schema_extra={"examples": [{"user_id": "42", "items": ["12", "7"]}]}):
    """A user, and the items to score."""

    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_RESULTS)] = Field(
        description="Items to score, in any order and with repeats; nothing is searched or left out."
    )


class ItemScore(Attributes):
    """The score of one item."""

    item_id: str
    score: float = Field(description="The score in a list of `/v1/recommend`.")
    probability: float | None = Field(
        description="Probability that the user takes the item, from the model's full score; null unless the model was trained "
        "with log loss and the request has no boosts and a `popularity` of 1."
    )


class ScoreResponse(CallerAnswer):
    """Scores in the order of the given items."""

    items: list[ItemScore]
    missing: list[str] = Field(description="Items that the catalogue lacks, each once.")


class UserVectorRequest(
    Caller, json_schema_extra={"examples": [{"user_id": "42"}, {"features": {"age": 31}, "popularity": 0.5}]}
):
    """A user, for the query vector."""

    popularity: Dial = 1.0


class UserVectorResponse(CallerAnswer):
    """The query vector of a request."""

    vector: list[float] = Field(description="Its inner product with an item's vector is the item's score.")


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
    degraded: list[Degradation] = Field(description="Why the current file of scenarios is not in use; empty if it is.")


COST = 16
"""Requests of a batch that are answered in one turn on a search thread; an explained item counts as a tenth of a request."""

router = APIRouter(tags=["recommendations"], **SEARCH)


@router.post("/v1/recommend", response_model=RecommendResponse, responses={**BODY, **problems(410)})
async def recommend(request: Request, body: RecommendRequest) -> Response:
    """Return the top items for a user.

    The user is described by `user_id`, by the features in the request, or both.
    """
    with timed(request, "recommend"):
        asked, large = body if body.has_tokens else body.request(), request.scope["state"]["large"]
        content = await answer_request(live_of(request), asked, caller_of(request), request_id_of(request), large=large)
    return Response(content, media_type="application/json")


@router.post("/v1/recommend:batch", response_model=BatchResponse, responses=BODY)
async def recommend_batch(request: Request, body: BatchRequest) -> Response:
    """Return the top items for up to 256 users.

    The status is 200 even if single requests could not be answered.
    """
    charge(request, len(body.requests))
    with timed(request, "recommend"):
        act = partial(_answer_part, live_of(request), request_id_of(request))
        parts = await live_of(request).ask_in_turns([partial(act, part) for part in _parts(body.requests)], caller_of(request))
    return await run_in_threadpool(_batch_response, request, parts)


@router.get(
    "/v1/users/{user_id:path}/recommendations",
    response_model=RecommendResponse,
    responses={
        200: {"headers": {"ETag": {"description": "Identifies this answer.", "schema": {"type": "string"}}}},
        304: {"description": "The answer that If-None-Match names has not changed."},
    },
)
async def get_recommendations(request: Request, user_id: PathId, query: CountQuery) -> Response:
    """Return the top items for a user, by id only."""
    with timed(request, "recommend"):
        content = recommendations_of(await live_of(request).recommend(query.request(user_id), caller_of(request)))
    # a hash of the answer: it changes with the user's history and with the items, but not with every change of either
    tag = f'W/"{blake2b(to_json(content), digest_size=16).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    known = [one.strip() for given in request.headers.getlist("if-none-match") for one in given.split(",")]
    if "*" in known or tag.removeprefix("W/") in [one.removeprefix("W/") for one in known]:
        return Response(status_code=304, headers=headers)
    return json_response({**content, "request_id": request_id_of(request)}, headers)


@router.post("/v1/score", response_model=ScoreResponse, responses=BODY)
async def score(request: Request, body: ScoreRequest) -> Response:
    """Return the scores of given items for a user.

    These may be candidates of another system.
    """
    found = await answered(request, "score", lambda recommender: recommender.score(body.request(), body.items))
    likely = found.probabilities or [None] * len(found.items)
    items = scored(found.items, found.fields)
    for item, probability in zip(items, likely, strict=True):
        item["probability"] = probability
    content = {
        "items": items,
        "missing": found.missing,
        "user": found.user,
        "unknown": found.unknown,
        "warnings": found.warnings,
        "user_offset": found.user_offset,
    }
    return respond(request, found, content)


@router.post("/v1/user-vector", response_model=UserVectorResponse, responses=BODY)
async def get_user_vector(request: Request, body: UserVectorRequest) -> Response:
    """Return the query vector of a user, for searches in another system."""
    found = await answered(request, "encode", lambda recommender: recommender.user_vector(body.request()))
    return respond(request, found)


class _Part(NamedTuple):
    """Requests of a batch that were answered in one turn.

    Attributes:
        catalogue: the snapshot that all parts of the batch are answered from.
        answers: to the valid requests, without contributions.
        written: each outcome, answer or problem, as `BatchAnswer`.
    """

    catalogue: CatalogSnapshot
    answers: list[Recommendations]
    written: list[orjson.Fragment]


def _parts(bodies: Sequence[object]) -> list[list[object]]:
    """Divide the requests of a batch into parts of about the same cost."""
    before = accumulate(map(_cost, bodies), initial=0.0)  # cost of the requests before each one
    parts = groupby(zip(bodies, before, strict=False), key=lambda one: one[1] // COST)
    return [[body for body, _ in part] for _, part in parts]


def _answer_part(
    live: Live, request_id: str, bodies: Sequence[object], recommender: Recommender, catalogue: CatalogSnapshot
) -> _Part:
    """Answer some requests of a batch, on a search thread."""
    part = _Part(catalogue, [], [])
    found = [_parsed(body) for body in bodies]
    answers = iter(recommender.recommend_each([one for one in found if isinstance(one, Asked)], catalogue))
    for one in found:
        outcome = one if isinstance(one, ProblemError) else next(answers)
        if isinstance(outcome, Recommendations):
            outcome = live.with_degraded(outcome)
            part.answers.append(replace(outcome, contributions=()))  # the large part is written here
            content = {"status": 200, "answer": {**recommendations_of(outcome), "request_id": request_id}}
        else:
            problem = as_problem(outcome) if isinstance(outcome, RequestError) else outcome
            content = {"status": problem.kind.status, "problem": problem.document(request_id)}
        part.written.append(orjson.Fragment(to_json(content)))
    return part


def _batch_response(request: Request, parts: Sequence[_Part]) -> Response:
    """Count the answers of a batch, and return `BatchResponse` as JSON."""
    answers = [answer for part in parts for answer in part.answers]
    for answer in answers:
        live_of(request).meters.answered(answer)
    degraded = list(dict.fromkeys(one for answer in answers for one in answer.degraded))
    catalogue, exact = parts[0].catalogue, all(answer.exact for answer in answers)
    basis = basis_of(request, catalogue.bundle.manifest.version, catalogue.sequence, degraded, exact=exact)
    return json_response({"answers": [one for part in parts for one in part.written], **basis})


def _parsed(body: object) -> Asked | ProblemError:
    try:
        return parsed(ListRequest, body).request()
    except ProblemError as problem:
        return problem


def _cost(body: object) -> float:
    """Return the cost of one request of a batch, in plain requests."""
    if not isinstance(body, dict) or not body.get("explain"):
        return 1.0
    count = body.get("n", 10)
    return 1.0 + (min(count, 100) / 10 if isinstance(count, int) else 0.0)


scenarios, scenario_searches = APIRouter(tags=["scenarios"], **READ), APIRouter(tags=["scenarios"], **SEARCH)
NO_SCENARIO = problems(texts={404: "There is no such scenario."})


@scenarios.get("/v1/scenarios")
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


@scenario_searches.post(
    "/v1/scenarios/{name}:recommend", response_model=RecommendResponse, responses={**BODY, **NO_SCENARIO, **problems(410)}
)
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
