"""Requests of a batch are answered as they would be alone."""

import threading
import time
from pathlib import Path

import pytest

from service.routers.recommendations import MOST_REQUESTS
from tests.service.publishing import Shop
from tests.service.routes.asking import content, post, refused
from tests.service.serving import Server, serving

BATCH = "/v1/recommend:batch"
GOOD = [
    {"user_id": "3", "n": 7},
    {},
    {"n": 7, "filter": {"genre": "noir"}},
    {"user_id": "a/b", "n": 4, "rules": [{"kind": "quota", "column": "genre", "most": 1}]},
    {"user_id": "5", "n": 3, "explain": True, "popularity": 0.5},
    {"user_id": "nobody", "n": 1000},
]


def test_each_answer_is_what_it_would_be_alone(server: Server) -> None:
    answer = post(server, BATCH, {"requests": GOOD}, x_request_id="mine")
    found = content(answer)["answers"]
    assert [one["status"] for one in found] == [200] * len(GOOD)
    assert [one["answer"] for one in found] == [server.post(one, x_request_id="mine").json for one in GOOD]


def test_an_invalid_request_is_refused_alone(server: Server) -> None:
    bad = [
        ({"n": 0}, "/n"),
        ({"user_di": "3"}, "/user_di"),
        ("text", ""),
        ({"features": {"aeg": 1}}, "/features/aeg"),
        ({"filter": {"gerne": "x"}}, "/filter/gerne"),
        ({"features": {"age": 1e38}, "popularity": 1e30}, "/popularity"),
    ]
    mixed = [one for good, (wrong, _) in zip(GOOD, bad, strict=True) for one in (wrong, good)]
    found = content(post(server, BATCH, {"requests": mixed}, x_request_id="mine"))["answers"]
    assert [one["answer"] for one in found[1::2]] == [server.post(one, x_request_id="mine").json for one in GOOD]
    for one, (wrong, pointer) in zip(found[::2], bad, strict=True):
        assert one["status"] == 422
        assert one["problem"] == server.post(wrong, x_request_id="mine").json
        assert [fault["pointer"] for fault in one["problem"]["errors"]] == [pointer]
        assert "answer" not in one


def test_a_batch_of_only_invalid_requests_names_the_bundle(server: Server) -> None:
    found = content(post(server, BATCH, {"requests": [{"n": -1}, []]}))
    assert [one["status"] for one in found["answers"]] == [422, 422]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, "/requests"), ({"requests": []}, "/requests"), ({"requests": {}}, "/requests"), ([], ""), ({"request": []}, None)],
)
def test_invalid_batches(server: Server, body: object, pointer: str | None) -> None:
    refused(post(server, BATCH, body), 422, *([pointer] if pointer is not None else ["/requests", "/request"]))


def test_a_long_batch_is_answered_from_one_snapshot(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        stop = threading.Event()

        def change() -> None:
            number = 0
            while not stop.is_set():
                body = {"items": [{"item_id": f"new {number}", "features": {"genre": "noir"}}]}
                assert post(server, "/v1/items:upsert", body).status == 200
                number += 1
                if number % 10 == 0:
                    own_shop.publish(seed=number)

        changing = threading.Thread(target=change)
        changing.start()
        moments, versions = set(), set()
        try:
            deadline = time.monotonic() + 60
            while len(moments) < 5 or len(versions) < 2:
                assert time.monotonic() < deadline
                found = post(server, BATCH, {"requests": [{"n": 1000, "user_id": str(one % 20)} for one in range(200)]}).json
                of = {(one["answer"]["bundle"], one["answer"]["sequence"]) for one in found["answers"]}
                assert of == {(found["bundle"], found["sequence"])}
                moments.add(found["sequence"])
                versions.add(found["bundle"])
        finally:
            stop.set()
            changing.join()


def test_the_size_of_a_batch_is_limited(server: Server) -> None:
    assert len(content(post(server, BATCH, {"requests": [{"n": 1}] * MOST_REQUESTS}))["answers"]) == MOST_REQUESTS
    refused(post(server, BATCH, {"requests": [{"n": 1}] * (MOST_REQUESTS + 1)}), 422, "/requests")
