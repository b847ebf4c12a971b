"""Scores of items that a client has already, and the vectors that users are searched with."""

from dataclasses import replace
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from recall.serving.request import Request as Asked
from recall.serving.response import Scores, UserVector
from service.answering import CallerAnswer, answered, respond
from service.openapi import add_question
from service.parsing import read_body
from service.wire import MOST_RESULTS, Caller, Dial, Id, Scoring


class ScoreRequest(Scoring):
    """Who asks, and the items to score for them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42", "items": ["12", "7"]}]})

    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_RESULTS)] = Field(
        description="Items to score, in any order and with repeats; nothing is searched or left out."
    )


class ItemScore(BaseModel):
    """The score of one item."""

    item_id: str
    score: float = Field(description="What `/v1/recommend` would list the item with.")
    probability: float | None = Field(
        description="That the item is taken, by the model's full score; null unless the model was trained by log loss and the "
        "request has neither boosts nor another `popularity` than 1."
    )


class ScoreResponse(CallerAnswer):
    """Scores in the order in which the items were given."""

    items: list[ItemScore]
    missing: list[str] = Field(description="Items that the catalogue lacks, each once.")


class UserVectorRequest(Caller):
    """Who asks for their vector."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42"}, {"features": {"age": 31}, "popularity": 0.5}]})

    popularity: Dial = 1.0

    def request(self) -> Asked:
        """What is asked of the recommender."""
        return replace(super().request(), popularity=self.popularity)


class UserVectorResponse(CallerAnswer):
    """What a request is searched with."""

    vector: list[float] = Field(description="Its inner product with an item's vector is the item's score.")


async def score(request: Request) -> Response:
    """The scores of given items for one user, such as candidates that another system has found."""
    asked = await read_body(request, ScoreRequest)
    found = await answered(request, "score", lambda recommender: recommender.score(asked.request(), asked.items))
    likely = found.probabilities or [None] * len(found.items)
    items = [
        {"item_id": one.item_id, "score": one.score, "probability": probability}
        for one, probability in zip(found.items, likely, strict=True)
    ]
    return respond(request, found, {"items": items, "missing": found.missing, **_caller(found)})


async def user_vector(request: Request) -> Response:
    """The vector that a user is searched with, for searches elsewhere."""
    asked = await read_body(request, UserVectorRequest)
    found = await answered(request, "encode", lambda recommender: recommender.user_vector(asked.request()))
    return respond(request, found, {"vector": found.vector, **_caller(found)})


def add_score_routes(app: FastAPI) -> None:
    """Answer the paths for scores and vectors."""
    for path, endpoint, operation, body, answer, text in (
        ("/v1/score", score, "score", ScoreRequest, ScoreResponse, "The scores."),
        ("/v1/user-vector", user_vector, "getUserVector", UserVectorRequest, UserVectorResponse, "The vector."),
    ):
        add_question(app, path, endpoint, operation, "recommendations", (body, answer), text)


def _caller(found: Scores | UserVector) -> dict[str, object]:
    return {
        "user": found.user,
        "unknown": found.unknown,
        "warnings": found.warnings,
        "user_offset": found.user_offset,
    }
