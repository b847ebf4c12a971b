"""The OpenAPI document, and the page that shows it without reaching for any other host."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request

from service.problems import MEDIA_TYPE, ProblemDocument
from service.security.headers import page_policy

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_REFERENCE = "#/components/schemas/{model}"
_TEXTS = {
    400: "The body is not JSON.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not plain application/json.",
    422: "A value is wrong; `errors` names it.",
    503: "No bundle is served, or too many requests wait; Retry-After says when to come back.",
}


def describe(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """The OpenAPI document of `app`.

    It adds to FastAPI's own what FastAPI cannot see: the request body, which is parsed here more strictly than it
    would be there, and the media type of problem documents.

    Args:
        app: with all its paths.
        bodies: what requests may hold; see `body_of`.
    """
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, request = models_json_schema([(body, "validation") for body in bodies], ref_template=_REFERENCE)
    document["components"]["schemas"].update(request["$defs"])
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
    return document


def body_of(model: str) -> dict[str, Any]:
    """The part of an operation that says its body is the JSON form of `model`."""
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model)}}}}
    }


def add_question(
    app: FastAPI,
    path: str,
    endpoint: Callable[[Request], Awaitable[Response]],
    operation: str,
    tag: str,
    bodies: tuple[type[BaseModel], type[BaseModel]],
    text: str,
) -> None:
    """Answer POST requests to a path that reads, and changes nothing.

    Args:
        app: gets the path.
        path: to be answered.
        endpoint: answers.
        operation: its name in the document, which stays the same for ever.
        tag: what it belongs to.
        bodies: what a request holds, and what an answer does.
        text: what an answer is, in a sentence.
    """
    asked, answer = bodies
    app.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        operation_id=operation,
        tags=[tag],
        response_class=Response,
        responses={200: {"model": answer, "description": text}, **problems(400, 408, 413, 415, 422, 503)},
        openapi_extra=body_of(asked.__name__),
    )


def problems(*statuses: int, texts: Mapping[int, str] | None = None) -> dict[int | str, dict[str, Any]]:
    """The part of an operation that says which problems it answers with.

    Args:
        statuses: those that mean what they mean everywhere.
        texts: what further ones mean here, by status.
    """
    told = {status: _TEXTS[status] for status in statuses} | dict(texts or {})
    return {status: {"model": ProblemDocument, "description": told[status]} for status in sorted(told)}


def add_docs(app: FastAPI) -> None:
    """Serve /docs."""
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-assets")
    app.add_api_route("/docs", _page, include_in_schema=False)


async def _page(request: Request) -> HTMLResponse:
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="FM recall",
        swagger_js_url=f"{root}/docs/assets/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/assets/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/assets/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},  # it would send the document's address to another host
    )
    scripts = _SCRIPT.findall(bytes(page.body).decode())
    page.headers["Content-Security-Policy"] = page_policy(*scripts)
    return page
