"""Security headers for browsers, and the untrusted Host header."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from tests.service.serving import Server


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health/live"), ("GET", "/v1/info"), ("GET", "/nowhere"), ("PUT", "/v1/info")]
)
def test_browsers_treat_answers_as_data_only(server: Server, method: str, path: str) -> None:
    headers = server.ask(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_the_page_runs_only_its_own_scripts(server: Server) -> None:
    page = server.ask("GET", "/docs")
    policy = page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    (script,) = re.findall(rb"<script>(.*?)</script>", page.body, re.DOTALL)
    assert f"'sha256-{b64encode(sha256(script).digest()).decode()}'" in policy
    assert re.search(r"script-src [^;]*", policy)[0].count("'unsafe") == 0
    assert b"onload=" not in page.body


def test_the_host_header_does_not_change_addresses(server: Server) -> None:
    for path in (
        "/",
        "/page",
        "/page/",
        "/docs",
        "/openapi.json",
        "/v1/info",
        "/v1/info/",
        "/docs/assets",
        "/docs/assets/",
        "/nowhere",
    ):
        answer = server.send(f"GET {path} HTTP/1.1\r\nhost: evil.example\r\nx-forwarded-host: evil.example\r\n\r\n".encode())
        assert b"evil.example" not in answer.body, path
        assert "evil.example" not in str(answer.headers), path
