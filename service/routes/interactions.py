"""What users take: it changes their history and seen items in the next request."""

import datetime
from typing import Annotated

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from recall.serving.recommender import Recommender
from recall.store.users import profiles
from service.context import live_of, request_id_of
from service.idempotency import KEY_PARAMETER, key_of
from service.openapi import body_of, problems
from service.parsing import read_body
from service.routes.users import USER_CHANGE
from service.security.charging import charge
from service.wire import Id

MOST_INTERACTIONS = 1000

_LATEST = 253_402_300_799  # the last second of the year 9999


def _as_time(value: object) -> float:
    """Seconds since 1970, from themselves or from a date and time with a zone."""
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


class Interaction(BaseModel):
    """A user took an item."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    user_id: Id = Field(description="One of whom nothing is known becomes known.")
    item_id: Id = Field(description="One that the catalogue lacks is kept, and named in the answer.")
    time: Time | None = Field(
        default=None,
        description="When, in seconds since 1970 or as a date and time with a zone. It puts the item in its place among the "
        "user's others; without one it is the latest.",
        examples=[1769882400, "2026-01-31T18:00:00Z"],
    )


class Interactions(BaseModel):
    """Interactions to add, in order: all of them or none."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"interactions": [{"user_id": "42", "item_id": "7"}]}]},
    )

    interactions: Annotated[list[Interaction], Field(min_length=1, max_length=MOST_INTERACTIONS)]


class Taken(BaseModel):
    """The interactions are stored, and in the history and the seen items of their users from the next request on."""

    change: int = Field(description="Number of the last one among all changes of users, counted apart from those of items.")
    known: int = Field(description="How many of the users were known before.")
    unknown: list[str] = Field(description="Items that the catalogue lacks; they are kept, and count once it has them.")
    bundle: str = Field(description="Version of the bundle whose catalogue that is.", examples=["000001-4f2a90c1"])
    request_id: str = Field(description="The same as the X-Request-ID header.")


async def post_interactions(request: Request) -> Taken:
    """Add to users' histories and seen items what they took; the next request knows of it."""
    key = key_of(request)
    asked = await read_body(request, Interactions)
    charge(request, len(asked.interactions))
    given = [profiles.Interaction(one.user_id, one.item_id, one.time) for one in asked.interactions]

    def take(recommender: Recommender) -> Taken:
        items = list(dict.fromkeys(one.item_id for one in given))
        receipt = recommender.users.took(given, key)
        rows = recommender.items.current().rows(items)
        unknown = [item_id for item_id, row in zip(items, rows.tolist(), strict=True) if row < 0]
        version, request_id = recommender.bundle.manifest.version, request_id_of(request)
        return Taken(change=receipt.sequence, known=receipt.known, unknown=unknown, bundle=version, request_id=request_id)

    return await live_of(request).change_users(take)


def add_interaction_routes(app: FastAPI) -> None:
    """Answer the path for interactions."""
    app.add_api_route(
        "/v1/interactions",
        post_interactions,
        methods=["POST"],
        operation_id="postInteractions",
        tags=["users"],
        responses=problems(400, 408, 413, 415, texts=USER_CHANGE),
        openapi_extra={**body_of(Interactions.__name__), "parameters": [KEY_PARAMETER]},
    )
