"""The OpenAPI document, and the page that shows it without reaching for any other host."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
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
