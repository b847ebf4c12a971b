"""Many requests at once, each answered or refused by itself."""

import time
from collections.abc import Sequence
from typing import Annotated

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from recall.answer import Recommendations
from recall.errors import RequestError
from recall.recommender import Recommender
from recall.request import Request as Asked
from service.answering import Answer, basis_of
from service.context import caller_of, live_of, note_time
from service.live import Live
from service.openapi import body_of, problems
from service.parsing import read_body
from service.problems import ProblemDocument, ProblemError, as_problem, document
from service.wire import RecommendRequest, RecommendResponse, parse_request, recommendations_of

MOST_REQUESTS = 256


class BatchRequest(BaseModel):
    """Requests that have nothing to do with each other."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"requests": [{"user_id": "42", "n": 10}, {"user_id": "43", "n": 10}]}]},
    )

    requests: Annotated[list[SkipValidation[RecommendRequest]], Field(min_length=1, max_length=MOST_REQUESTS)] = Field(
        description="Each is answered as it would be alone; one that is wrong is refused alone."
    )


class BatchAnswer(BaseModel):
    """What became of one of the requests."""

    status: int = Field(description="What it would have been answered with alone.", examples=[200])
    answer: RecommendResponse | None = Field(default=None, description="Only with status 200.")
    problem: ProblemDocument | None = Field(default=None, description="Only with another status.")


class BatchResponse(Answer):
    """An answer or a problem for each request, in their order, all from one bundle and one moment of its items."""

    answers: list[BatchAnswer]


async def recommend_batch(request: Request) -> Response:
    """The best items for up to 256 users. The status is 200 also where single requests could not be answered."""
    start = time.perf_counter()
    body = await read_body(request, BatchRequest)
    found: list[Asked | ProblemError] = [_parsed(one) for one in body.requests]
    parsed = time.perf_counter()
    note_time(request, "parse", parsed - start)
    live = live_of(request)
    written, told = await live.ask(lambda recommender: _answered(request, recommender, found), caller_of(request))
    for one in told:
        live.meters.answered(one)
    note_time(request, "recommend", time.perf_counter() - parsed)
    return Response(written, media_type="application/json")


def add_batch_routes(app: FastAPI) -> None:
    """Answer the path for many requests."""
    app.add_api_route(
        "/v1/recommend:batch",
        recommend_batch,
        methods=["POST"],
        operation_id="recommendBatch",
        tags=["recommendations"],
        response_class=Response,
        responses={
            200: {"model": BatchResponse, "description": "What became of each request."},
            **problems(400, 408, 413, 415, 422, 503),
        },
        openapi_extra=body_of(BatchRequest.__name__),
    )


def _parsed(body: object) -> Asked | ProblemError:
    try:
        return parse_request(body)
    except ProblemError as problem:
        return problem


def _answered(
    request: Request, recommender: Recommender, found: Sequence[Asked | ProblemError]
) -> tuple[bytes, list[Recommendations]]:
    """The JSON form of BatchResponse, made on a search thread, for it may be long; and the answers in it."""
    answers = iter(recommender.recommend_each([one for one in found if isinstance(one, Asked)]))
    live = live_of(request)
    outcomes = [one if isinstance(one, ProblemError) else _told(live, next(answers)) for one in found]
    told = [one for one in outcomes if isinstance(one, Recommendations)]
    basis = basis_of(
        request,
        recommender.bundle.manifest.version,
        told[0].sequence if told else recommender.items.current().sequence,
        list(dict.fromkeys(part for one in told for part in one.degraded)),
        exact=all(one.exact for one in told),
    )
    return orjson.dumps({"answers": [_outcome(one, basis["request_id"]) for one in outcomes], **basis}), told


def _told(live: Live, answer: Recommendations | RequestError) -> Recommendations | RequestError:
    return live.told(answer) if isinstance(answer, Recommendations) else answer


def _outcome(one: Recommendations | RequestError | ProblemError, request_id: str) -> dict[str, object]:
    if isinstance(one, Recommendations):
        return {"status": 200, "answer": {**recommendations_of(one), "request_id": request_id}}
    problem = as_problem(one) if isinstance(one, RequestError) else one
    told = document(problem.kind, problem.detail, problem.faults, request_id)
    return {"status": problem.kind.status, "problem": told}
