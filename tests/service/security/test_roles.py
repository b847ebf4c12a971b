"""Every route requires a role, under any prefix or odd path."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from service.dependencies import Route
from service.keys import Role
from service.routers import ROUTERS
from tests.service.publishing import Shop
from tests.service.serving import Server, serving

OPEN = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
ONLY_READS = {
    *("/v1/recommend", "/v1/recommend:batch", "/v1/explain", "/v1/why-not", "/v1/score", "/v1/user-vector"),
    "/v1/items/{item_id}/similar",
    "/v1/scenarios/{name}:recommend",
}
"""Paths of POST requests that change nothing. A path that changes something must not be here."""
PERSONAL = {"/v1/users", "/v1/users/{user_id}"}
"""Paths that return stored data of users."""
READ, ADMIN = "reads-and-reads-and-reads", "changes-and-changes-and"


def routes() -> list[APIRoute]:
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def roles(route: APIRoute) -> list[Role]:
    return [route.role] if isinstance(route, Route) else []


@pytest.mark.parametrize("route", routes(), ids=lambda route: route.name)
def test_every_route_requires_a_role(route: APIRoute) -> None:
    for method in route.methods:
        if route.path_format in OPEN:
            assert roles(route) == []
        elif (method == "GET" and route.path_format not in PERSONAL) or route.path_format in ONLY_READS:
            assert roles(route) == [Role.READ]
        else:
            assert roles(route) == [Role.ADMIN]


@pytest.fixture(scope="module", params=["", "/recall"])
def keyed(shop: Shop, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple[Server, str]]:
    folder = tmp_path_factory.mktemp("keyed")
    own = shop.in_(folder / "bundles")
    own.publish(seed=1)
    options = ("--root-path", request.param) if request.param else ()
    keys = {"RECALL_READ_KEY": READ, "RECALL_ADMIN_KEY": ADMIN}
    with serving(own.root, Path(folder / "log"), *options, environment=keys) as server:
        server.wait()
        yield server, request.param


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/users"),
        ("GET", "/v1/users/3"),
        ("GET", "/v1/users/3?n=1"),
        ("GET", "/v1/users/recommendations"),
        ("GET", "/v1/users/3%2Frecommendations"),
        ("GET", "/v1/users/a/b"),
        ("DELETE", "/v1/items/3/similar"),
        ("POST", "/v1/items:upsert"),
        ("POST", "/v1/items:delete"),
        ("POST", "/v1/users:delete"),
        ("POST", "/v1/interactions"),
        ("POST", "/v1/models:rollback"),
        ("POST", "/v1/models/1:activate"),
    ],
)
def test_a_read_key_changes_nothing_and_reads_no_user_under_any_prefix(
    keyed: tuple[Server, str], method: str, path: str
) -> None:
    server, prefix = keyed
    for before in {"", prefix}:
        assert server.ask(method, before + path).status == 401
        assert server.ask(method, before + path, x_api_key=READ).status == 403
        assert server.ask(method, before + path, b"{}", x_api_key=ADMIN, content_type="application/json").status not in (
            401,
            403,
        )


def test_every_path_works_with_a_prefix(keyed: tuple[Server, str]) -> None:
    server, prefix = keyed
    for path in (
        "/v1/info",
        "/v1/users/3/recommendations",
        "/v1/items/a%2Fb",
        "/v1/items/a/b/similar",
        "/docs",
        "/page/main.js",
    ):
        for before in {"", prefix}:
            assert server.ask("GET", before + path, x_api_key=READ).status == 200, before + path
    for before in {"", prefix}:
        body = b'{"user_id": "3"}'
        answer = server.ask("POST", before + "/v1/recommend", body, x_api_key=READ, content_type="application/json")
        assert answer.status == 200
        assert server.ask("POST", before + "/v1/recommend", body, content_type="application/json").status == 401
    document = server.ask("GET", "/openapi.json").json
    assert [one["url"] for one in document.get("servers", [])] == ([prefix] if prefix else [])
