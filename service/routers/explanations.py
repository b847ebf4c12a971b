"""Explanations: what a score comes from, and why an item is not in a list."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from recall.serving.recommender import Recommender
from recall.serving.response import Explanation, FeatureValue, ValueContribution
from service.dependencies import SEARCH, answered, respond
from service.errors import problems
from service.schemas import ExplainRequest, ExplainResponse, WhyNotRequest, WhyNotResponse, contributions_of

router = APIRouter(tags=["explanations"], **SEARCH)
BODY = problems(400, 408, 413, 415)


@router.post("/v1/explain", response_model=ExplainResponse, responses=BODY)
async def explain(request: Request, body: ExplainRequest) -> Response:
    """Explain the score of an item for a user, by pairs of fields or of values."""

    def ask(recommender: Recommender) -> Explanation:
        return recommender.explain(body.request(), body.item_id, values=body.values)

    found = await answered(request, "explain", ask)
    content = {
        "item_id": found.item_id,
        "score": found.score,
        "contributions": contributions_of(found.contributions),
        "values": None if found.values is None else [_pair(one) for one in found.values],
        "rest": found.rest,
        "user_offset": found.user_offset,
    }
    return respond(request, found, content)


@router.post("/v1/why-not", response_model=WhyNotResponse, responses=BODY)
async def why_not(request: Request, body: WhyNotRequest) -> Response:
    """Explain why an item is not recommended: its rank, and what excludes it."""
    found = await answered(request, "explain", lambda recommender: recommender.why_not(body.request(), body.item_id))
    content = {
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
    return respond(request, found, content, exact=found.exact)


def _pair(one: ValueContribution) -> dict[str, object]:
    user = None if one.user is None else _value(one.user)
    return {"user": user, "items": [_value(value) for value in one.items], "value": one.value}


def _value(one: FeatureValue) -> dict[str, object]:
    return {"field": one.field, "value": one.value, "weight": one.weight, "state": one.state}
