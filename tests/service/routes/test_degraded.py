"""Every answer reports degraded parts of the service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.publishing import Shop
from tests.service.routes.asking import get, post
from tests.service.serving import Answer, Server, serving

ASKED = {
    "/v1/recommend": {"user_id": "3", "n": 2},
    "/v1/recommend:batch": {"requests": [{"user_id": "3", "n": 2}]},
    "/v1/explain": {"user_id": "3", "item_id": "7"},
    "/v1/why-not": {"user_id": "3", "item_id": "7"},
    "/v1/score": {"user_id": "3", "items": ["7"]},
    "/v1/user-vector": {"user_id": "3"},
    "/v1/items/7/similar": {"n": 2},
}
READ = ("/v1/info", "/v1/users/3/recommendations", "/v1/items", "/v1/items/7", "/v1/items/7/similar")


def answers(server: Server) -> Iterator[tuple[str, Answer]]:
    yield from ((path, post(server, path, body)) for path, body in ASKED.items())
    yield from ((path, get(server, path)) for path in READ)


def parts(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [one["part"] for one in answer.json["degraded"]]


def test_a_bundle_other_than_the_live_one_is_reported(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    damaged = own_shop.publish(seed=1)
    (damaged / "manifest.json").write_text("{}")
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        for path, answer in answers(server):
            assert parts(answer) == ["bundle"], path
        (row,) = post(server, "/v1/recommend:batch", ASKED["/v1/recommend:batch"]).json["answers"]
        assert [one["part"] for one in row["answer"]["degraded"]] == ["bundle"]


@pytest.mark.parametrize("path", [*ASKED, *READ])
def test_nothing_is_reported_if_all_is_well(server: Server, path: str) -> None:
    assert parts(post(server, path, ASKED[path]) if path in ASKED and path not in READ else get(server, path)) == []
