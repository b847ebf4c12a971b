"""Scenarios, pages of one list, and interactions that name the list they come from."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from hashlib import blake2b
from pathlib import Path
from threading import Event

import pytest

from recall.bundle.versions import SCENARIOS
from recall.serving.recommender import Recommender, Request
from recall.serving.rerank.rules import Quota
from service.scenarios import Scenarios
from tests.service.publishing import Shop
from tests.service.routes.asking import content, get, post, refused
from tests.service.serving import Server, serving

HOME = """
[home]
description = "Start page"
n = 4
fields = ["genre"]
filter = {year = {gte = 1951}}
rules = [{kind = "quota", column = "genre", most = 3}]
popularity = 0.5
exclude = ["7"]

[shelves]
because = 2
n = 3
"""


@pytest.fixture(scope="module")
def root(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(shutil.copytree(shop.root, tmp_path_factory.mktemp("scenarios") / "bundles"))
    (root / SCENARIOS).write_text(HOME)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with serving(root, root.parent / "server.log", "--poll", "0.1", "--age", "30") as server:
        server.wait()
        yield server


def home(server: Server, body: dict, name: str = "home") -> dict:
    return content(post(server, f"/v1/scenarios/{name}:recommend", body))


def ids(items: list[dict]) -> list[str]:
    return [one["item_id"] for one in items]


def test_a_request_for_a_new_scenario_waits_for_the_look_that_reads_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios, reading, go_on = Scenarios(root), Event(), Event()
    os.utime(root / SCENARIOS, (1e9, 1e9))  # one that was just written is left for the next look
    with Recommender.load(root) as recommender:

        def recommend(request: Request) -> None:
            reading.set()
            assert go_on.wait(20)

        monkeypatch.setattr(recommender, "recommend", recommend)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(scenarios.look, recommender)
            assert reading.wait(20)
            second = pool.submit(lambda: (scenarios.look(recommender), scenarios.known)[1])
            wait([second], 0.1)  # without the lock it ends here, with no scenario
            go_on.set()
            assert "home" in second.result(20)
            first.result(20)


def test_a_scenario_is_its_settings_with_the_user_of_the_request(server: Server, root: Path) -> None:
    with Recommender.load(root) as recommender:
        settings = {
            "filter": {"year": {"gte": 1951}},
            "rules": (Quota("genre", 3),),
            "popularity": 0.5,
            "fields": ("genre",),
        }
        expected = recommender.recommend(Request("3", n=4, exclude=("7",), **settings))
        more = recommender.recommend(Request(history=("12",), context={"device": "web"}, n=6, exclude=("7", "9"), **settings))
    found = home(server, {"user_id": "3"})
    assert found["scenario"] == "home"
    assert ids(found["items"]) == list(expected.ids)
    assert [one["fields"] for one in found["items"]] == list(expected.fields)
    assert found["recommendation_id"]
    found = home(server, {"history": ["12"], "context": {"device": "web"}, "n": 6, "exclude": ["9"]})
    assert ids(found["items"]) == list(more.ids)
    shelves = home(server, {"user_id": "3"}, "shelves")
    assert [len(one["items"]) for one in (shelves, *shelves["rows"])] == [3, 3, 3]


def test_what_a_scenario_sets_cannot_be_overridden(server: Server) -> None:
    answer = post(server, "/v1/scenarios/home:recommend", {"user_id": "3", "rules": [], "filter": {}, "usr": 1})
    refused(answer, 422, "/rules", "/filter", "/usr")
    said = {one["pointer"]: one["message"] for one in answer.json["errors"]}
    assert said["/rules"].startswith("Only a scenario sets this. A request may have user_id, features, context, history, n")
    assert "Did you mean 'user_id'" in said["/usr"]
    answer = post(server, "/v1/scenarios/hom:recommend", {})
    refused(answer, 404)
    assert "'home'" in answer.json["detail"]


def test_a_broken_edit_keeps_the_scenarios_before_it(server: Server, root: Path) -> None:
    before = get(server, "/v1/scenarios").json
    assert {one["name"]: one["description"] for one in before["scenarios"]} == {"home": "Start page", "shelves": ""}
    assert before["scenarios"][1]["settings"] == {"because": 2, "n": 3}
    assert before["degraded"] == []
    try:
        for wrong, said in (
            ("[home]\nn = 0\n", "/n: Input should be greater"),
            ("[home]\nrulse = []\n", "/rulse: This key is not known. Did you mean 'rules'?"),
            ("[home]\nuser_id = 'x'\n", "/user_id"),
            ("[home\n", "Expected"),
            ("[home]\nallow = " + 5_000 * "[" + 5_000 * "]", "nested too deeply"),
            ("n = 5\n", "'n' is a key outside of a scenario"),
            ("[home]\nfields = ['gerne']\n", "/fields/0: items have no such column. Did you mean 'genre'?"),
            ("[home]\nfilter = {gerne = 'noir'}\n", "/filter/gerne"),
        ):
            (root / SCENARIOS).write_text(wrong)
            degraded = until(lambda: get(server, "/v1/scenarios").json["degraded"], said)
            assert degraded[0]["part"] == "scenarios"
            assert [one["part"] for one in get(server, "/health/ready").json["degraded"]] == ["scenarios"]
            answer = post(server, "/v1/scenarios/home:recommend", {"user_id": "3"}).json
            assert answer["scenario"] == "home"
            assert answer["degraded"][0]["part"] == "scenarios"
        assert get(server, "/v1/scenarios").json["scenarios"] == before["scenarios"]
        (root / SCENARIOS).write_text(HOME + "[fresh]\nn = 1\n")
        until(lambda: post(server, "/v1/scenarios/fresh:recommend", {}).status, "200")
    finally:
        (root / SCENARIOS).write_text(HOME)
    until(lambda: get(server, "/v1/scenarios").json["degraded"] or "nothing", "nothing")


def until(ask, said: str):
    deadline = time.monotonic() + 20
    while said not in str(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


PAGED = {
    "plain": {"user_id": "3", "n": 7},
    "shaped": {
        "n": 7,
        "rules": [{"kind": "dedupe", "column": "item_id"}, {"kind": "pin", "items": {"12": 3}}],
        "channels": {"lists": [{"kind": "model"}, {"kind": "list", "name": "editors", "items": ["12", "7"]}]},
        "boosts": {"year": 0.01},
        "filter": {"genre": {"in": ["noir", "drama"]}},
        "fields": ["genre"],
        "features": {"age": 31},
        "history": ["3", 9],
    },
    "explained": {"n": 30, "explain": True},
}


@pytest.mark.parametrize("name", PAGED)
def test_pages_are_the_parts_of_one_list(server: Server, name: str) -> None:
    body = PAGED[name]
    page = content(post(server, "/v1/recommend", {**body, "tokens": True}))
    whole = content(post(server, "/v1/recommend", {**body, "n": 1000 if "explain" not in body else 100}))
    found = list(page["items"])
    while token := page["next_page_token"]:
        page = content(post(server, "/v1/recommend", {"page_token": token}))
        assert 0 < len(page["items"]) <= body["n"]
        found += page["items"]
    assert ids(found) == ids(whole["items"])
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in whole["items"]], rel=1e-6)
    if name == "shaped":
        assert [one["sources"] for one in found] == [one["sources"] for one in whole["items"]]
        assert [one["fields"] for one in found] == [one["fields"] for one in whole["items"]]


def test_pages_of_a_scenario_repeat_nothing_when_the_user_takes_something(server: Server) -> None:
    first = home(server, {"user_id": "5"}, "shelves")
    shown = ids(first["items"]) + [item for row in first["rows"] for item in ids(row["items"])]
    taken = {"user_id": "5", "item_id": first["items"][0]["item_id"], "recommendation_id": first["recommendation_id"]}
    assert post(server, "/v1/interactions", {"interactions": [taken]}).status == 200
    second = home(server, {"page_token": first["next_page_token"], "n": 5}, "shelves")
    assert second["scenario"] == "shelves"
    assert len(second["items"]) == 5
    assert "rows" not in second
    assert not set(shown) & set(ids(second["items"]))


def test_wrong_tokens_are_refused_by_name(server: Server) -> None:
    first = home(server, {"user_id": "4"})
    token = first["next_page_token"]
    refused(post(server, "/v1/recommend", {"page_token": token, "user_id": "4", "fields": []}), 422, "/fields", "/user_id")
    refused(post(server, "/v1/recommend", {"page_token": token[:-2]}), 422, "/page_token")
    refused(post(server, "/v1/recommend", {"page_token": ""}), 422, "/page_token")
    refused(post(server, "/v1/scenarios/shelves:recommend", {"page_token": token}), 422, "/page_token")
    refused(post(server, "/v1/recommend:batch", {"requests": "x"}), 422, "/requests")
    batch = post(server, "/v1/recommend:batch", {"requests": [{"page_token": token}, {"tokens": True}]}).json["answers"]
    assert [one["status"] for one in batch] == [422, 422]
    wrong = {"user_id": "4", "item_id": "1", "recommendation_id": token}
    refused(post(server, "/v1/interactions", {"interactions": [wrong]}), 422, "/interactions/0/recommendation_id")


def test_what_is_refused_without_tokens_is_refused_with_them(server: Server) -> None:
    for body, pointer in (
        ({"n": 3, "rules": [{"kind": "pin", "items": {"12": 4}}]}, "/rules/0/items"),
        ({"n": 200, "explain": True}, "/n"),
    ):
        one, other = (post(server, "/v1/recommend", {**body, "tokens": tokens}) for tokens in (False, True))
        refused(one, 422, pointer)
        refused(other, 422, pointer)
        assert one.json["errors"] == other.json["errors"]
    pinned = {"n": 3, "rules": [{"kind": "pin", "items": {"12": 3}}], "tokens": True}
    token = content(post(server, "/v1/recommend", pinned))["next_page_token"]
    assert len(content(post(server, "/v1/recommend", {"page_token": token, "n": 1}))["items"]) == 1


def test_the_token_of_a_long_request_is_read(server: Server) -> None:
    ids = [blake2b(str(one).encode()).hexdigest()[:24] for one in range(9_900)]
    body = {"n": 2, "tokens": True, "exclude": ids}
    token = content(post(server, "/v1/recommend", body))["next_page_token"]
    assert len(token) > 1 << 16
    assert len(content(post(server, "/v1/recommend", {"page_token": token}))["items"]) == 2
    longer = {**body, "exclude": [blake2b(one.encode()).hexdigest()[:64] for one in ids], "allow": [*ids, "3", "7", "9"]}
    answer = post(server, "/v1/recommend", longer)
    refused(answer, 422, "")
    assert "A page token of this request has" in answer.json["errors"][0]["message"]


def test_a_pipe_in_place_of_the_scenarios_stops_nothing(server: Server, root: Path) -> None:
    (root / SCENARIOS).unlink()
    os.mkfifo(root / SCENARIOS)
    try:
        until(lambda: get(server, "/v1/scenarios").json["degraded"], "it is not a file")
    finally:
        (root / SCENARIOS).unlink()
        (root / SCENARIOS).write_text(HOME)
    until(lambda: get(server, "/v1/scenarios").json["degraded"] or "nothing", "nothing")


def test_hit_rates_are_counted_by_scenario_and_version(server: Server) -> None:
    def counted() -> dict[str, tuple[int, int]]:
        return {one["scenario"]: (one["answers"], one["hits"]) for one in get(server, "/v1/scenarios").json["attribution"]}

    before = counted()
    first, plain = home(server, {"user_id": "6"}), content(post(server, "/v1/recommend", {"user_id": "6", "tokens": True}))
    assert "scenario" not in plain
    other = next(str(one) for one in range(60) if str(one) not in ids(first["items"]))
    interactions = [
        {"user_id": "6", "item_id": first["items"][1]["item_id"], "recommendation_id": first["recommendation_id"]},
        {"user_id": "6", "item_id": other, "recommendation_id": first["recommendation_id"]},
        {"user_id": "6", "item_id": plain["items"][0]["item_id"], "recommendation_id": plain["recommendation_id"]},
        {"user_id": "6", "item_id": "12"},
    ]
    for _ in range(2):  # sent again under its key, it is not taken twice
        assert post(server, "/v1/interactions", {"interactions": interactions}, **{"Idempotency-Key": "once"}).status == 200
    after = counted()
    assert [a - b for a, b in zip(after["home"], before["home"], strict=True)] == [1, 1]
    assert [a - b for a, b in zip(after[""], before.get("", (0, 0)), strict=True)] == [1, 1]
    bundle = get(server, "/v1/info").json["bundle"]
    line = f'recall_attributed_interactions_total{{listed="no",scenario="home",version="{bundle}"}} 1.0'
    assert line in get(server, "/metrics").body.decode()


def test_a_page_of_another_version_is_gone(server: Server, root: Path, shop: Shop) -> None:
    token = home(server, {"user_id": "4"})["next_page_token"]
    before = get(server, "/v1/info").json["bundle"]
    shop.in_(root).publish(seed=2)
    until(lambda: get(server, "/v1/info").json["bundle"] != before, "True")
    answer = post(server, "/v1/recommend", {"page_token": token})
    refused(answer, 410, "/page_token")
    assert before in answer.json["errors"][0]["message"]


@pytest.mark.slow
def test_all_workers_and_replicas_read_the_tokens_of_each(shop: Shop, tmp_path: Path) -> None:
    root, replica = (Path(shutil.copytree(shop.root, tmp_path / name)) for name in ("root", "replica"))
    secret = {"RECALL_TOKEN_KEY": "the same on all machines"}
    options = ("--workers", "2", "--age", "30")
    with (
        serving(root, tmp_path / "one.log", *options, environment=secret) as one,
        serving(replica, tmp_path / "two.log", *options, environment=secret) as two,
    ):
        one.wait()
        two.wait()
        for number in range(6):  # each over its own connection, which any worker accepts
            first = content(post(one, "/v1/recommend", {"user_id": "9", "n": 5, "tokens": True}))
            for server in (one, two):
                page = content(post(server, "/v1/recommend", {"page_token": first["next_page_token"]}))
                assert not set(ids(first["items"])) & set(ids(page["items"]))
            taken = {
                "user_id": f"n{number}",
                "item_id": first["items"][0]["item_id"],
                "recommendation_id": first["recommendation_id"],
            }
            assert post(one, "/v1/interactions", {"interactions": [taken]}).status == 200
        (counted,) = get(one, "/v1/scenarios").json["attribution"]
        assert (counted["answers"], counted["hits"]) == (12, 6)


def test_a_file_that_cannot_be_examined_is_logged_once(tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / SCENARIOS).symlink_to(SCENARIOS)  # to itself
    scenarios = Scenarios(tmp_path)
    with Recommender.load(root) as recommender:
        for _ in range(2):
            scenarios.look(recommender)
    assert scenarios.degraded
    assert caplog.text.count("the scenarios before it stay") == 1
