"""Why an item scores what it does, and why it is not in a list."""

from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from recall.serving.response import Absence, Explanation, FeatureValue, ValueContribution
from service.answering import Answer, answered, respond
from service.openapi import add_question
from service.parsing import read_body
from service.wire import FieldContribution, Id, Item, Ranking, Scoring, contributions_of


class ExplainRequest(Scoring):
    """Who asks, and whose score is to be explained to them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "values": True}]})

    item_id: Id = Field(description="An item of the catalogue, whether or not it would be listed.", examples=["12"])
    values: bool = Field(default=False, description="Tell what single values bring too, and not only what fields do.")


class TableValue(BaseModel):
    """One value of a user or an item."""

    field: str = Field(description="A history has a field for each range of lags.", examples=["genre", "history[1]"])
    value: str | None = Field(description="In writing; null where `state` says that there is none.", examples=["noir"])
    weight: float = Field(description="How much of it there is, as the model has it.")
    state: Literal["learnt", "unknown", "missing"] = Field(
        description="Whether the model has learnt the value, has not, or there is none."
    )


class ValuePair(BaseModel):
    """What some values bring to a score."""

    user: TableValue | None = Field(description="A value of the user; null for the item's own part.")
    items: list[TableValue] = Field(description="A value of the item, or two for a pair of its own.")
    value: float


class ExplainResponse(Answer):
    """How the score of one item comes about."""

    item_id: str
    score: float = Field(description="What the item would be listed with, boosts included.")
    contributions: list[FieldContribution] = Field(description="By fields, the largest first; they add up to the score.")
    values: list[ValuePair] | None = Field(description="By values, the largest first, at most 1000; null unless asked for.")
    rest: float = Field(description="What `values` leaves out, boosts among it: with them it adds up to the score.")
    user_offset: float = Field(description="The part of the model's score that is the same for every item.")


class WhyNotRequest(Ranking):
    """A request for recommendations, and the item that is looked for in its answer."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "n": 10, "filter": {"genre": "noir"}}]}
    )

    item_id: Id = Field(description="An item of the catalogue.", examples=["12"])


class AbsenceReason(BaseModel):
    """Something that keeps an item out of a list."""

    kind: Literal["excluded", "seen", "allow", "filter", "score", "rule", "rules", "channels", "search"] = Field(
        description="`excluded`, `seen`, `allow` and `filter` make the item ineligible. `score`: enough others score higher. "
        "`rule` and `channels`: without this one rule, or without channels, it would be listed; `rules`: without all of them "
        "together. `search`: an approximate search has not found it."
    )
    where: str = Field(description="JSON pointer to the part of the request; empty where there is none.", examples=["/rules/0"])
    text: str


class WhyNotResponse(Answer):
    """Where an item stands, and what keeps it out.

    The ranking meant is that of all eligible items by the model's score with boosts, which rules and channels are given; the
    item is counted among them, eligible or not. `exact` speaks of the answer, not of the ranking, which is surely right.
    """

    item_id: str
    listed: int | None = Field(description="The item's place in the answer, from 1; null when it is not there.")
    reasons: list[AbsenceReason] = Field(description="All that keep it out; empty when it is listed.")
    score: float
    rank: int = Field(description="Its place in the ranking, from 1.")
    eligible: int = Field(description="Number of items that are ranked, this one included.")
    last: Item | None = Field(
        description="The other item that it has to overtake to be among the first `n`; null when there are fewer."
    )
    missing: float | None = Field(description="The score of `last` less its own; null without `last`.")
    contributions: list[FieldContribution] = Field(
        description="What `last` has from each pair of fields more than it; they add up to `missing`."
    )


async def explain(request: Request) -> Response:
    """What the score of an item comes from, for one user: by pairs of fields and, if wanted, of values."""
    asked = await read_body(request, ExplainRequest)
    found = await answered(
        request, "explain", lambda recommender: recommender.explain(asked.request(), asked.item_id, values=asked.values)
    )
    return respond(request, found, _explanation(found))


async def why_not(request: Request) -> Response:
    """Why an item is not among the recommendations that a request would get: its rank, and what keeps it out."""
    asked = await read_body(request, WhyNotRequest)
    found = await answered(request, "explain", lambda recommender: recommender.why_not(asked.request(), asked.item_id))
    return respond(request, found, _absence(found), exact=found.exact)


def add_explain_routes(app: FastAPI) -> None:
    """Answer the paths that ask why."""
    for path, endpoint, operation, body, answer, text in (
        ("/v1/explain", explain, "explain", ExplainRequest, ExplainResponse, "What the score comes from."),
        ("/v1/why-not", why_not, "whyNot", WhyNotRequest, WhyNotResponse, "Where the item stands."),
    ):
        add_question(app, path, endpoint, operation, "explanations", (body, answer), text)


def _explanation(found: Explanation) -> dict[str, Any]:
    return {
        "item_id": found.item_id,
        "score": found.score,
        "contributions": contributions_of(found.contributions),
        "values": None if found.values is None else [_pair(one) for one in found.values],
        "rest": found.rest,
        "user_offset": found.user_offset,
    }


def _pair(one: ValueContribution) -> dict[str, object]:
    return {
        "user": None if one.user is None else _value(one.user),
        "items": [_value(value) for value in one.items],
        "value": one.value,
    }


def _value(one: FeatureValue) -> dict[str, object]:
    return {"field": one.field, "value": one.value, "weight": one.weight, "state": one.state}


def _absence(found: Absence) -> dict[str, Any]:
    return {
        "item_id": found.item_id,
        "listed": found.listed,
        "reasons": [{"kind": one.kind, "where": one.where, "text": one.text} for one in found.reasons],
        "score": found.score,
        "rank": found.rank,
        "eligible": found.eligible,
        "last": None if found.last is None else {"item_id": found.last.item_id, "score": found.last.score},
        "missing": found.missing,
        "contributions": contributions_of(found.contributions),
    }
