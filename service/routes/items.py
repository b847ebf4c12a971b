"""Changing the catalogue: the paths for items, and what goes over the wire for them."""

from typing import Annotated

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from recall.live.following import Receipt
from service.context import live_of, request_id_of
from service.idempotency import KEY_PARAMETER, key_of
from service.openapi import body_of, problems
from service.parsing import read_body
from service.paths import id_in, id_parameter
from service.problems import Fault, Kind, ProblemError
from service.security.charging import charge
from service.wire import Column, Id, Value

MOST_ITEMS = 1000


class ItemUpsert(BaseModel):
    """One item, whole: a column that is left out is missing."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    item_id: Id
    features: dict[Column, Value] = Field(default={}, description="Values of items-table columns.", examples=[{"price": 9.5}])


class ItemsUpsert(BaseModel):
    """Items to add, or to put in the place of those with the same ids: all of them or none."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"items": [{"item_id": "i9000", "features": {"price": 9.5}}]}]},
    )

    items: Annotated[list[ItemUpsert], Field(min_length=1, max_length=MOST_ITEMS)]


class Changed(BaseModel):
    """The change is on disk, and in every answer to a request that is sent from now on, whichever worker it comes from."""

    sequence: int = Field(description="Answers of this sequence or a later one have seen the change.")
    token: str = Field(
        description="Names the change; opaque. A request that sends it as X-Recall-Token is answered when the change is served."
    )
    known: int = Field(description="How many of the items the catalogue held before.")
    warnings: list[str] = Field(
        default=[], description="What the model can make little of: values that it was not trained on, numbers far out."
    )
    request_id: str = Field(description="The same as the X-Request-ID header.")


async def upsert_items(request: Request) -> Changed:
    """Add items, or replace them. They are served from the next request on, without training."""
    asked = await read_body(request, ItemsUpsert)
    charge(request, len(asked.items))
    items = {one.item_id: one.features for one in asked.items}
    if len(items) < len(asked.items):
        seen: set[str] = set()
        twice = next(at for at, one in enumerate(asked.items) if one.item_id in seen or seen.add(one.item_id))  # type: ignore[func-returns-value]
        raise ProblemError(Kind.INVALID, "An item is there twice.", [Fault(f"/items/{twice}/item_id", "Give each item once")])
    key = key_of(request)
    return _changed(request, await live_of(request).change(lambda live: live.upsert(items, key)))


async def delete_item(request: Request) -> Changed:
    """Delete an item; one that is not there stays deleted. Its id is the rest of the path, percent-encoded."""
    item_id = id_in(request, "item_id")
    key = key_of(request)
    return _changed(request, await live_of(request).change(lambda live: live.delete([item_id], key)))


def add_item_routes(app: FastAPI) -> None:
    """Answer the paths for items."""
    app.add_api_route(
        "/v1/items:upsert",
        upsert_items,
        methods=["POST"],
        operation_id="upsertItems",
        tags=["items"],
        responses=problems(400, 408, 413, 415, texts=_CHANGE),
        openapi_extra={**body_of(ItemsUpsert.__name__), "parameters": [KEY_PARAMETER]},
    )
    app.add_api_route(
        "/v1/items/{item_id}",
        delete_item,
        methods=["DELETE"],
        operation_id="deleteItem",
        tags=["items"],
        responses=problems(texts=_CHANGE),
        openapi_extra={"parameters": [id_parameter("item_id"), KEY_PARAMETER]},
    )


def _changed(request: Request, receipt: Receipt) -> Changed:
    return Changed(**receipt._asdict(), token=receipt.token, warnings=list(receipt.warnings), request_id=request_id_of(request))


_CHANGE = {
    409: "One bundle is served by itself, or nothing can be written there; items cannot be changed.",
    422: "A value is wrong; `errors` names it. Nothing was changed.",
    500: "The change could not be stored, and was not acknowledged.",
    503: "No bundle is served, or another process is changing items; Retry-After says when to come back.",
    507: "There is no room to store the change.",
}
