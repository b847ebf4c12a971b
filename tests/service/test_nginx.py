"""The service behind nginx with its defaults, and as in the deployment guide."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving.nginx import DEFAULTS, GUIDE
from serving.nginx import nginx as proxied_by

from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, receive, request, serving

CUTTING = """
events {}
http { server { listen 80; location /recall/ { proxy_pass http://127.0.0.1:8000/; } } }
"""
JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None and "RECALL_REQUIRE_ALL" not in os.environ, reason="nginx is not installed"
)


@pytest.fixture(scope="module")
def behind(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(shop.root, tmp_path_factory.mktemp("log") / "server.log", "--root-path", "/recall") as server:
        server.wait()
        yield server


@contextmanager
def nginx(folder: Path, text: str, server: Server) -> Iterator[Server]:
    """nginx in front of a server, with all its files in one folder."""
    with proxied_by(folder, text, server.port) as begun:
        yield Server(begun.port, begun.process, begun.log)


@pytest.fixture(params=["defaults", "cutting", "guide"])
def proxied(behind: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Server, str]]:
    """A proxy and its path prefix."""
    text = {"defaults": DEFAULTS, "cutting": CUTTING, "guide": GUIDE.read_text(encoding="utf-8")}[request.param]
    with nginx(tmp_path, text, behind) as front:
        yield front, "" if request.param == "defaults" else "/recall"


def recommended(server: Server, path: str, **headers: str) -> Answer:
    return server.ask("POST", path, b'{"user_id": "3", "n": 5}', **JSON, **headers)


def test_answers_are_the_same_as_without_a_proxy(behind: Server, proxied: tuple[Server, str]) -> None:
    front, prefix = proxied
    expected = recommended(behind, "/v1/recommend").json
    for path in ("/v1/recommend", "/v1/recommend?x=1"):
        answer = recommended(front, prefix + path)
        assert answer.status == 200
        assert {**answer.json, "request_id": ""} == {**expected, "request_id": ""}
    assert front.ask("POST", f"{prefix}/v1/recommend", b"{", **JSON).status == 400
    assert front.ask("POST", f"{prefix}/v1/recommend", b'{"n": 0}', **JSON).status == 422
    for path in (
        "/v1/items/12",
        "/v1/items/a%2Fb",
        "/v1/items/a%2Fb/similar",
        "/v1/users/a%2Fb",
        "/page/main.js",
        "/health/ready",
    ):
        assert front.ask("GET", prefix + path).status == 200, path
    with front.connect() as connection:
        connection.sendall(request("HEAD", f"{prefix}/health/live", connection="close"))
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_the_documentation_finds_its_files(proxied: tuple[Server, str]) -> None:
    front, prefix = proxied
    page = front.ask("GET", f"{prefix}/docs").body.decode()
    links = re.findall(r"(?:src|href)=\"([^\"]+)\"|url: '([^']+)'", page)
    for first, second in links:
        assert front.ask("GET", f"{prefix}/{first or second}").status == 200


def test_the_guides_configuration_sets_limits_that_the_server_lacks(behind: Server, tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8").replace("timeout 10s", "timeout 1s")
    with nginx(tmp_path, text, behind) as front:
        with front.connect() as slow:
            slow.sendall(b"GET /recall/health/live HTTP/1.1\r\nhost: localhost\r\n")
            slow.settimeout(10)
            assert b"408" in slow.recv(100) or slow.recv(1) == b""
        with front.connect() as endless:
            try:
                endless.sendall(b"GET /recall/health/live HTTP/1.1\r\nhost: localhost\r\n" + b"x-filler: 1\r\n" * 10_000)
                assert receive(endless).status in (400, 431)
            except OSError:
                pass  # closed while more was sent
        with socket.socket() as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            greedy.connect(("127.0.0.1", front.port))
            body = b'{"requests": [' + b",".join([b'{"n": 1000}'] * 100) + b"]}"
            greedy.sendall(request("POST", "/recall/v1/recommend:batch", body, **JSON))
            assert front.ask("GET", "/recall/health/live").status == 200
        assert front.ask("POST", "/recall/v1/recommend", b" " * (2 << 20), **JSON).status == 413
