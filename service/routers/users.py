"""Users: stored data and changes, which the next request uses."""

import datetime
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from recall import Recommender, RequestError, StoreDownError, User
from recall.store.group_commit import Receipt
from recall.store.users import profiles
from service.dependencies import (
    ADMIN,
    BODY,
    CHANGE,
    IdempotencyKey,
    Page,
    PathId,
    charge,
    live_of,
    request_id_of,
    token_after,
)
from service.errors import Kind, ProblemError, problems
from service.schemas import LONGEST_ID, MOST_CHANGES, Body, Column, Degradation, Id, Reply, Token, Value
from service.tokens import ListToken, digest

_LATEST = 253_402_300_799  # the last second of the year 9999


def _as_time(value: object) -> float:
    """Return seconds since 1970, from a number or a date and time with a zone."""
    if isinstance(value, str) and len(value) <= 64:
        try:
            moment = datetime.datetime.fromisoformat(value)
            value = moment.timestamp() if moment.tzinfo is not None else None
        except (ValueError, OverflowError):
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LATEST <= value <= _LATEST:
        raise PydanticCustomError(
            "time", "A time is a number of seconds since 1970, or a text with a zone such as 2026-01-31T18:00:00Z"
        )
    return float(value)


Time = Annotated[
    float,
    PlainValidator(_as_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": -_LATEST, "maximum": _LATEST},
                {"type": "string", "format": "date-time", "maxLength": 64},
            ]
        }
    ),
]


class Interaction(Body):
    """An item that a user interacted with."""

    user_id: Id = Field(description="An unknown user becomes known.")
    item_id: Id = Field(description="An item that the catalogue lacks is stored, and named in the answer.")
    time: Time | None = Field(
        default=None,
        description="In seconds since 1970 or as a date and time with a zone. It orders the user's items; an item without one "
        "is the latest.",
        examples=[1769882400, "2026-01-31T18:00:00Z"],
    )
    recommendation_id: Token | None = Field(
        default=None,
        description="Of the answer that the item was taken from, at most 30 days old: it counts for the hit rate of its "
        "scenario and version.",
    )


class Interactions(Body, json_schema_extra={"examples": [{"interactions": [{"user_id": "42", "item_id": "7"}]}]}):
    """Interactions to add in order, of each user all or none."""

    interactions: Annotated[list[Interaction], Field(min_length=1, max_length=MOST_CHANGES)]


class Taken(Reply):
    """The interactions are stored, and the next request uses them."""

    change: int = Field(description="Number of the last change; a later change of the same user has a higher one.")
    known: int = Field(description="How many of the users were known before.")
    unknown: list[str] = Field(description="Items that the catalogue lacks; they are stored, and used once it has them.")
    bundle: str = Field(description="Version of the bundle whose catalogue that is.", examples=["000001-4f2a90c1"])


_Features = Annotated[dict[Column, Value], Field(max_length=1000)]


_History = Annotated[list[Id], Field(max_length=1000)]


_Seen = Annotated[list[Id], Field(max_length=10_000)]


class UserPut(Body, json_schema_extra={"examples": [{"features": {"age": 31}, "history": ["12", "7"], "seen": ["3"]}]}):
    """A complete user: what is left out becomes unknown."""

    features: _Features = Field(default={}, description="Values of users-table columns.", examples=[{"age": 31}])
    history: _History = Field(default=[], description="Items, latest first; they also count as seen.", examples=[["12", "7"]])
    seen: _Seen = Field(default=[], description="Further items that the user has seen.", examples=[["3"]])


class UserUpsert(Body):
    """Parts of a user; what is left out does not change."""

    user_id: Id
    features: _Features = Field(
        default={},
        description="Values of users-table columns, which replace the previous ones; null for missing.",
        examples=[{"age": 31}],
    )
    history: _History | None = Field(
        default=None,
        description="Items, latest first, which replace the previous ones; they also count as seen.",
        examples=[["12"]],
    )
    seen: _Seen | None = Field(
        default=None, description="Further items that the user has seen, which replace the previous ones.", examples=[["3"]]
    )


