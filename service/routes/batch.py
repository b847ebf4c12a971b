"""Many requests at once, each answered or refused by itself."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from recall.errors import RequestError
from recall.serving.recommender import Recommender
from recall.serving.request import Request as Asked
from recall.serving.response import Recommendations
from recall.store.items.snapshot import Catalogue
from service.answering import Answer, basis_of
from service.context import caller_of, live_of, note_time, request_id_of
from service.live import Live
from service.openapi import add_question
from service.parsing import read_body
from service.problems import ProblemDocument, ProblemError, as_problem, document
from service.security.charging import charge
from service.wire import RecommendRequest, RecommendResponse, parse_request, recommendations_of

MOST_REQUESTS = 256
_AT_ONCE = 16
"""Requests that are answered before others have their turn."""


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
    charge(request, len(body.requests))
    batch = _Batch(live_of(request), [_parsed(one) for one in body.requests], request_id_of(request))
    parsed = time.perf_counter()
    note_time(request, "parse", parsed - start)
    bundle = (await live_of(request).ask_in_turns(batch.parts(), caller_of(request)))[0]
    note_time(request, "recommend", time.perf_counter() - parsed)
    return batch.response(request, bundle)


def add_batch_routes(app: FastAPI) -> None:
    """Answer the path for many requests."""
    bodies, text = (BatchRequest, BatchResponse), "What became of each request."
    add_question(app, "/v1/recommend:batch", recommend_batch, "recommendBatch", "recommendations", bodies, text)


def _parsed(body: object) -> Asked | ProblemError:
    try:
        return parse_request(body)
    except ProblemError as problem:
        return problem


class _Batch:
    """Requests that are answered and written a few at a time, all from one moment of the items."""

    def __init__(self, live: Live, found: Sequence[Asked | ProblemError], request_id: str) -> None:
        self._live = live
        self._found = found
        self._request_id = request_id
        self._catalogue: Catalogue | None = None
        self._answers: list[Recommendations] = []
        self._written: list[orjson.Fragment] = []

    def parts(self) -> Iterator[Callable[[Recommender], str]]:
        """What is to be asked, one after another; each gives the version of the bundle."""
        for first in range(0, len(self._found), _AT_ONCE):
            yield partial(self._answer, self._found[first : first + _AT_ONCE])

    def response(self, request: Request, bundle: str) -> Response:
        """The JSON form of BatchResponse, once all parts were asked."""
        assert self._catalogue is not None  # there is at least one part
        for answer in self._answers:
            self._live.meters.answered(answer)
        degraded = list(dict.fromkeys(part for answer in self._answers for part in answer.degraded))
        exact = all(answer.exact for answer in self._answers)
        basis = basis_of(request, bundle, self._catalogue.sequence, degraded, exact=exact)
        return Response(orjson.dumps({"answers": self._written, **basis}), media_type="application/json")

    def _answer(self, found: Sequence[Asked | ProblemError], recommender: Recommender) -> str:
        if self._catalogue is None:
            self._catalogue = recommender.items.current()
        asked = [one for one in found if isinstance(one, Asked)]
        answers = iter(recommender.recommend_each(asked, self._catalogue))
        for one in found:
            outcome = one if isinstance(one, ProblemError) else next(answers)
            if isinstance(outcome, Recommendations):
                outcome = self._live.told(outcome)
                self._answers.append(outcome)
            self._written.append(orjson.Fragment(orjson.dumps(_outcome(outcome, self._request_id))))
        return recommender.bundle.manifest.version


def _outcome(one: Recommendations | RequestError | ProblemError, request_id: str) -> dict[str, object]:
    if isinstance(one, Recommendations):
        return {"status": 200, "answer": {**recommendations_of(one), "request_id": request_id}}
    problem = as_problem(one) if isinstance(one, RequestError) else one
    told = document(problem.kind, problem.detail, problem.faults, request_id)
    return {"status": problem.kind.status, "problem": told}
