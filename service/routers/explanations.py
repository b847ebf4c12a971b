"""Explanations of scores, and of why an item is not in a list."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from recall import Explanation, Recommender
from service.dependencies import BODY, SEARCH, answered, respond
from service.schemas import ExplainRequest, ExplainResponse, WhyNotRequest, WhyNotResponse

router = APIRouter(tags=["explanations"], **SEARCH)


@router.post("/v1/explain", response_model=ExplainResponse, responses=BODY)
async def explain(request: Request, body: ExplainRequest) -> Response:
    """Explain the score of an item for a user, by pairs of fields or of values."""

    def ask(recommender: Recommender) -> Explanation:
        return recommender.explain(body.request(), body.item_id, values=body.values)

    found = await answered(request, "explain", ask)
    return respond(request, found)


@router.post("/v1/why-not", response_model=WhyNotResponse, responses=BODY)
async def why_not(request: Request, body: WhyNotRequest) -> Response:
    """Explain why an item is not recommended: its rank, and what excludes it."""
    found = await answered(request, "explain", lambda recommender: recommender.why_not(body.request(), body.item_id))
    return respond(request, found, exact=found.exact)
