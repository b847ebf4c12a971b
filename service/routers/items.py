"""Items: the catalogue, similar items, and live changes."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from recall import Recommender, RequestError, Similar
from recall import Request as Asked
from recall.serving.batch import find_items
from recall.serving.request import Page as Items
from recall.store.group_commit import Receipt
from recall.store.items.catalog import Catalog
from service.body import scored
from service.dependencies import (
    BODY,
    CHANGE,
    READ_CHANGES,
    SEARCH,
    CountQuery,
    IdempotencyKey,
    Page,
    PathId,
    answered,
    charge,
    live_of,
    request_id_of,
    respond,
    token_after,
)
from service.errors import FaultDocument, Kind, ProblemError, problems
from service.schemas import MOST_CHANGES, Answer, Body, Column, Id, Listing, Reply, Selection, SimilarItem, Value


class CatalogueEntry(BaseModel):
    """One item of the catalogue."""

    item_id: str
    features: dict[str, Any] = Field(description="Values by column, without missing ones.", examples=[{"price": 9.5}])


class ItemResponse(Answer, CatalogueEntry):
    """One item."""


class ItemsResponse(Answer):
    """One page of the catalogue, in the order of the ids."""

    items: list[CatalogueEntry]
    next_page_token: str = Field(description="The `page_token` of the next page; empty on the last one.")


class ItemUpsert(Body):
    """One complete item: a column that is left out is missing."""

    item_id: Id
    features: dict[Column, Value] = Field(default={}, description="Values of items-table columns.", examples=[{"price": 9.5}])


class ItemsUpsert(Body, json_schema_extra={"examples": [{"items": [{"item_id": "i9000", "features": {"price": 9.5}}]}]}):
    """Items to insert or replace, all or none."""

    items: Annotated[list[ItemUpsert], Field(min_length=1, max_length=MOST_CHANGES)]


class ItemsDelete(Body, json_schema_extra={"examples": [{"item_ids": ["i9000"]}]}):
    """Items to delete, all or none."""

    item_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_CHANGES)]


class Changed(Reply):
    """The change is on disk, and in all later answers of all workers."""

    sequence: int = Field(description="Answers with this sequence or a higher one include the change.")
    token: str = Field(
        description="Opaque name of the change. A request that sends it as X-Recall-Token waits until the change is served."
    )
    known: int = Field(description="How many of the items were in the catalogue before.")
    warnings: list[str] = Field(
        default=[],
        description="Values that the model cannot use well: unknown ones, and numbers far out of range.",
    )


class SimilarRequest(Selection, Listing, json_schema_extra={"examples": [{"n": 5, "filter": {"genre": "noir"}}]}):
    """Number and choice of the items that are wanted; all optional."""


class SimilarResponse(Answer):
    """The items most similar to an item, most similar first."""

    item_id: str = Field(description="The given item, which is not among them.")
    items: list[SimilarItem]
    warnings: list[str] = Field(description="Parts of the request that had no effect.")


class ItemsQuery(Page):
    """Query of the catalogue."""

    search: str = Field(
        default="",
        max_length=256,
        description="Part of titles or ids, in any case: the answer is one page, the best matches first. Titles are values of "
        "the column that `/v1/info` names.",
    )


searches, reads = APIRouter(tags=["items"], **SEARCH), APIRouter(tags=["items"], **READ_CHANGES)
changes = APIRouter(tags=["items"], **CHANGE)
MISSING: dict[int | str, dict[str, Any]] = problems(texts={404: "The catalogue lacks the item."})


@searches.get("/v1/items/{item_id:path}/similar", response_model=SimilarResponse, responses=MISSING)
async def get_similar_items(request: Request, item_id: PathId, query: CountQuery) -> Response:
    """Return the items most similar to an item."""
    return await _similar(request, item_id, query.request())


@searches.post("/v1/items/{item_id:path}/similar", response_model=SimilarResponse, responses={**MISSING, **BODY})
async def find_similar_items(request: Request, item_id: PathId, body: SimilarRequest) -> Response:
    """Return the most similar items among those that a filter or list allows."""
    return await _similar(request, item_id, body.request())


@reads.get("/v1/items", response_model=ItemsResponse)
async def list_items(request: Request, page: Annotated[ItemsQuery, Query()]) -> Response:
    """Return the items of the catalogue in order of their ids.

    An item that exists throughout is on exactly one page.
    """

    def read(recommender: Recommender) -> Items:
        if page.search:
            return find_items(recommender, page.search, page.count)
        return recommender.list_items(page.count, page.after)

    found = await answered(request, "read", read)
    return respond(request, found, {"items": found.items, "next_page_token": token_after(found.after)})


@reads.get("/v1/items/{item_id:path}", response_model=ItemResponse, responses=MISSING)
async def get_item(request: Request, item_id: PathId) -> Response:
    """Return an item of the catalogue, with its live changes."""
    found = await answered(request, "read", lambda recommender: recommender.item(item_id))
    if not found.items:
        raise ProblemError(Kind.NO_ITEM, "The catalogue lacks this item.")
    return respond(request, found, found.items[0]._asdict())


@changes.post("/v1/items:upsert", responses=BODY)
async def upsert_items(request: Request, body: ItemsUpsert, key: IdempotencyKey = None) -> Changed:
    """Insert or replace items, without training.

    They are served from the next request on.
    """
    charge(request, len(body.items))
    items: dict[str, dict[str, Any]] = {}
    for at, one in enumerate(body.items):
        if one.item_id in items:
            fault = FaultDocument(f"/items/{at}/item_id", "Give each item only once")
            raise ProblemError(Kind.INVALID, "An item is given twice.", [fault])
        items[one.item_id] = one.features
    return await _changed(request, lambda live: live.upsert(items, key))


@changes.post("/v1/items:delete", responses=BODY)
async def delete_items(request: Request, body: ItemsDelete, key: IdempotencyKey = None) -> Changed:
    """Delete items; missing ones are ignored."""
    charge(request, len(body.item_ids))
    return await _changed(request, lambda live: live.delete(body.item_ids, key))


@changes.delete("/v1/items/{item_id:path}")
async def delete_item(request: Request, item_id: PathId, key: IdempotencyKey = None) -> Changed:
    """Delete an item; a missing one is ignored."""
    return await _changed(request, lambda live: live.delete([item_id], key))


async def _changed(request: Request, act: Callable[[Catalog], Receipt]) -> Changed:
    receipt = await live_of(request).change_items(act)
    warnings = list(receipt.warnings)
    return Changed(**receipt._asdict(), token=receipt.token, warnings=warnings, request_id=request_id_of(request))


async def _similar(request: Request, item_id: str, asked: Asked) -> Response:
    def ask(recommender: Recommender) -> Similar:
        try:
            return recommender.similar(item_id, asked)
        except RequestError as error:
            if error.where == "/item_id":  # it is in the path
                raise ProblemError(Kind.NO_ITEM, "The catalogue lacks this item.") from None
            raise

    found = await answered(request, "search", ask)
    items = scored(found.items, found.fields)
    return respond(request, found, {"item_id": found.item_id, "items": items, "warnings": found.warnings})
