"""Answer requests for recommendations before they are routed.

A framework takes about as long to route a request as a search does, so POST /v1/recommend is a plain ASGI callable that
answers before routing. The application also declares the route, with its models (`service.routers.recommendations`), and gives
the same answers.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from recall import Recommendations, Request
from recall.serving.query import MOST_EXPLAINED, check_request
from recall.serving.rerank.pipeline import check_pins
from recall.serving.rerank.rules import read_rules
from service.auth import Guard
from service.body import LARGE, parse_json, parse_request, read_body, recommendations_of, to_json
from service.concurrency import Caller
from service.errors import FaultDocument, invalid, parsed, problem_response
from service.keys import Role
from service.live import Live
from service.schemas import LONGEST_TOKEN, MOST_RESULTS, RecommendRequest
from service.tokens import MOST_LISTED, ListToken, PageToken, digest, stale

PATH = "/v1/recommend"
_JSON = (b"content-type", b"application/json")


class RecommendEndpoint:
    """Middleware that answers requests for recommendations, and passes others on.

    Attributes:
        path_format: the path, as routes have it.
    """

    path_format = PATH

    def __init__(self, app: ASGIApp, live: Live, guard: Guard) -> None:
        """Wrap an application.

        Args:
            app: the application.
            live: of the application.
            guard: admits requests.
        """
        self._app, self._live, self._guard = app, live, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["method"] != "POST" or scope["path"] != scope["root_path"] + PATH:
            await self._app(scope, receive, send)
            return
        scope["route"], request_id = self, scope["state"]["request_id"]
        if not (self._live.draining or self._live.queue.has_room(short=True)):
            # under overload there are many rejections for each answer: no admission, no exception
            await problem_response(self._live.queue.shed("full"), request_id)(scope, receive, send)
            return
        try:
            body = await self._answer(scope, receive)
        except Exception as error:
            # `error` must be its only name here: a variable that outlives the block makes a reference cycle with the traceback,
            # and to collect these cycles took a tenth of the CPU time
            await problem_response(error, request_id)(scope, receive, send)
            return
        headers = [_JSON, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        """Return the body of an answer."""
        self._guard.admit(scope, receive, Role.READ, searches=True)
        settings, state = self._live.settings, scope["state"]
        body = await read_body(state["headers"], receive, settings.max_body, settings.patience)
        start = time.perf_counter()
        large = len(body) > LARGE
        request = await asyncio.to_thread(_parsed, body) if large else _parsed(body)
        parsed = time.perf_counter()
        state["timings"]["parse"] = parsed - start
        document = await answer_request(self._live, request, state["caller"], state["request_id"], large=large)
        state["timings"]["recommend"] = time.perf_counter() - parsed
        return document


def _parsed(body: bytes) -> Request | RecommendRequest:
    return parse_request(parse_json(body))


# Answers with tokens have the next page of a list, and ids that interactions refer to.

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
    content = recommendations_of(answer)
    content["request_id"] = request_id
    # writing contributions takes up to a tenth of a second
    return await run_in_threadpool(to_json, content) if answer.contributions else to_json(content)


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
        page = _continued_page(live, body, body.page_token, scenario)
        body = parsed(RecommendRequest, page.request)
    request, shown = body.request(), set(page.shown)
    check_request(request)  # the original request, because the search is for more items
    if not shown:
        check_pins(read_rules(request.rules), request.n)
    most = MOST_EXPLAINED if request.explain else MOST_RESULTS
    more = replace(request, n=min(most, request.n + len(shown) + 1), because=0 if shown else request.because)
    answer = await live.recommend(more, caller, large=large)
    fresh = [place for place, item_id in enumerate(answer.ids) if digest(item_id) not in shown]
    answer = _selected(answer, fresh[: request.n], request.n)
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


def _continued_page(live: Live, body: RecommendRequest, token: str, scenario: str) -> PageToken:
    """Return the content of a page token, with the number of items of this request."""
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


def _selected(answer: Recommendations, places: Sequence[int], n: int) -> Recommendations:
    """Return an answer with the items at some places only.

    Each further list keeps at most n items.
    """

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
