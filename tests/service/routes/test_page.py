"""The page's files: complete, small, with security headers, and optional."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.config import Settings
from tests.service.publishing import Shop
from tests.service.serving import Server, free_port, serving

FILES = sorted(path.name for path in (Path(__file__).parents[3] / "service" / "page").iterdir())
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(bundle=tmp_path)), base_url="http://localhost") as client:
        yield client


def directives(policy: str) -> dict[str, list[str]]:
    return {name: values for name, *values in (one.split() for one in policy.split(";"))}


def test_the_page_is_served_with_a_strict_policy(server: Server) -> None:
    page = server.ask("GET", "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-cache"
    policy = directives(page.headers["content-security-policy"])
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("form-action") == ["'none'"]
    assert policy.pop("frame-ancestors") == ["'none'"]
    assert policy.pop("require-trusted-types-for") == ["'script'"]
    assert policy.pop("trusted-types") == ["'none'"]
    assert policy == {name: ["'self'"] for name in ("script-src", "style-src", "img-src", "connect-src")}


def test_head_returns_its_headers(client: TestClient) -> None:
    head = client.head("/")
    assert (head.status_code, head.content) == (200, b"")


def test_the_page_has_no_inline_script_style_or_handler(server: Server) -> None:
    text = server.ask("GET", "/").body.decode()
    assert re.findall(r"<script[^>]*>", text) == ['<script type="module" src="page/main.js">']
    assert re.findall(r"<script[^>]*>([^<]+)</script>|<style| style=| on[a-z]+=|javascript:", text) == []
    assert '<a href="docs">' in text
    assert "<!--" not in text


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_and_revalidated(client: TestClient, name: str) -> None:
    found = client.get(f"/page/{name}")
    assert found.status_code == 200
    assert found.headers["content-type"].partition(";")[0] == TYPES[name.rpartition(".")[2]]
    assert found.headers["cache-control"] == "no-cache"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "script-src 'self';" in found.headers["content-security-policy"]
    again = client.get(f"/page/{name}", headers={"if-none-match": found.headers["etag"]})
    assert again.status_code == 304
    if not name.endswith(".svg"):  # which name their language
        assert "//" not in re.sub(r"^\s*//.*$| // .*$", "", found.text, flags=re.M).replace("http://www.w3.org/2000/svg", "")
    for used in re.findall(r'from "\./([^"]+)"|(?:src|href)="page/([^"]+)"', found.text):
        assert set(used) & set(FILES)


def test_the_page_is_small() -> None:
    folder = Path(__file__).parents[3] / "service" / "page"
    assert sum((folder / name).stat().st_size for name in FILES) <= 150_000


@pytest.mark.parametrize("name", ["main.py", "../settings.py", "%2e%2e/settings.py", "..%2fsettings.py", ""])
def test_nothing_else_is_served_below_it(server: Server, name: str) -> None:
    answer = server.ask("GET", f"/page/{name}")
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_read_only(server: Server, method: str) -> None:
    for path in ("/", "/page/main.js"):
        assert server.ask(method, path).status == 405


def test_it_can_be_turned_off(shop: Shop, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log", "--no-page", "--no-docs") as server:
        for path in ("/", "/page/main.js", "/page/index.html"):
            answer = server.ask("GET", path)
            assert answer.status == 404
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_images_are_allowed_from_given_origins(tmp_path: Path) -> None:
    given = ("https://img.example", "http://localhost:9000")
    with TestClient(create_app(Settings(bundle=tmp_path, images=given)), base_url="http://localhost") as client:
        page = client.get("/")
    assert directives(page.headers["content-security-policy"])["img-src"] == ["'self'", *given]
    assert 'data-images="https://img.example http://localhost:9000"' in page.text


@pytest.mark.parametrize("wrong", ["*", "img.example", "https://img.example/x", "https://a; script-src *", "data:"])
def test_images_need_an_origin(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        Settings(bundle=tmp_path, images=(wrong,))


def test_the_command_line_turns_it_off(shop: Shop, tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "from recall.cli import main; main()",
        "serve",
        str(shop.root),
        "--port",
        str(port),
        "--no-page",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Server(port, process, tmp_path / "log")
    try:
        server.wait()
        assert (server.ask("GET", "/").status, server.ask("GET", "/docs").status) == (404, 200)
    finally:
        process.terminate()
        process.wait(30)


def test_it_has_no_link_to_documentation_that_is_off(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(bundle=tmp_path, docs=False)), base_url="http://localhost") as client:
        page = client.get("/").text
    assert 'href="#model"' in page
    assert "docs" not in page


def test_it_needs_no_key_but_its_requests_do(shop: Shop, tmp_path: Path) -> None:
    with serving(shop.root, tmp_path / "log", environment={"RECALL_READ_KEY": "read-" + "r" * 40}) as server:
        server.wait()
        for path in ("/", "/page/main.js", "/page/page.css"):
            assert server.ask("GET", path).status == 200
        assert server.ask("GET", "/v1/info").status == 401


def test_info_has_the_certificate_of_the_index(server: Server) -> None:
    found = server.ask("GET", "/v1/info").json
    assert set(found["certificate"]) == {"target", "n", "queries", "recall", "lower", "confidence", "met"}
    assert found["certificate"]["lower"] >= found["certificate"]["target"]
