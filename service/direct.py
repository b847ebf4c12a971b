"""The paths that are asked most, answered without the framework's machinery: it costs more than the answer itself."""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import problem_of

Endpoint = Callable[[Request], Awaitable[Response]]


class Direct:
    """Middleware that answers some paths itself, with the functions that the application's routes are made of.

    The routes stay as they are: they document the path, and answer it wherever this lets a request pass, as it does with
    other methods and under a prefix.
    """

    def __init__(self, app: ASGIApp, posts: Mapping[str, Endpoint]) -> None:
        """`posts` are the endpoints by the path that they answer POST requests to."""
        self._app = app
        self._posts = posts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        endpoint = self._posts.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except Exception as error:  # the application would do the same
            response = await problem_of(request, error)
        await response(scope, receive, send)
