"""The items that there are: one of them, and all of them page by page."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from service.answering import Answer, answered, respond
from service.openapi import problems
from service.paging import page_in, page_parameters, token_after
from service.paths import id_in, id_parameter
from service.problems import Kind, ProblemError
from service.query import check_names


class CatalogueEntry(BaseModel):
    """One item as the catalogue holds it."""

    item_id: str
    features: dict[str, Any] = Field(description="Values by column; what is missing is left out.", examples=[{"price": 9.5}])


class ItemResponse(Answer, CatalogueEntry):
    """One item."""


class ItemsResponse(Answer):
    """One page of the catalogue, in order of the ids."""

    items: list[CatalogueEntry]
    next_page_token: str = Field(description="Give it as `page_token` for the page that follows; empty on the last one.")


async def get_item(request: Request) -> Response:
    """An item of the catalogue, with its live changes."""
    item_id = id_in(request, "item_id")
    check_names(request, ())
    found = await answered(request, "read", lambda recommender: recommender.item(item_id))
    if not found.items:
        raise ProblemError(Kind.NOT_FOUND, "The catalogue lacks this item.")
    (item,) = found.items
    return respond(request, found, {"item_id": item.item_id, "features": item.features})


async def list_items(request: Request) -> Response:
    """The items of the catalogue in order of their ids. One that is there all the while stands on exactly one page."""
    count, after = page_in(request)
    found = await answered(request, "read", lambda recommender: recommender.list_items(count, after))
    items = [{"item_id": one.item_id, "features": one.features} for one in found.items]
    return respond(request, found, {"items": items, "next_page_token": token_after(found.after)})


def add_catalogue_routes(app: FastAPI) -> None:
    """Answer the paths that show items."""
    app.add_api_route(
        "/v1/items",
        list_items,
        operation_id="listItems",
        tags=["items"],
        response_class=Response,
        responses={200: {"model": ItemsResponse, "description": "One page."}, **problems(422, 503)},
        openapi_extra={"parameters": page_parameters("Items")},
    )
    app.add_api_route(
        "/v1/items/{item_id}",
        get_item,
        operation_id="getItem",
        tags=["items"],
        response_class=Response,
        responses={
            200: {"model": ItemResponse, "description": "The item."},
            **problems(422, 503, texts={404: "The catalogue lacks the item."}),
        },
        openapi_extra={"parameters": [id_parameter("item_id")]},
    )
