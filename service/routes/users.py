"""Changing users: the paths for users, and what goes over the wire for them."""

from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from recall.errors import StoreDownError
from recall.stores.known import User, UserReceipt
from service.context import live_of, request_id_of
from service.idempotency import KEY_PARAMETER, key_of
from service.openapi import body_of, problems
from service.paging import page_in, page_parameters, token_after
from service.parsing import read_body
from service.paths import id_in, id_parameter
from service.problems import Kind, ProblemError
from service.security.charging import charge
from service.wire import Column, Degradation, Id, Value

MOST_USERS = 1000

_Features = Annotated[dict[Column, Value], Field(max_length=1000)]
_History = Annotated[list[Id], Field(max_length=1000)]
_Seen = Annotated[list[Id], Field(max_length=10_000)]


class UserPut(BaseModel):
    """A user, whole: what is left out is not known any more."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"features": {"age": 31}, "history": ["12", "7"], "seen": ["3"]}]},
    )

    features: _Features = Field(default={}, description="Values of users-table columns.", examples=[{"age": 31}])
    history: _History = Field(default=[], description="Items, latest first; they count as seen.", examples=[["12", "7"]])
    seen: _Seen = Field(default=[], description="Further items that the user had.", examples=[["3"]])


class UserUpsert(BaseModel):
    """Parts of a user; what is left out stays as it is."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    user_id: Id
    features: _Features = Field(
        default={},
        description="Values of users-table columns, each of which replaces the one before; null for a missing one.",
        examples=[{"age": 31}],
    )
    history: _History | None = Field(
        default=None, description="Items, latest first, in the place of those before; they count as seen.", examples=[["12"]]
    )
    seen: _Seen | None = Field(
        default=None, description="Further items that the user had, in the place of those before.", examples=[["3"]]
    )


