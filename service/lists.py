"""Answers to requests for recommendations, with or without tokens.

Tokens are the next page of a list, and ids that interactions refer to.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool

from recall import Recommendations, Request
from recall.serving.query import check_request
from recall.serving.rerank.pipeline import check_pins
from recall.serving.rerank.rules import read_rules
from service.body import recommendations_of, render_answer, to_json
from service.concurrency import Caller
from service.errors import FaultDocument, invalid, parsed
from service.live import Live
from service.schemas import LONGEST_TOKEN, MOST_EXPLAINED, MOST_RESULTS, RecommendRequest
from service.tokens import MOST_LISTED, ListToken, PageToken, digest, stale

_BESIDE = {"page_token", "n", "tokens"}
"""Keys that a request may have with a page token, which carries all others."""


async def answer_request(
    live: Live, request: Request | RecommendRequest, caller: Caller, request_id: str, *, large: bool
) -> bytes:
    """Answer a request; return its JSON.

    Args:
        live: answers it.
        request: to the recommender, or the body of one whose answer has tokens.
        caller: sender of the request.
        request_id: of the request.
        large: whether the request is too large for the event loop.

    Raises:
        ProblemError: As `answer_with_tokens`.
        RequestError: As `Live.recommend`.
    """
    if not isinstance(request, Request):
        return await answer_with_tokens(live, request, caller, request_id, large=large)
    answer = await live.recommend(request, caller, large=large)
    if answer.contributions:  # writing them takes up to a tenth of a second
        return await run_in_threadpool(render_answer, answer, request_id)
    return render_answer(answer, request_id)


async def answer_with_tokens(
    live: Live, body: RecommendRequest, caller: Caller, request_id: str, *, scenario: str = "", large: bool = False
) -> bytes:
    """Answer a request that names a page, or whose answer has tokens; return its JSON.

    The next page is another search, with the items of the pages before left out: it is the same list as long as nothing has
    changed, and repeats no item if something has.

    Args:
        live: answers it.
        body: of the request.
        caller: sender of the request.
        request_id: of the request.
        scenario: that the request is made of.
        large: whether the request is too large for the event loop.

    Raises:
        ProblemError: The page token is not valid; or as `Live.recommend`.
        RequestError: As `Live.recommend`.
    """
    page = PageToken(body.model_dump(mode="json", exclude_unset=True), scenario, "", ())
    if body.page_token is not None:
        page = _resumed(live, body, body.page_token, scenario)
        body = parsed(RecommendRequest, page.request)
    request, shown = body.request(), set(page.shown)
    check_request(request)  # as it was asked, since more items are searched for
    if not shown:
        check_pins(read_rules(request.rules), request.n)
    most = MOST_EXPLAINED if request.explain else MOST_RESULTS
    more = replace(request, n=min(most, request.n + len(shown) + 1), because=0 if shown else request.because)
    answer = await live.recommend(more, caller, large=large)
    fresh = [place for place, item_id in enumerate(answer.ids) if digest(item_id) not in shown]
    answer = _kept(answer, fresh[: request.n], request.n)
    listed = tuple(map(digest, (*answer.ids, *(item.item_id for row in answer.rows for item in row.items))))
    shown_then = (*page.shown, *listed)
    follows = len(fresh) > request.n and len(shown_then) < most
    token = live.tokens.write(page._replace(bundle=answer.bundle, shown=shown_then)) if follows else ""
    if len(token) > LONGEST_TOKEN:
        raise invalid([FaultDocument("", f"A page token of this request has {len(token)} characters, and {LONGEST_TOKEN} fit")])
    degraded = (*answer.degraded, *live.scenarios.degraded) if page.scenario else answer.degraded
    content: dict[str, object] = {
        **recommendations_of(replace(answer, degraded=degraded)),
        "recommendation_id": live.tokens.write(ListToken(page.scenario, answer.bundle, listed[:MOST_LISTED])),
        "next_page_token": token,
        "request_id": request_id,
    }
    if page.scenario:
        content["scenario"] = page.scenario
    live.meters.recommended.labels(page.scenario, answer.bundle).inc()
    return await run_in_threadpool(to_json, content) if answer.contributions else to_json(content)


def _resumed(live: Live, body: RecommendRequest, token: str, scenario: str) -> PageToken:
    """Return what a page token says, with the number of items that is asked for now."""
    strange = body.model_fields_set - _BESIDE
    if strange:
        raise invalid([FaultDocument(f"/{one}", "The page_token carries this: leave it out") for one in sorted(strange)])
    page = live.tokens.read(PageToken, token, "/page_token")
    if scenario not in ("", page.scenario):
        raise invalid([FaultDocument("/page_token", f"It continues a list of {page.scenario or 'no scenario'}")])
    version = live.serving().recommender.bundle.manifest.version
    if page.bundle != version:
        raise stale("/page_token", f"It continues a list of version {page.bundle}, and {version} is served now.")
    count: dict[str, Any] = {"n": body.n} if "n" in body.model_fields_set else {}
    return page._replace(request={**page.request, **count})


def _kept(answer: Recommendations, places: Sequence[int], n: int) -> Recommendations:
    """Return an answer with some of its items, and at most n in each further list."""

    def some(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[place] for place in places) if values else ()

    return replace(
        answer,
        ids=some(answer.ids),
        scores=some(answer.scores),
        sources=None if answer.sources is None else some(answer.sources),
        contributions=some(answer.contributions),
        fields=some(answer.fields),
        rows=tuple(row._replace(items=row.items[:n], fields=row.fields[:n]) for row in answer.rows),
    )
