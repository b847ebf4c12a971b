"""The web page at `/` and the documentation at /docs, without external resources.

All addresses in them are relative, so that they work below any path prefix of a reverse proxy.
"""

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from typing_extensions import override

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'{images}; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content-Security-Policy of a page without inline parts, whose scripts parse no HTML."""
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY.format(images=""), "Cache-Control": "no-cache"}
"""Browsers check whether a file has changed, so that all files are of one version."""
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_IMAGES = 'data-images=""'
_PLACE, _LINK = "<!-- documentation -->", '<a href="docs">API</a>'


class _Files(StaticFiles):
    @override
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a file, or 304 if it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response


def add_pages(app: FastAPI, *, page: bool, docs: bool, images: Sequence[str] = ()) -> None:
    """Serve the web page and the documentation.

    Args:
        app: the application.
        page: whether to serve the page.
        docs: whether to serve the documentation.
        images: origins whose images the page may show.
    """
    if docs:
        app.mount("/docs/assets", _Files(packages=[("fastapi_offline", "static")]), name="docs-assets")
        app.add_api_route("/docs", _docs, include_in_schema=False)
    if page:
        text = files("service").joinpath("page", "index.html").read_text(encoding="utf-8")
        text = text.replace(_PLACE, _LINK if docs else "").replace(_IMAGES, f'data-images="{" ".join(images)}"')
        headers = _HEADERS | {"Content-Security-Policy": _POLICY.format(images="".join(f" {one}" for one in images))}

        async def show(_request: Request) -> HTMLResponse:
            return HTMLResponse(text, headers=headers)

        app.mount("/page", _Files(packages=[("service", "page")]), name="page")
        app.add_api_route("/", show, include_in_schema=False)


async def _docs(_request: Request) -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="FM recall",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon.png",
        swagger_ui_parameters={"validatorUrl": None},  # which would send the document's address to another host
    )
    scripts = [b64encode(sha256(one.encode()).digest()).decode() for one in _SCRIPT.findall(bytes(page.body).decode())]
    page.headers["Cache-Control"] = "no-cache"
    page.headers["Content-Security-Policy"] = _DOCS_POLICY.format(scripts=" ".join(f"'sha256-{one}'" for one in scripts))
    return page