class UsersUpsert(Body, json_schema_extra={"examples": [{"users": [{"user_id": "u9000", "features": {"age": 31}}]}]}):
    """Users to change or to add, each completely or not at all."""

    users: Annotated[list[UserUpsert], Field(min_length=1, max_length=MOST_CHANGES)]


class UsersDelete(Body, json_schema_extra={"examples": [{"user_ids": ["u9000"]}]}):
    """Users to delete."""

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_CHANGES)]


class UsersChanged(Reply):
    """The change is stored, and in all later answers."""

    change: int = Field(description="Number of the change; a later change of the same user has a higher one.")
    known: int = Field(description="How many of the users were known before.")
    warnings: list[str] = Field(
        default=[],
        description="Values that the model cannot use well: unknown ones, and numbers far out of range.",
    )


class UsersQuery(Page):
    """Query of known users."""

    prefix: str = Field(default="", max_length=LONGEST_ID, description="Only ids that begin with this.")
    search: str = Field(
        default="",
        max_length=LONGEST_ID,
        description="Beginning of ids, or of titles or words in them, in any case: the answer is one page, the best matches "
        "first; not together with `prefix` or `page_token`. Titles are values of the column that `/v1/info` names as "
        "`user_title`, as they were when the bundle was made.",
    )

    def ids(self, users: profiles.UserProfiles) -> list[str]:
        """Return the ids of the page, and one more if there are more."""
        found = users.ids(self.after if self.after is not None else self.prefix or None, self.count + 1)
        if self.prefix and self.after is None and users.get(self.prefix) is not None:
            found.insert(0, self.prefix)
        return [one for one in found if one.startswith(self.prefix)][: self.count + 1]


class KnownUser(Reply):
    """Record of a user."""

    user_id: str
    features: dict[str, Any] = Field(description="Values by column.", examples=[{"age": 31}])
    history: list[str] = Field(description="Items, latest first.", examples=[["12", "7"]])
    seen: list[str] = Field(description="All items that the user has seen, latest first.", examples=[["12", "7", "3"]])
    bundle: str = Field(description="Version of the bundle that the changes are applied to.", examples=["000001-4f2a90c1"])
    degraded: list[Degradation] = Field(description="Why later changes are not known; empty if all is well.")


class UserEntry(BaseModel):
    """A user on a page."""

    user_id: str
    title: str | None = Field(default=None, description="Of a user who was searched for; null if there is none.")


class UsersPage(Reply):
    """One page of the known users, in the order of the ids."""

    users: list[UserEntry]
    next_page_token: str = Field(description="The `page_token` of the next page; empty on the last one.")
    bundle: str = Field(description="Version of the bundle that the changes are applied to.", examples=["000001-4f2a90c1"])


reads, changes = APIRouter(tags=["users"], **ADMIN), APIRouter(tags=["users"], **CHANGE)


@reads.get("/v1/users")
async def list_users(request: Request, page: Annotated[UsersQuery, Query()]) -> UsersPage:
    """Return the known users in order of their ids.

    A user that is known throughout is on exactly one page.
    """
    count = page.count
    if page.search and (page.prefix or page.page_token):
        hint = "Leave out prefix and page_token, or search"
        raise RequestError("a search has one page, and no prefix", where="/search", hint=hint)

    def read(recommender: Recommender) -> tuple[list[UserEntry], str]:
        if page.search:
            found = [UserEntry(user_id=user_id, title=title) for user_id, title in recommender.users.find(page.search, count)]
        else:
            found = [UserEntry(user_id=user_id) for user_id in page.ids(recommender.users)]
        return found, recommender.bundle.manifest.version

    found, bundle = await live_of(request).ask(read)
    return UsersPage(
        users=found[:count],
        next_page_token=token_after(found[count - 1].user_id if len(found) > count else None),
        bundle=bundle,
        request_id=request_id_of(request),
    )


