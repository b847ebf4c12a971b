"""The items that there are: one of them, and all of them page by page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from service.answering import Answer, answered, respond
from service.openapi import problems
from service.paths import id_in, id_parameter
from service.problems import Fault, Kind, ProblemError
from service.query import check_names, parameter, whole_number

USUAL_PAGE, LARGEST_PAGE = 100, 1000
_LONGEST_TOKEN = 8192
_CHECK = 4  # bytes


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
    check_names(request, ("page_size", "page_token"))
    count = min(whole_number(request, "page_size", USUAL_PAGE, 0), LARGEST_PAGE) or USUAL_PAGE
    after = _after(request.query_params.get("page_token", ""))
    found = await answered(request, "read", lambda recommender: recommender.list_items(count, after))
    items = [{"item_id": one.item_id, "features": one.features} for one in found.items]
    return respond(request, found, {"items": items, "next_page_token": "" if found.after is None else _token(found.after)})


def add_catalogue_routes(app: FastAPI) -> None:
    """Answer the paths that show items."""
    size = parameter(
        "page_size",
        f"Items on a page, {USUAL_PAGE} when it is left out or 0; no page holds more than {LARGEST_PAGE}.",
        {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    )
    token = parameter(
        "page_token", "The `next_page_token` of the page before.", {"type": "string", "maxLength": _LONGEST_TOKEN}
    )
    app.add_api_route(
        "/v1/items",
        list_items,
        operation_id="listItems",
        tags=["items"],
        response_class=Response,
        responses={200: {"model": ItemsResponse, "description": "One page."}, **problems(422, 503)},
        openapi_extra={"parameters": [size, token]},
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


def _token(item_id: str) -> str:
    """An opaque token for the page after an item; it holds what tells it from one that was mangled on the way."""
    encoded = item_id.encode()
    return urlsafe_b64encode(blake2b(encoded, digest_size=_CHECK).digest() + encoded).decode().rstrip("=")


def _after(token: str) -> str | None:
    """The item that a page begins after; None for the first page. Raises ProblemError when the token is none of ours."""
    if not token:
        return None
    try:
        after = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))[_CHECK:].decode()
    except ValueError:
        after = ""
    if _token(after) != token:
        detail = "page_token is not one that this service gave."
        raise ProblemError(Kind.INVALID, detail, [Fault("", detail)])
    return after
