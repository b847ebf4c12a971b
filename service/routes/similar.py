"""Items that are like one item."""

from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from recall.errors import RequestError
from recall.serving.recommender import Recommender
from recall.serving.request import Request as Asked
from recall.serving.response import Similar
from service.answering import Answer, answered, respond
from service.openapi import body_of, problems
from service.parsing import read_body
from service.paths import id_in, id_parameter
from service.problems import Kind, ProblemError
from service.query import check_names, parameter, whole_number
from service.wire import MOST_RESULTS, Column, Id

_USUAL = 10


class SimilarRequest(BaseModel):
    """How many items are wanted, and which may be returned. Everything may be left out."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, json_schema_extra={"examples": [{"n": 5, "filter": {"genre": "noir"}}]}
    )

    n: int = Field(default=_USUAL, ge=1, le=MOST_RESULTS, description="Number of items wanted.")
    exclude: Annotated[list[Id], Field(max_length=10_000)] = Field(
        default=[], description="Items to leave out.", examples=[["3"]]
    )
    filter: Annotated[dict[Column, Any], Field(max_length=1000)] | None = Field(
        default=None, description="What the items' columns must say, as in `/v1/recommend`.", examples=[{"genre": "noir"}]
    )
    allow: Annotated[list[Id], Field(max_length=10_000)] | None = Field(
        default=None, description="The only items that may be returned; all when left out.", examples=[["3", "12"]]
    )


class SimilarItem(BaseModel):
    """An item, and how much it is like the one asked about."""

    item_id: str
    score: float = Field(
        description="Cosine of the two items' vectors, -1 to 1; what an item scores for everyone plays no part."
    )


class SimilarResponse(Answer):
    """The items most like one item, most alike first."""

    item_id: str = Field(description="The item asked about, which is not among them.")
    items: list[SimilarItem]
    warnings: list[str] = Field(description="Parts of the request that had no effect.")


async def get_similar(request: Request) -> Response:
    """The items most like an item."""
    item_id = id_in(request, "item_id")
    check_names(request, ("n",))
    return await _answer(request, item_id, Asked(n=whole_number(request, "n", _USUAL, 1, MOST_RESULTS)))


async def find_similar(request: Request) -> Response:
    """The same among the items that a filter or a list leaves."""
    item_id = id_in(request, "item_id")
    check_names(request, ())
    asked = await read_body(request, SimilarRequest)
    allow = None if asked.allow is None else tuple(asked.allow)
    return await _answer(request, item_id, Asked(n=asked.n, exclude=tuple(asked.exclude), filter=asked.filter, allow=allow))


def add_similar_routes(app: FastAPI) -> None:
    """Answer the paths for similar items."""
    answered: dict[int | str, dict[str, Any]] = {200: {"model": SimilarResponse, "description": "The items most alike."}}
    strange = {404: "The catalogue lacks the item."}
    number = parameter(
        "n", "Number of items wanted.", {"type": "integer", "minimum": 1, "maximum": MOST_RESULTS, "default": _USUAL}
    )
    app.add_api_route(
        "/v1/items/{item_id}/similar",
        get_similar,
        operation_id="getSimilarItems",
        tags=["items"],
        response_class=Response,
        responses={**answered, **problems(422, 503, texts=strange)},
        openapi_extra={"parameters": [id_parameter("item_id"), number]},
    )
    app.add_api_route(
        "/v1/items/{item_id}/similar",
        find_similar,
        methods=["POST"],
        operation_id="findSimilarItems",
        tags=["items"],
        response_class=Response,
        responses={**answered, **problems(400, 408, 413, 415, 422, 503, texts=strange)},
        openapi_extra={**body_of(SimilarRequest.__name__), "parameters": [id_parameter("item_id")]},
    )


async def _answer(request: Request, item_id: str, asked: Asked) -> Response:
    found = await answered(request, "search", lambda recommender: _similar(recommender, item_id, asked))
    items = [{"item_id": one.item_id, "score": one.score} for one in found.items]
    return respond(request, found, {"item_id": found.item_id, "items": items, "warnings": found.warnings})


def _similar(recommender: Recommender, item_id: str, asked: Asked) -> Similar:
    try:
        return recommender.similar(item_id, asked)
    except RequestError as error:
        if error.where == "/item_id":  # which is in the path
            raise ProblemError(Kind.NOT_FOUND, "The catalogue lacks this item.") from None
        raise
