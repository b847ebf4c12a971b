"""The web page of the service: plain files, which ask the same paths as everybody else."""

import os
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.security.headers import FILES_POLICY

_HEADERS = {"Content-Security-Policy": FILES_POLICY, "Cache-Control": "no-cache"}
"""Of the page and of its files: a browser asks whether they have changed, so that they always fit each other."""
_PLACE = "<!-- documentation -->"
_DOCUMENTATION = '<a href="docs">API</a>'


class _Files(StaticFiles):
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """One file, or that it has not changed."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_HEADERS)
        return response


def add_page(app: FastAPI, *, docs: bool) -> None:
    """Serve the page at `/`, and its files below /page; `docs` says whether it may lead to /docs."""
    text = files("service").joinpath("page", "index.html").read_text(encoding="utf-8")
    text = text.replace(_PLACE, _DOCUMENTATION if docs else "")

    async def page(_request: Request) -> HTMLResponse:
        return HTMLResponse(text, headers=_HEADERS)

    app.mount("/page", _Files(packages=[("service", "page")]), name="page")
    app.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
