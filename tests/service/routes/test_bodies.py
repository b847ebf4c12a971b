"""Every path that reads a body refuses an invalid one, and names the faults."""

import pytest

from tests.service.routes.asking import post, refused
from tests.service.serving import Server
from tests.service.test_corpus import NOT_JSON

PATHS = [
    *("/v1/recommend", "/v1/recommend:batch", "/v1/explain", "/v1/why-not", "/v1/score", "/v1/user-vector"),
    *("/v1/items/7/similar", "/v1/items:upsert", "/v1/interactions", "/v1/users:upsert"),
]


@pytest.mark.parametrize("path", PATHS)
def test_invalid_json(server: Server, path: str) -> None:
    for name, body in NOT_JSON.items():
        answer = server.ask("POST", path, body, **{"content-type": "application/json"})
        assert answer.status == 400, name
        refused(answer, 400)


@pytest.mark.parametrize("path", PATHS)
def test_other_kinds_of_content(server: Server, path: str) -> None:
    for headers in ({}, {"content-type": "text/plain"}, {"content-type": "application/json", "content-encoding": "gzip"}):
        refused(server.ask("POST", path, b"{}", **headers), 415)
    refused(server.ask("POST", path, b" " * (1 << 20) + b"{}", **{"content-type": "application/json"}), 413)


@pytest.mark.parametrize("path", PATHS)
def test_other_values_than_objects_and_unknown_keys(server: Server, path: str) -> None:
    for body in ([], "text", 1, None):
        refused(post(server, path, body), 422, "")
    secret = "\u2028 secret" + "x" * 300
    answer = post(server, path, {"no such key": secret})
    refused(answer, 422)
    assert "/no such key" in answer.pointers
    assert "secret" not in answer.body.decode()
