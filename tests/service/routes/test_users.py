"""Changes of users over HTTP are stored, and used by the next request to any process, on any version."""

import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest

from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.users.sqlite import USERS_LIVE
from tests.service.publishing import ITEMS, ODD_IDS, USERS, Shop
from tests.service.serving import Answer, Server, request, serving
from tests.service.test_background_follower import wait_for
from tests.service.test_live import served_within

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def changed_shop(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A server of a shop whose users change; each test uses its own."""
    own = shop.in_(tmp_path_factory.mktemp("changing") / "bundles")
    own.publish(seed=1)
    return own


@pytest.fixture(scope="module")
def changing(changed_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(changed_shop.root, tmp_path_factory.mktemp("log") / "log") as server:
        server.wait()
        yield server


def send(server: Server, method: str, path: str, body: object = None, **headers: str) -> Answer:
    return server.ask(method, path, orjson.dumps(body), **JSON, **headers)


def took(server: Server, *pairs: tuple, **headers: str) -> Answer:
    interactions = [dict(zip(("user_id", "item_id", "time"), pair, strict=False)) for pair in pairs]
    return send(server, "POST", "/v1/interactions", {"interactions": interactions}, **headers)


def user(server: Server, user_id: str) -> dict:
    answer = server.ask("GET", "/v1/users/" + quote(user_id, safe=""))
    assert answer.status == 200, answer.body
    return answer.json


def ranked(server: Server, user_id: str) -> list[tuple[str, float]]:
    answer = server.post({"user_id": user_id, "n": 1000}).json
    assert answer["degraded"] == []
    return [(item["item_id"], item["score"]) for item in answer["items"]]


def test_an_interaction_is_in_the_history_and_the_seen_items_of_the_next_request(changing: Server, changed_shop: Shop) -> None:
    before = user(changing, "3")
    first, second = [item for item, _ in ranked(changing, "3")[:2]]
    answer = took(changing, ("3", first), (3, second))
    assert answer.status == 200
    bundle = changed_shop.root.joinpath("CURRENT").read_text().strip()
    assert answer.json == {
        "change": answer.json["change"],
        "known": 1,
        "unknown": [],
        "bundle": bundle,
        "request_id": answer.headers["x-request-id"],
    }
    after = user(changing, "3")
    assert after["history"] == [second, first, *before["history"]]
    assert after["seen"] == [second, first, *before["seen"]]
    assert after["features"] == before["features"]
    found = ranked(changing, "3")
    assert not {first, second} & {item for item, _ in found}
    plain = Recommender.load(changed_shop.root / "versions" / bundle)  # without live changes
    asked = Request("3", history=(second, first, *before["history"]), exclude=(first, second), n=1000)
    expected = plain.recommend(asked)
    plain.close()
    assert found == [(item.item_id, item.score) for item in expected.items]
    assert (changed_shop.root / USERS_LIVE).exists()


def test_a_new_user_is_served_from_posted_interactions(changing: Server) -> None:
    assert changing.post({"user_id": "new"}).json["user"] == "unknown"
    assert changing.ask("GET", "/v1/users/new").status == 404
    answer = send(changing, "POST", "/v1/users:upsert", {"users": [{"user_id": "new", "features": {"age": 33.5}}]})
    more = {"warnings": [], "request_id": answer.headers["x-request-id"]}
    assert answer.json == {"change": answer.json["change"], "known": 0, **more}
    odd = send(changing, "PUT", "/v1/users/odd", {"features": {"age": 1e6}})
    assert "'age' is more than 10 standard deviations" in odd.json["warnings"][0]
    took(changing, ("new", "1"), ("new", "2"))
    given = changing.post({"user_id": "new", "n": 1000}).json
    assert given["user"] == "known"
    same = {"features": {"age": 33.5}, "history": ["2", "1"], "n": 1000}
    assert given["items"] == changing.post(same).json["items"]
    assert user(changing, "new")["seen"] == ["2", "1"]


def test_items_that_the_catalogue_lacks_are_stored_and_named(changing: Server) -> None:
    answer = took(changing, ("10", "fresh"), ("10", "7"), ("11", "fresh"), ("11", "other"))
    assert answer.json["unknown"] == ["fresh", "other"]
    assert user(changing, "10")["history"][:2] == ["7", "fresh"]
    send(changing, "POST", "/v1/items:upsert", {"items": [{"item_id": "fresh", "features": {"genre": "noir"}}]})
    assert "fresh" not in dict(ranked(changing, "10"))
    assert "fresh" in dict(ranked(changing, "12"))
    assert took(changing, ("12", "fresh")).json["unknown"] == []


def test_times_order_interactions(changing: Server) -> None:
    took(changing, ("timed", "1", 100), ("timed", "2", "1970-01-01T00:00:50Z"), ("timed", "3", "1970-01-01T01:01:15+01:00"))
    took(changing, ("timed", "4"), ("timed", "5", 99.5))
    assert user(changing, "timed")["history"] == ["4", "1", "5", "3", "2"]


def test_put_replaces_upsert_merges_and_delete_removes_users(changing: Server) -> None:
    before = user(changing, "13")
    assert send(changing, "PUT", "/v1/users/13", {"features": {"age": 20}, "history": ["1"], "seen": [2]}).json["known"] == 1
    put = user(changing, "13")
    assert (put["features"], put["history"], put["seen"]) == ({"age": 20}, ["1"], ["1", "2"])
    upsert = {"users": [{"user_id": "13", "features": {"likes": ["noir"], "age": None}}, {"user_id": 14, "history": []}]}
    assert send(changing, "POST", "/v1/users:upsert", upsert).json["known"] == 2
    upserted = user(changing, "13")
    assert (upserted["features"], upserted["history"], upserted["seen"]) == ({"likes": ["noir"]}, ["1"], ["1", "2"])
    assert user(changing, "14")["history"] == []
    assert user(changing, "14")["seen"]
    deleted = changing.ask("DELETE", "/v1/users/13")
    assert (deleted.status, deleted.json["known"]) == (200, 1)
    assert changing.ask("DELETE", "/v1/users/13").json["known"] == 0
    assert changing.ask("GET", "/v1/users/13").status == 404
    assert changing.post({"user_id": "13"}).json["user"] == "unknown"
    assert send(changing, "PUT", "/v1/users/13", {}).json["known"] == 0
    assert user(changing, "13")["history"] == []
    assert before["history"]


def test_odd_ids_are_returned_unchanged(changing: Server) -> None:
    for user_id in (*ODD_IDS, "ends with\n", "%0A", "a?b#c", "a/recommendations", "x" * 1024):
        item = ITEMS[-1]
        assert took(changing, (user_id, item), (user_id, user_id)).status == 200
        found = user(changing, user_id)
        assert found["user_id"] == user_id
        assert found["history"][:2] == [user_id, item]
        path = "/v1/users/" + quote(user_id, safe="")
        assert send(changing, "PUT", path, {"history": [user_id]}).json["known"] == 1
        assert user(changing, user_id)["history"] == [user_id]
        assert changing.ask("DELETE", path).json["known"] == 1
        assert changing.ask("GET", path).status == 404


def test_a_change_sent_again_with_its_key_is_applied_once(changing: Server) -> None:
    before = user(changing, "15")["history"]
    first = took(changing, ("15", "1"), idempotency_key="one").json["change"]
    for _ in range(2):
        assert took(changing, ("15", "1"), idempotency_key="one").json["change"] == first
    assert user(changing, "15")["history"] == ["1", *before]
    assert took(changing, ("15", "2"), idempotency_key="one").pointers == ["/key"]
    assert took(changing, ("15", "2"), idempotency_key="").status == 422
    for _ in range(2):
        assert send(changing, "PUT", "/v1/users/15", {}, idempotency_key="two").json["change"] == first + 1
        assert changing.ask("DELETE", "/v1/users/15", idempotency_key="three").json["change"] == first + 2
    assert changing.ask("GET", "/v1/users/15").status == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "pointers"),
    [
        ("POST", "/v1/interactions", {}, ["/interactions"]),
        ("POST", "/v1/interactions", {"interactions": []}, ["/interactions"]),
        ("POST", "/v1/interactions", {"interactions": [{"user_id": "a"}]}, ["/interactions/0/item_id"]),
        ("POST", "/v1/interactions", {"interactions": [{"user_id": "a", "item_id": ""}]}, ["/interactions/0/item_id"]),
        ("POST", "/v1/interactions", {"interactions": [{"user_id": "a", "item_id": "b", "tme": 1}]}, ["/interactions/0/tme"]),
        *(
            (
                "POST",
                "/v1/interactions",
                {"interactions": [{"user_id": "a", "item_id": "b"}, {"user_id": "a", "item_id": "b", "time": wrong}]},
                ["/interactions/1/time"],
            )
            for wrong in (True, "now", "2026-01-31T18:00:00", "2026-13-31T18:00:00Z", 1e300, 1769882400000000, [], "9" * 5000)
        ),
        ("PUT", "/v1/users/a", {"feature": {}}, ["/feature"]),
        ("PUT", "/v1/users/a", {"features": {"agee": 1}}, ["/features/agee"]),
        ("PUT", "/v1/users/a", {"features": {"age": "old"}}, ["/features/age"]),
        ("PUT", "/v1/users/a", {"features": {"user_id": "b"}}, ["/features/user_id"]),
        ("PUT", "/v1/users/a", {"features": {"device": "phone"}}, ["/features/device"]),
        ("PUT", "/v1/users/a", {"history": "1"}, ["/history"]),
        ("PUT", "/v1/users/a", {"seen": [""]}, ["/seen/0"]),
        ("POST", "/v1/users:upsert", {"users": []}, ["/users"]),
        ("POST", "/v1/users:upsert", {"users": [{"user_id": "a"}, {"features": {}}]}, ["/users/1/user_id"]),
        (
            "POST",
            "/v1/users:upsert",
            {"users": [{"user_id": "a", "features": {"age": 1}}, {"user_id": "b", "features": {"age": [1]}}]},
            ["/users/1/features/age"],
        ),
    ],
)
def test_faults_are_named_and_nothing_changes(
    server: Server, shop: Shop, method: str, path: str, body: object, pointers: list[str]
) -> None:
    answer = send(server, method, path, body)
    assert answer.status == 422
    assert answer.pointers == pointers
    assert not (shop.root / USERS_LIVE).exists()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *((method, "/v1/users/%FF", 422) for method in ("GET", "DELETE")),
        *((method, "/v1/users/" + "x" * 1025, 422) for method in ("GET", "DELETE")),
        ("POST", "/v1/users/a", 405),
        ("GET", "/v1/users/nobody", 404),
        ("GET", "/v1/interactions", 405),
    ],
)
def test_paths_without_a_valid_user(server: Server, shop: Shop, method: str, path: str, status: int) -> None:
    assert server.ask(method, path).status == status
    assert not (shop.root / USERS_LIVE).exists()


def test_users_of_a_single_bundle_cannot_change(own_shop: Shop, tmp_path: Path) -> None:
    with serving(own_shop.publish(seed=0), tmp_path / "log") as server:
        server.wait()
        assert took(server, ("3", "1")).status == 409
        assert send(server, "PUT", "/v1/users/3", {}).status == 409
        assert user(server, "3")["history"]


def test_changes_reach_every_process_at_once_and_apply_to_every_version(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "a") as one, serving(own_shop.root, tmp_path / "b") as other:
        for server in (one, other):
            server.wait()
        for number, (writer, reader) in enumerate([(one, other), (other, one)] * 5):
            took(writer, ("3", f"i{number}"))
            assert user(reader, "3")["history"][0] == f"i{number}"
        kept = user(one, "3")["history"]
        folder = own_shop.publish(seed=1)
        for server in (one, other):
            served_within(server, folder.name)
            assert user(server, "3")["history"] == kept
    with serving(own_shop.root, tmp_path / "c") as again:
        again.wait()
        assert user(again, "3")["history"] == kept


def test_the_next_request_to_any_worker_includes_a_change(workers: Server) -> None:
    known: list[str] = []
    for number in range(40):  # each over a new connection, to any worker
        known.insert(0, f"i{number}")
        assert took(workers, ("u", known[0])).json["change"] == number + 1
        assert user(workers, "u")["history"] == known


def test_acknowledged_changes_of_users_survive_kill_9(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    acknowledged: list[str] = []
    for life in range(3):
        with serving(own_shop.root, tmp_path / f"log{life}") as server:
            server.wait()

            def post(life: int = life, server: Server = server) -> None:
                for number in range(10_000):
                    try:
                        answer = took(server, ("u", f"{life} {number}"), idempotency_key=f"{life}-{number}")
                    except OSError:
                        return
                    assert answer.status == 200
                    acknowledged.append(f"{life} {number}")

            posting = threading.Thread(target=post)
            posting.start()
            have = len(acknowledged)
            deadline = time.monotonic() + 20
            while len(acknowledged) < have + 20:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            server.process.send_signal(signal.SIGKILL)
            posting.join(20)
            assert not posting.is_alive()
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        seen = user(server, "u")["seen"]
        assert set(acknowledged) <= set(seen)
        assert len(seen) <= len(acknowledged) + 3  # the last change before each kill may be stored or not
        assert took(server, ("u", "0 0"), idempotency_key="0-0").json["change"] == 1


@pytest.mark.slow
def test_a_change_during_another_write_gets_503(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        assert took(server, ("u", "1")).status == 200
        other = sqlite3.connect(own_shop.root / USERS_LIVE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            answer = took(server, ("u", "2"), idempotency_key="again")  # after five seconds
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert user(server, "u")["history"] == ["1"]
        assert took(server, ("u", "2"), idempotency_key="again").status == 200
        assert user(server, "u")["history"] == ["2", "1"]


def sequence_without_wal(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        return int(connection.execute("SELECT sequence FROM state").fetchone()[0])


def test_a_full_disk_is_reported_and_recovers_without_a_restart(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        assert took(server, ("u", "1")).status == 200
        wait_for(lambda: sequence_without_wal(own_shop.root / USERS_LIVE) == 1)  # the checkpoint of an idle store has been made
        assert user(server, "u")["history"] == ["1"]
        log = (own_shop.root / USERS_LIVE).with_name(USERS_LIVE + "-wal")
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
        for _ in range(3):
            answer = took(server, ("u", "2"), idempotency_key="again")
            assert answer.status in (500, 507)
            assert answer.json["detail"]
            assert user(server, "u")["history"] == ["1"]
            assert server.post({"user_id": "u"}).json["degraded"] == []
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert took(server, ("u", "2"), idempotency_key="again").status == 200
        assert user(server, "u")["history"] == ["2", "1"]


def test_a_damaged_store_is_reported_and_requests_are_answered_without_it(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        expected = server.post({"user_id": "3"}).json["items"]
        (own_shop.root / USERS_LIVE).write_bytes(b"no database " * 1000)
        answer = server.post({"user_id": "3"}).json
        assert answer["items"] == expected
        assert [one["part"] for one in answer["degraded"]] == ["users"]
        assert "not known" in answer["degraded"][0]["reason"]
        assert str(own_shop.root) not in answer["degraded"][0]["reason"]
        assert server.post({}).json["degraded"] == []
        assert took(server, ("3", "1")).status == 500
        shown = user(server, "3")
        assert shown["history"]
        assert [one["part"] for one in shown["degraded"]] == ["users"]
        assert server.ask("GET", "/v1/users/nobody").status == 503
        wait_for(lambda: server.ask("GET", "/health/ready").json["degraded"])
        assert server.ask("GET", "/health/ready").json["degraded"] == answer["degraded"]
        assert server.ask("GET", "/v1/info").json["degraded"] == answer["degraded"]
        (own_shop.root / USERS_LIVE).unlink()
        assert took(server, ("3", "1")).status == 200
        wait_for(lambda: not server.ask("GET", "/health/ready").json["degraded"])
        assert server.post({"user_id": "3"}).json["degraded"] == []


def test_a_pipelined_request_includes_the_change_of_the_previous_one(changing: Server) -> None:
    body = orjson.dumps({"interactions": [{"user_id": "16", "item_id": "new item"}]})
    with changing.connect() as connection:
        connection.sendall(request("POST", "/v1/interactions", body, **JSON) + request("GET", "/v1/users/16"))
        received = b""
        while b"new item" not in received:
            more = connection.recv(65536)
            assert more, received
            received += more


def walk(server: Server, size: int, between: Callable[[int], None] = lambda number: None) -> list[str]:
    found: list[str] = []
    token, number = "", 0
    while True:
        page = server.ask("GET", f"/v1/users?page_size={size}&page_token={token}")
        assert page.status == 200, page.body
        assert len(page.json["users"]) <= size
        found += [one["user_id"] for one in page.json["users"]]
        if not (token := page.json["next_page_token"]):
            return found
        between(number := number + 1)


def test_users_are_listed_page_by_page_while_they_change(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        assert walk(server, 1) == walk(server, 7) == walk(server, 1000) == sorted(USERS)
        default = server.ask("GET", "/v1/users").json
        assert [one["user_id"] for one in default["users"]] == sorted(USERS)
        assert default["bundle"]

        def change(number: int) -> None:
            if number == 2:
                assert took(server, ("-before", "7"), ("zz", "7")).status == 200
                assert send(server, "PUT", "/v1/users/3", {"history": ["7"]}).status == 200
                for gone in ("5", "true", "nobody"):
                    assert server.ask("DELETE", f"/v1/users/{gone}").status == 200
            if number == 4:
                served_within(server, own_shop.publish(seed=1).name)

        found = walk(server, 4, change)
        assert len(found) == len(set(found))
        assert set(found) >= {*USERS, "zz"} - {"5", "true"}
        for size in (1, 3, 1000):
            assert walk(server, size) == sorted({*USERS, "zz", "-before"} - {"5", "true"})
        for number in range(20):  # whole pages of deleted users
            assert server.ask("DELETE", f"/v1/users/{number}").status == 200
        assert walk(server, 2) == sorted({*USERS, "zz", "-before"} - {"true"} - set(map(str, range(20))))


def test_users_are_found_by_the_beginning_of_their_ids(server: Server) -> None:
    expected, found, token = sorted(one for one in USERS if one.startswith("1")), [], ""
    while True:
        page = server.ask("GET", f"/v1/users?prefix=1&page_size=4&page_token={token}").json
        found += [one["user_id"] for one in page["users"]]
        if not (token := page["next_page_token"]):
            break
    assert found == expected
    assert len(found) == 11
    assert server.ask("GET", "/v1/users?prefix=nobody").json["users"] == []


def test_a_search_takes_no_prefix_and_has_one_page(server: Server) -> None:
    token = server.ask("GET", "/v1/users?page_size=1").json["next_page_token"]
    for other in ("prefix=1", f"page_token={token}"):
        answer = server.ask("GET", f"/v1/users?search=1&{other}")
        assert (answer.status, answer.pointers) == (422, ["/search"])
    assert server.ask("GET", "/v1/users?search=1&prefix=&page_token=").status == 200


def test_an_unavailable_page_of_users_is_a_problem(changing: Server) -> None:
    for query in ("page_size=-1", "page_size=x", "page_token=x", "after=3", "page_size=1&page_size=2"):
        answer = changing.ask("GET", f"/v1/users?{query}")
        assert answer.status == 422, query
        assert answer.json["type"] == "urn:fm-recall:problem:invalid-request"