@reads.get("/v1/users/{user_id:path}", responses=problems(texts={404: "No such user is known."}))
async def get_user(request: Request, user_id: PathId) -> KnownUser:
    """Return the data of a user from the bundle and from later changes."""
    live = live_of(request)
    found, bundle = await live.ask(
        lambda recommender: (recommender.users.known([user_id])[user_id], recommender.bundle.manifest.version)
    )
    if found.record is None:
        if found.error:  # it is not known whether there is such a user
            raise StoreDownError(found.error)
        raise ProblemError(Kind.NO_USER, "No such user is known.")
    return KnownUser(
        user_id=user_id,
        features=dict(found.record.features),
        history=list(found.record.history),
        seen=list(found.record.seen),
        bundle=bundle,
        degraded=[
            *([Degradation(part="users", reason=found.error)] if found.error else []),
            *(Degradation(part=one.part, reason=one.reason) for one in live.degraded),
        ],
        request_id=request_id_of(request),
    )


@changes.post("/v1/users:upsert", responses=BODY)
async def upsert_users(request: Request, body: UsersUpsert, key: IdempotencyKey = None) -> UsersChanged:
    """Change parts of users, or add new ones, without training.

    The next request uses the change.
    """
    charge(request, len(body.users))
    given = [User(one.user_id, one.features, one.history, one.seen) for one in body.users]
    return await _changed(request, lambda users: users.upsert(given, key))


@changes.post("/v1/users:delete", responses=BODY)
async def delete_users(request: Request, body: UsersDelete, key: IdempotencyKey = None) -> UsersChanged:
    """Delete users, including those of the bundle; unknown ones are ignored."""
    charge(request, len(body.user_ids))
    return await _changed(request, lambda users: users.delete(body.user_ids, key))


@changes.put("/v1/users/{user_id:path}", responses=BODY)
async def put_user(request: Request, user_id: PathId, body: UserPut, key: IdempotencyKey = None) -> UsersChanged:
    """Replace a whole user, without training. The next request uses the change."""
    given = User(user_id, body.features, body.history, body.seen)
    return await _changed(request, lambda users: users.put(given, key))


@changes.delete("/v1/users/{user_id:path}")
async def delete_user(request: Request, user_id: PathId, key: IdempotencyKey = None) -> UsersChanged:
    """Delete a user, including one of the bundle; an unknown one is ignored."""
    return await _changed(request, lambda users: users.delete([user_id], key))


@changes.post("/v1/interactions", responses={**BODY, **problems(410)})
async def post_interactions(request: Request, body: Interactions, key: IdempotencyKey = None) -> Taken:
    """Add interactions to the histories and seen items of users.

    The next request includes them.
    """
    charge(request, len(body.interactions))
    live = live_of(request)
    lists = [
        (one.item_id, live.tokens.read(ListToken, one.recommendation_id, f"/interactions/{place}/recommendation_id"))
        for place, one in enumerate(body.interactions)
        if one.recommendation_id is not None
    ]
    given = [profiles.Interaction(one.user_id, one.item_id, one.time) for one in body.interactions]

    def take(recommender: Recommender) -> tuple[Taken, bool]:
        items = list(dict.fromkeys(one.item_id for one in given))
        receipt = recommender.users.log_interactions(given, key)
        rows = recommender.items.current().rows(items)
        unknown = [item_id for item_id, row in zip(items, rows.tolist(), strict=True) if row < 0]
        version, request_id = recommender.bundle.manifest.version, request_id_of(request)
        taken = Taken(change=receipt.sequence, known=receipt.known, unknown=unknown, bundle=version, request_id=request_id)
        return taken, receipt.repeated

    taken, repeated = await live.change_users(take)
    for item_id, of in () if repeated else lists:
        live.meters.attributed.labels(of.scenario, of.bundle, "yes" if digest(item_id) in of.listed else "no").inc()
    return taken


async def _changed(request: Request, act: Callable[[profiles.UserProfiles], Receipt]) -> UsersChanged:
    receipt = await live_of(request).change_users(lambda recommender: act(recommender.users))
    return UsersChanged(
        change=receipt.sequence,
        known=receipt.known,
        warnings=list(receipt.warnings),
        request_id=request_id_of(request),
    )
