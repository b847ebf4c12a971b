"""Changing the catalogue: the paths for items, and what goes over the wire for them."""

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.body import read_json
from service.context import live_of, request_id_of, settings_of
from service.faults import fault_of
from service.openapi import body_of, problems
from service.problems import Fault, Kind, ProblemError, pointer
from service.wire import Column, Id, Value

MOST_ITEMS = 1000

_PATH = b"/v1/items/"
_KEY = "idempotency-key"
_LONGEST_KEY = 255
_DOCUMENTED_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A name for this change. Whoever got no answer sends it again with the same key: it is not taken twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST_KEY, "pattern": "^[A-Za-z0-9._:-]+$"},
}


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
    """The change is on disk, and in every answer that follows."""

    sequence: int = Field(description="Answers of this sequence or a later one have seen the change.")
    known: int = Field(description="How many of the items the catalogue held before.")
    request_id: str = Field(description="The same as the X-Request-ID header.")


async def upsert_items(request: Request) -> Changed:
    """Add items, or replace them. They are served from the next request on, without training."""
    settings = settings_of(request)
    body = await read_json(request, settings.max_body, settings.patience)
    try:
        asked = ItemsUpsert.model_validate(body)
    except ValidationError as error:
        faults = [_fault(entry) for entry in error.errors(include_url=False, include_input=False)]
        raise ProblemError(Kind.INVALID, "Some values are wrong.", faults) from None
    items = {one.item_id: one.features for one in asked.items}
    if len(items) < len(asked.items):
        seen: set[str] = set()
        twice = next(at for at, one in enumerate(asked.items) if one.item_id in seen or seen.add(one.item_id))  # type: ignore[func-returns-value]
        raise ProblemError(Kind.INVALID, "An item is there twice.", [Fault(f"/items/{twice}/item_id", "Give each item once")])
    key = _key(request)
    receipt = await live_of(request).change(lambda live: live.upsert(items, key))
    return Changed(**receipt._asdict(), request_id=request_id_of(request))


async def delete_item(request: Request) -> Changed:
    """Delete an item; one that is not there stays deleted. Its id is the rest of the path, percent-encoded."""
    # the raw path: what the server decodes of bytes that are no UTF-8 would be another id
    _, _, encoded = request.scope["raw_path"].partition(_PATH)
    try:
        item_id = TypeAdapter(Id).validate_python(unquote_to_bytes(encoded).decode())
    except (UnicodeDecodeError, ValidationError):
        raise ProblemError(
            Kind.INVALID, "The path names no item.", [Fault("", "An id is UTF-8 of 1 to 1024 characters")]
        ) from None
    key = _key(request)
    receipt = await live_of(request).change(lambda live: live.delete([item_id], key))
    return Changed(**receipt._asdict(), request_id=request_id_of(request))


def add_item_routes(app: FastAPI) -> None:
    """Answer the paths for items."""
    app.add_api_route(
        "/v1/items:upsert",
        upsert_items,
        methods=["POST"],
        operation_id="upsertItems",
        tags=["items"],
        responses=problems(400, 408, 413, 415, texts=_CHANGE),
        openapi_extra={**body_of(ItemsUpsert.__name__), "parameters": [_DOCUMENTED_KEY]},
    )
    item_id = {
        "name": "item_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 1024},
    }
    app.add_api_route(
        "/v1/items/{item_id:path}",
        delete_item,
        methods=["DELETE"],
        operation_id="deleteItem",
        tags=["items"],
        responses=problems(texts=_CHANGE),
        openapi_extra={"parameters": [item_id, _DOCUMENTED_KEY]},
    )
    route = app.routes[-1]
    assert isinstance(route, APIRoute)
    route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)  # an id may hold line breaks, and end with one


_CHANGE = {
    409: "One bundle is served by itself; its items cannot be changed.",
    422: "A value is wrong; `errors` names it. Nothing was changed.",
    500: "The change could not be stored, and was not acknowledged.",
    503: "No bundle is served, or another process is changing items; Retry-After says when to come back.",
    507: "There is no room to store the change.",
}


def _fault(entry: Mapping[str, Any]) -> Fault:
    if entry["type"] == "model_type" and entry["loc"]:
        return Fault(pointer(entry["loc"]), "An object is wanted here")
    return fault_of(entry, ItemUpsert.model_fields if len(entry["loc"]) > 1 else ItemsUpsert.model_fields)


def _key(request: Request) -> str | None:
    key = request.headers.get(_KEY)
    if key is not None and not re.fullmatch(r"[A-Za-z0-9._:-]{1,255}", key):
        raise ProblemError(Kind.INVALID, f"An Idempotency-Key is 1 to {_LONGEST_KEY} letters, digits and . _ : -")
    return key