class UsersUpsert(BaseModel):
    """Users to change, or to make known: all of them or none."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"users": [{"user_id": "u9000", "features": {"age": 31}}]}]},
    )

    users: Annotated[list[UserUpsert], Field(min_length=1, max_length=MOST_USERS)]


class UsersChanged(BaseModel):
    """The change is stored, and in every answer that follows."""

    change: int = Field(description="Its number among all changes of users, which are counted apart from those of items.")
    known: int = Field(description="How many of the users were known before.")
    warnings: list[str] = Field(
        default=[], description="What the model can make little of: values that it was not trained on, numbers far out."
    )
    request_id: str = Field(description="The same as the X-Request-ID header.")


class KnownUser(BaseModel):
    """What is known of a user now."""

    user_id: str
    features: dict[str, Any] = Field(description="Values by column.", examples=[{"age": 31}])
    history: list[str] = Field(description="Items, latest first.", examples=[["12", "7"]])
    seen: list[str] = Field(description="Every different item that the user had, latest first.", examples=[["12", "7", "3"]])
    bundle: str = Field(description="Version of the bundle over which the changes lie.", examples=["000001-4f2a90c1"])
    degraded: list[Degradation] = Field(description="That later changes are not known, and why; empty when all is well.")
    request_id: str = Field(description="The same as the X-Request-ID header.")


class UserEntry(BaseModel):
    """A user on a page."""

    user_id: str


class UsersPage(BaseModel):
    """One page of the users that are known, in order of the ids."""

    users: list[UserEntry]
    next_page_token: str = Field(description="Give it as `page_token` for the page that follows; empty on the last one.")
    bundle: str = Field(description="Version of the bundle over which the changes lie.", examples=["000001-4f2a90c1"])
    request_id: str = Field(description="The same as the X-Request-ID header.")


async def list_users(request: Request) -> UsersPage:
    """The users that are known, in order of their ids. One who is known all the while stands on exactly one page."""
    count, after = page_in(request)
    found, bundle = await live_of(request).ask(
        lambda recommender: (recommender.users.ids(after, count + 1), recommender.bundle.manifest.version)
    )
    return UsersPage(
        users=[UserEntry(user_id=user_id) for user_id in found[:count]],
        next_page_token=token_after(found[count - 1] if len(found) > count else None),
        bundle=bundle,
        request_id=request_id_of(request),
    )


async def get_user(request: Request) -> KnownUser:
    """What is known of a user: what the bundle holds, and what was posted since."""
    user_id = id_in(request, "user_id")
    known, bundle = await live_of(request).ask(
        lambda recommender: (recommender.users.known([user_id])[user_id], recommender.bundle.manifest.version)
    )
    if known.record is None:
        if known.trouble:  # whether there is such a user, nobody can tell
            raise StoreDownError(known.trouble)
        raise ProblemError(Kind.NOT_FOUND, "No such user is known.")
    return KnownUser(
        user_id=user_id,
        features=dict(known.record.features),
        history=list(known.record.history),
        seen=list(known.record.seen),
        bundle=bundle,
        degraded=[Degradation(part="users", reason=known.trouble)] if known.trouble else [],
        request_id=request_id_of(request),
    )


async def put_user(request: Request) -> UsersChanged:
    """Put a user in place, whole. The next request finds them so, without training."""
    user_id, key = id_in(request, "user_id"), key_of(request)
    asked = await read_body(request, UserPut)
    given = User(user_id, asked.features, asked.history, asked.seen)
    receipt = await live_of(request).change_users(lambda recommender: recommender.users.put(given, key))
    return UsersChanged(
        change=receipt.sequence, known=receipt.known, warnings=list(receipt.warnings), request_id=request_id_of(request)
    )


async def upsert_users(request: Request) -> UsersChanged:
    """Change parts of users, or make new ones known. The next request finds them so, without training."""
    key = key_of(request)
    asked = await read_body(request, UsersUpsert)
    charge(request, len(asked.users))
    given = [User(one.user_id, one.features, one.history, one.seen) for one in asked.users]
    receipt = await live_of(request).change_users(lambda recommender: recommender.users.upsert(given, key))
    return UsersChanged(
        change=receipt.sequence, known=receipt.known, warnings=list(receipt.warnings), request_id=request_id_of(request)
    )


async def delete_user(request: Request) -> UsersChanged:
    """Forget a user, also one of the bundle; one that is not known stays so."""
    user_id, key = id_in(request, "user_id"), key_of(request)
    receipt = await live_of(request).change_users(lambda recommender: recommender.users.delete([user_id], key))
    return _changed(request, receipt)


def _changed(request: Request, receipt: UserReceipt) -> UsersChanged:
    return UsersChanged(
        change=receipt.sequence,
        known=receipt.known,
        warnings=list(receipt.warnings),
        request_id=request_id_of(request),
    )


def add_user_routes(app: FastAPI) -> None:
    """Answer the paths for users."""
    path, named = "/v1/users/{user_id}", id_parameter("user_id")
    app.add_api_route(
        "/v1/users:upsert",
        upsert_users,
        methods=["POST"],
        operation_id="upsertUsers",
        tags=["users"],
        responses=problems(400, 408, 413, 415, texts=USER_CHANGE),
        openapi_extra={**body_of(UsersUpsert.__name__), "parameters": [KEY_PARAMETER]},
    )
    app.add_api_route(
        "/v1/users",
        list_users,
        operation_id="listUsers",
        tags=["users"],
        responses=problems(
            422, texts={503: "No bundle is served, too many requests wait, or the store of changed users does not answer."}
        ),
        openapi_extra={"parameters": page_parameters("Users")},
    )
    app.add_api_route(
        path,
        get_user,
        methods=["GET"],
        operation_id="getUser",
        tags=["users"],
        responses=problems(
            422,
            texts={
                404: "No such user is known.",
                503: "No bundle is served, too many requests wait, or it cannot be told whether there is such a user.",
            },
        ),
        openapi_extra={"parameters": [named]},
    )
    app.add_api_route(
        path,
        put_user,
        methods=["PUT"],
        operation_id="putUser",
        tags=["users"],
        responses=problems(400, 408, 413, 415, texts=USER_CHANGE),
        openapi_extra={**body_of(UserPut.__name__), "parameters": [named, KEY_PARAMETER]},
    )
    app.add_api_route(
        path,
        delete_user,
        methods=["DELETE"],
        operation_id="deleteUser",
        tags=["users"],
        responses=problems(texts=USER_CHANGE),
        openapi_extra={"parameters": [named, KEY_PARAMETER]},
    )


USER_CHANGE = {
    409: "One bundle is served by itself, without a store of users, or nothing can be written there; they cannot be changed.",
    422: "A value is wrong; `errors` names it. Nothing was changed.",
    500: "The change could not be stored, and was not acknowledged.",
    503: "No bundle is served, others are changing the same users, or their store does not answer; Retry-After says when to "
    "come back.",
    507: "There is no room to store the change.",
}
"""What goes wrong with a change of users, by status."""
