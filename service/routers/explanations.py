"""Explanations of scores, and of why an item is not in a list."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from service.dependencies import BODY, SEARCH, answered, respond
from service.schemas import Answer, FieldContribution, Id, Item, Ranking, Scoring


class ExplainRequest(Scoring, json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "values": True}]}):
    """A user, and the item whose score to explain."""

    item_id: Id = Field(description="An item of the catalogue, whether or not it would be listed.", examples=["12"])
    values: bool = Field(default=False, description="Also return the contributions of single values.")


class TableValue(BaseModel):
    """One value of a user or an item."""

    field: str = Field(description="A history has a field for each range of lags.", examples=["genre", "history[1]"])
    value: str | None = Field(description="As text; null if `state` is missing.", examples=["noir"])
    weight: float = Field(description="Its weight in the model's input.")
    state: Literal["learnt", "unknown", "missing"] = Field(
        description="Whether the model has learnt the value, has not, or there is none."
    )


class ValuePair(BaseModel):
    """Contribution of some values to a score."""

    user: TableValue | None = Field(description="A value of the user; null for the item's own part.")
    items: list[TableValue] = Field(description="A value of the item, or two for a pair within the item.")
    value: float


class ExplainResponse(Answer):
    """The parts of the score of one item."""

    item_id: str
    score: float = Field(description="The score with which the item would be listed, including boosts.")
    contributions: list[FieldContribution] = Field(description="By fields, the largest first; they add up to the score.")
    values: list[ValuePair] | None = Field(description="By values, the largest first, at most 1000; null unless requested.")
    rest: float = Field(description="Sum of the parts that `values` leaves out, such as boosts.")
    user_offset: float = Field(description="The part of the model's score that is the same for every item.")


class WhyNotRequest(
    Ranking, json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "n": 10, "filter": {"genre": "noir"}}]}
):
    """A request for recommendations, and an item that may be missing in the answer."""

    item_id: Id = Field(description="An item of the catalogue.", examples=["12"])


class AbsenceReason(BaseModel):
    """A reason why an item is not in a list."""

    kind: Literal["excluded", "seen", "allow", "filter", "score", "rule", "rules", "channels", "search"] = Field(
        description="`excluded`, `seen`, `allow` and `filter` make the item ineligible. `score`: enough others score higher. "
        "`rule` and `channels`: without this one rule, or without channels, it would be listed; `rules`: without all of them "
        "together. `search`: an approximate search has not found it."
    )
    where: str = Field(description="JSON pointer to the part of the request; empty if there is none.", examples=["/rules/0"])
    text: str


class WhyNotResponse(Answer):
    """The rank of an item, and what excludes it.

    The ranking is that of all eligible items by the model's score with boosts, before rules and channels; the item is counted
    among them, eligible or not. `exact` refers to the answer, not to the ranking, which is exact.
    """

    item_id: str
    listed: int | None = Field(description="The item's rank in the answer, from 1; null if it is not there.")
    reasons: list[AbsenceReason] = Field(description="All reasons why it is not listed; empty if it is.")
    score: float
    rank: int = Field(description="Its rank, from 1.")
    eligible: int = Field(description="Number of ranked items, including this one.")
    last: Item | None = Field(description="The item that it must outrank to be among the first `n`; null if there are fewer.")
    missing: float | None = Field(description="The score of `last` minus its own; null without `last`.")
    contributions: list[FieldContribution] = Field(
        description="How much more `last` gets from each pair of fields; they add up to `missing`."
    )


router = APIRouter(tags=["explanations"], **SEARCH)


@router.post("/v1/explain", response_model=ExplainResponse, responses=BODY)
async def explain(request: Request, body: ExplainRequest) -> Response:
    """Explain the score of an item for a user, by pairs of fields or of values."""
    found = await answered(
        request, "explain", lambda recommender: recommender.explain(body.request(), body.item_id, values=body.values)
    )
    return respond(request, found)


@router.post("/v1/why-not", response_model=WhyNotResponse, responses=BODY)
async def why_not(request: Request, body: WhyNotRequest) -> Response:
    """Explain why an item is not recommended: its rank, and what excludes it."""
    found = await answered(request, "explain", lambda recommender: recommender.why_not(body.request(), body.item_id))
    return respond(request, found, exact=found.exact)
