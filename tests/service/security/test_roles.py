"""Every path has a role, and the router agrees with the table about what a path is."""

from collections.abc import Iterator

import pytest
from starlette.routing import Match, Mount, Route

from service.app import create_app
from service.config import Settings
from service.security.roles import Access, Role, access

FOLDERS = {"/docs/assets", "/page"}
OPEN = {"/", "/docs", "/openapi.json", *FOLDERS, "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
ONLY_READS = {
    *("/v1/recommend", "/v1/recommend:batch", "/v1/explain", "/v1/why-not", "/v1/score", "/v1/user-vector"),
    "/v1/items/{item_id}/similar",
}
"""What is asked by POST and changes nothing. A path that changes something must not stand here."""

PERSONAL = {"/v1/users", "/v1/users/{user_id}"}
"""What tells all that is stored of users."""


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Route | Mount]:
    routes = create_app(Settings(bundle=tmp_path_factory.mktemp("none"))).routes
    assert all(isinstance(route, Route | Mount) for route in routes)
    return routes


def _operations(routes: list[Route | Mount]) -> Iterator[tuple[str, str]]:
    for route in routes:
        for method in getattr(route, "methods", None) or {"GET"}:
            yield method, route.path.replace(":path}", "}")


def test_every_route_has_the_role_that_its_method_and_path_ask_for(routes: list[Route | Mount]) -> None:
    seen = 0
    for method, path in _operations(routes):
        role = access(method, path if path not in FOLDERS else f"{path}/some.css").role
        if path in OPEN:
            assert role is Role.OPEN, path
        elif (method in ("GET", "HEAD") and path not in PERSONAL) or path in ONLY_READS:
            assert role is Role.READ, (method, path)
        else:
            assert role is Role.ADMIN, (method, path)
        seen += 1
    assert seen > 6


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/recommend", Access(Role.READ, True)),
        ("POST", "/v1/items/a/b/similar", Access(Role.READ, True)),
        ("GET", "/v1/items/a/similar", Access(Role.READ, True)),
        ("GET", "/v1/users/a/recommendations", Access(Role.READ, True)),
        ("GET", "/v1/items", Access(Role.READ, False)),
        ("GET", "/v1/users", Access(Role.ADMIN, False)),
        ("HEAD", "/v1/users", Access(Role.ADMIN, False)),
        ("GET", "/v1/users/a", Access(Role.ADMIN, False)),
        ("GET", "/v1/users/recommendations", Access(Role.ADMIN, False)),
        ("GET", "/v1/users/a/b", Access(Role.ADMIN, False)),
        ("GET", "/metrics", Access(Role.READ, False)),
        ("GET", "/nowhere", Access(Role.READ, False)),
        ("HEAD", "/health/live", Access(Role.OPEN, False)),
        ("POST", "/health/live", Access(Role.ADMIN, False)),
        ("POST", "/v1/recommend/", Access(Role.ADMIN, False)),
        ("POST", "//v1/recommend", Access(Role.ADMIN, False)),
        ("POST", "/v1/items:upsert", Access(Role.ADMIN, False)),
        ("POST", "/v1/interactions", Access(Role.ADMIN, False)),
        ("POST", "/v1/models/1:activate", Access(Role.ADMIN, False)),
        ("PUT", "/v1/items/a/similar", Access(Role.ADMIN, False)),
        ("DELETE", "/v1/items/a/similar", Access(Role.ADMIN, False)),
        ("PATCH", "/v1/recommend", Access(Role.ADMIN, False)),
        ("get", "/health/live", Access(Role.ADMIN, False)),
        ("GET", "/health/live/", Access(Role.READ, False)),
        ("GET", "/docs/assetsx", Access(Role.READ, False)),
        ("GET", "/pagex", Access(Role.READ, False)),
        ("POST", "/page/main.js", Access(Role.ADMIN, False)),
    ],
)
def test_what_is_not_surely_harmless_takes_an_admin_key(method: str, path: str, expected: Access) -> None:
    assert access(method, path) == expected


def test_no_odd_path_leads_where_its_role_does_not(routes: list[Route | Mount]) -> None:
    """Whatever a path is made of, the route that it reaches never needs more than the table asked for."""
    pieces = ["/v1", "/items", "/users", "/similar", "/recommendations", ":upsert", "/a", "/", "/health", "/live", ":activate"]
    paths = [
        "".join((first, second, third, fourth))
        for first in pieces
        for second in pieces
        for third in pieces
        for fourth in pieces
    ]
    reached = 0
    for path in paths:
        for method in ("GET", "POST", "PUT", "DELETE"):
            scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
            for route in routes:
                if route.matches(scope)[0] is Match.FULL:
                    template = route.path.replace(":path}", "}")
                    shown = path if isinstance(route, Mount) else template
                    assert access(method, path).role >= access(method, shown).role, (method, path, template)
                    reached += 1
                    break
    assert reached > 10
