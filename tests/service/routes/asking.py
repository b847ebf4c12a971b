"""Requests to a real server, and checks of the common fields of answers."""

import orjson

from tests.service.serving import Answer, Server


def post(server: Server, path: str, body: object, **headers: str) -> Answer:
    return server.ask("POST", path, orjson.dumps(body), **{"content-type": "application/json", **headers})


def get(server: Server, path: str, **headers: str) -> Answer:
    return server.ask("GET", path, **headers)


def content(answer: Answer) -> dict:
    """Check the common fields of an answer, and return the other ones."""
    assert answer.status == 200, answer.body
    found = answer.json
    assert found.pop("request_id") == answer.headers["x-request-id"]
    assert "total;dur=" in answer.headers["server-timing"]
    assert len(answer.headers["server-timing"].split(",")) > 1
    assert found.pop("degraded") == []
    assert found.pop("exact") is True
    assert found.pop("sequence") == 0
    assert found.pop("bundle").startswith("000001-")
    return found


def refused(answer: Answer, status: int, *pointers: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    if pointers:
        assert tuple(answer.pointers) == pointers
