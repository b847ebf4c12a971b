"""A page of another site cannot change anything on a service without keys."""

from pathlib import Path

import pytest

from service.auth import is_cross_site
from tests.service.publishing import Shop
from tests.service.serving import Server, request, serving


@pytest.mark.parametrize(
    ("fetch_site", "origin", "host", "expected"),
    [
        (None, None, b"localhost:8000", False),  # a program
        (b"same-origin", b"http://localhost:8000", b"localhost:8000", False),
        (b"same-origin", b"https://shop.example", b"10.0.0.1:8000", False),  # a proxy that sets Host
        (b"none", None, b"localhost:8000", False),
        (b"cross-site", None, b"localhost:8000", True),
        (b"same-site", b"http://localhost:3000", b"localhost:8000", True),
        (b"", None, b"localhost:8000", True),  # sent twice
        (b"Same-Origin", None, b"localhost:8000", True),
        (None, b"http://localhost:8000", b"LOCALHOST:8000", False),  # a browser without fetch metadata
        (None, b"http://localhost:3000", b"localhost:8000", True),
        (None, b"https://strange.example", b"localhost:8000", True),
        (None, b"null", b"localhost:8000", True),  # a sandboxed frame, or a file
        (None, b"", b"localhost:8000", True),
        (None, b"http://\xff", b"localhost:8000", True),
        (None, b"http://[", b"localhost:8000", True),
        (None, b"http://localhost:8000", None, True),
    ],
)
def test_headers_of_the_browser_decide(
    fetch_site: bytes | None, origin: bytes | None, host: bytes | None, expected: bool
) -> None:
    assert is_cross_site(fetch_site, origin, host) is expected


PAGES = [
    {"origin": "https://strange.example", "sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
    {"origin": "https://strange.example"},
    {"origin": "null"},
    {"sec_fetch_site": "same-site"},
]


@pytest.mark.parametrize("headers", PAGES)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models:rollback"),
        ("POST", "/v1/models/LIVE:activate"),
        ("POST", "/v1/items:upsert"),
        ("POST", "/v1/items:delete"),
        ("DELETE", "/v1/items/7"),
        ("DELETE", "/v1/users/3"),
        ("PUT", "/v1/users/3"),
        ("POST", "/v1/interactions"),
        ("POST", "/v1/recommend"),
    ],
)
def test_a_foreign_page_is_refused_before_anything_is_read(
    server: Server, method: str, path: str, headers: dict[str, str]
) -> None:
    live = server.ask("GET", "/v1/models").json["live"]
    refused = server.ask(method, path.replace("LIVE", live), b"", **headers)
    assert refused.status == 403
    assert refused.json["type"] == "urn:fm-recall:problem:cross-site"
    assert server.ask("GET", "/v1/models").json["live"] == live


def test_its_own_page_and_programs_are_answered(server: Server) -> None:
    own = {"origin": f"http://localhost:{server.port}", "sec_fetch_site": "same-origin"}
    assert server.post({"n": 1}, **own).status == 200
    assert server.post({"n": 1}).status == 200
    live = server.ask("GET", "/v1/models").json["live"]
    assert server.ask("POST", f"/v1/models/{live}:activate").status == 200


def test_a_foreign_page_may_send_get_since_browsers_hide_the_answer(server: Server) -> None:
    assert server.ask("GET", "/v1/info", **PAGES[0]).status == 200
    assert server.ask("GET", "/health/ready", **PAGES[0]).status == 200


def test_refusals_are_counted(server: Server) -> None:
    assert server.ask("POST", "/v1/models:rollback", b"", **PAGES[0]).status == 403
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    (line,) = [line for line in lines if line.startswith('recall_refused_total{reason="cross-site"}')]
    assert float(line.split()[1]) >= 1


def test_requests_with_a_key_are_not_from_a_foreign_page(shop: Shop, tmp_path: Path) -> None:
    key = "a key that no page has"
    with serving(shop.root, tmp_path / "log", environment={"RECALL_ADMIN_KEY": key}) as server:
        server.wait()
        assert server.post({"n": 1}, **PAGES[0]).status == 401
        assert server.post({"n": 1}, x_api_key=key, **PAGES[0]).status == 200


def test_both_headers_count_when_they_are_sent_twice(server: Server) -> None:
    raw = request("POST", "/v1/models:rollback", b"", sec_fetch_site="same-origin")
    twice = raw.replace(b"sec-fetch-site: same-origin\r\n", b"sec-fetch-site: same-origin\r\n" * 2)
    assert twice != raw
    assert server.send(twice).status == 403
