"""Versions over HTTP: list, activate, roll back; damaged ones are refused."""

import shutil
import time
from pathlib import Path

import orjson
import pytest

from recall._file_system import locked
from recall.bundle.versions import LOCK, live_name, publish, resolve, staging, versions
from recall.serving.recommender import Recommender, Request
from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, serving
from tests.service.test_live import damage, expected_items, served_within

BODY = orjson.dumps({"user_id": "3", "n": 20})


@pytest.fixture
def three(own_shop: Shop) -> list[str]:
    return [folder.name for folder in own_shop.publish_all(0, 1, 2)]


def post(server: Server, path: str, **headers: str) -> Answer:
    return server.ask("POST", path, b"", **headers)


def test_versions_are_listed_activated_and_rolled_back(own_shop: Shop, three: list[str], tmp_path: Path) -> None:
    root = own_shop.root
    with serving(root, tmp_path / "log", "--poll", "60") as server:
        server.wait()
        answer = server.ask("GET", "/v1/models")
        assert answer.headers["etag"] == f'"{three[2]}"'
        assert (answer.json["live"], answer.json["served"]) == (three[2], three[2])
        assert [one["version"] for one in answer.json["models"]] == three[::-1]
        assert [(one["live"], one["served"]) for one in answer.json["models"]] == [(True, True), (False, False), (False, False)]
        assert all(one["bytes"] > 1000 and one["golden"] >= 10 and one["fault"] is None for one in answer.json["models"])
        one = server.ask("GET", f"/v1/models/{three[0]}").json
        assert (one["sequence"], one["kind"], one["index"], one["items"]) == (1, "fm", "exact", 79)
        assert one["origin"]["config"]["name"] == "shop"
        assert one["origin"]["schema"]["fields"]["age"]["kind"] == "numeric"
        assert not {"golden", "files"} & set(one["origin"])

        answer = post(server, f"/v1/models/{three[0]}:activate")
        assert (answer.status, answer.json["version"], answer.json["previous"]) == (200, three[0], three[2])
        assert live_name(root) == three[0]
        served = server.post(BODY).json
        assert (served["bundle"], served["items"]) == (three[0], expected_items(root / "versions" / three[0]))
        back = post(server, "/v1/models:rollback")
        assert (back.json["version"], back.json["previous"]) == (three[2], three[0])
        for expected in (three[1], three[0]):
            assert post(server, "/v1/models:rollback").json["version"] == expected
        assert server.post(BODY).json["bundle"] == three[0]
        end = post(server, "/v1/models:rollback")
        assert (end.status, end.json["type"]) == (409, "urn:fm-recall:problem:no-way-back")
        again = post(server, f"/v1/models/{three[0]}:activate")
        assert (again.status, again.json["previous"]) == (200, three[0])


def test_if_match_guards_against_concurrent_activation(own_shop: Shop, three: list[str], tmp_path: Path) -> None:
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        for path in (f"/v1/models/{three[0]}:activate", "/v1/models:rollback"):
            for wrong in (f'"{three[1]}"', three[2], "*x", 'W/"{three[2]}"', ""):
                answer = post(server, path, if_match=wrong)
                assert (answer.status, answer.json["type"]) == (412, "urn:fm-recall:problem:version-moved")
        assert live_name(own_shop.root) == three[2]
        right = f'"{three[1]}", "{three[2]}"'
        assert post(server, f"/v1/models/{three[0]}:activate", if_match=right).status == 200
        assert post(server, f"/v1/models/{three[1]}:activate", if_match="*").status == 200


def test_a_damaged_version_is_refused_and_nothing_changes(own_shop: Shop, three: list[str], tmp_path: Path) -> None:
    root = own_shop.root
    damage(root / "versions" / three[0])
    cut = root / "versions" / three[1] / "index.faiss"
    size = cut.stat().st_size
    cut.chmod(0o644)
    cut.write_bytes(cut.read_bytes()[:-10])
    with serving(root, tmp_path / "log") as server:
        server.wait()
        answer = post(server, f"/v1/models/{three[0]}:activate")
        assert answer.status == 409
        assert answer.json["type"] == "urn:fm-recall:problem:bundle-refused"
        message = answer.json["errors"][0]["message"]
        assert "item_vectors.safetensors" in message
        assert "SHA-256" in message
        assert str(root) not in message
        answer = post(server, f"/v1/models/{three[1]}:activate")
        assert f"the file has {size - 10} bytes, the manifest says {size}" in answer.json["errors"][0]["message"]
        assert post(server, "/v1/models:rollback").status == 409
        assert live_name(root) == three[2]
        assert server.post(BODY).json["bundle"] == three[2]
        assert server.wait().json["degraded"] == []
        (root / "versions" / three[1] / "manifest.json").write_text("{}")
        assert "format_version" in server.ask("GET", f"/v1/models/{three[1]}").json["fault"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("000009-00000000", 404),
        ("nothing", 404),
        ("..", 422),
        ("%2e%2e%2f%2e%2e%2fetc%2fpasswd", 422),
        ("..%2F..%2Fversions", 422),
        ("%2Fetc", 422),
        ("C%3A%5Cx", 422),
        ("a" * 65, 422),
        ("a%00b", 422),
        ("a%0Ab", 422),
        ("%FF", 422),
        ("%E2%80%AE", 422),
        ("-rf", 422),
    ],
)
def test_names_are_confined_to_the_root(server: Server, name: str, status: int) -> None:
    for answer in (server.ask("GET", f"/v1/models/{name}"), post(server, f"/v1/models/{name}:activate")):
        assert answer.status == status, answer.body
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_read_only_root_refuses_activation(own_shop: Shop, three: list[str], tmp_path: Path) -> None:
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        shutil.rmtree(own_shop.root / "staging")
        (own_shop.root / "staging").write_text("in the way")
        answer = post(server, f"/v1/models/{three[0]}:activate")
        assert (answer.status, answer.json["type"]) == (500, "urn:fm-recall:problem:not-stored")
        assert server.post(BODY).json["bundle"] == live_name(own_shop.root) == three[2]
        (own_shop.root / "staging").unlink()
        assert post(server, f"/v1/models/{three[0]}:activate").status == 200


@pytest.mark.slow
def test_nothing_is_activated_during_a_publication(own_shop: Shop, three: list[str], tmp_path: Path) -> None:
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        with locked(own_shop.root / LOCK, 1.0, ""):
            answer = post(server, f"/v1/models/{three[0]}:activate")
        assert (answer.status, answer.json["type"]) == (409, "urn:fm-recall:problem:publishing")
        assert answer.headers["retry-after"] == "1"
        assert server.post(BODY).json["bundle"] == live_name(own_shop.root) == three[2]


def test_links_are_not_followed(own_shop: Shop, three: list[str], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(own_shop.root / "versions" / three[0], outside)
    shutil.rmtree(own_shop.root / "versions" / three[0])
    (own_shop.root / "versions" / three[0]).symlink_to(outside)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        assert post(server, f"/v1/models/{three[0]}:activate").status == 404
        assert server.post(BODY).json["bundle"] == three[2]


def test_a_single_bundle_has_nothing_to_activate(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    folder = resolve(own_shop.root)
    with serving(folder, tmp_path / "log") as server:
        server.wait()
        assert [one["version"] for one in server.ask("GET", "/v1/models").json["models"]] == [folder.name]
        for path in ("/v1/models:rollback", f"/v1/models/{folder.name}:activate"):
            answer = post(server, path)
            assert (answer.status, answer.json["type"]) == (409, "urn:fm-recall:problem:read-only")


def test_a_damaged_live_version_at_the_start_is_replaced_by_the_last_good_one(
    own_shop: Shop, three: list[str], tmp_path: Path
) -> None:
    root = own_shop.root
    damage(root / "versions" / three[2])
    damage(root / "versions" / three[1])
    with serving(root, tmp_path / "log") as server:
        ready = server.wait().json
        assert ready["bundle"] == three[0]
        assert ready["refused"]["bundle"] == three[2]
        assert [one["part"] for one in ready["degraded"]] == ["bundle"]
        answer = server.post(BODY).json
        assert (answer["bundle"], answer["items"]) == (three[0], expected_items(root / "versions" / three[0]))
        assert answer["degraded"] == [
            {"part": "bundle", "reason": f"{three[2]} was refused; {three[0]} is served in its place"}
        ]
        assert f"{three[0]} is served in place of the live one" in server.log.read_text()
        models = server.ask("GET", "/v1/models").json
        assert (models["live"], models["served"]) == (three[2], three[0])
        newer = own_shop.publish(seed=7)
        served_within(server, newer.name)
        assert server.post(BODY).json["degraded"] == []
        assert server.wait().json["refused"] is None


def test_a_broken_current_at_the_start_is_replaced_too(own_shop: Shop, three: list[str], tmp_path: Path) -> None:
    (own_shop.root / "CURRENT").write_bytes(b"\xff\xfe")
    with serving(own_shop.root, tmp_path / "log") as server:
        ready = server.wait().json
        assert ready["bundle"] == three[2]  # the version that was live last
        assert ready["degraded"][0]["reason"].startswith("CURRENT was refused")
        assert post(server, f"/v1/models/{three[1]}:activate").json["previous"] is None
        ready = server.wait().json
        assert (ready["bundle"], ready["degraded"]) == (three[1], [])


def test_a_version_with_other_golden_answers_is_not_served(own_shop: Shop, tmp_path: Path) -> None:
    good = own_shop.publish(seed=0)
    recommender = Recommender.load(good)
    (record, *others) = recommender.bundle.manifest.golden or ()
    manifest = recommender.bundle.manifest.model_copy(
        update={"golden": (record.model_copy(update={"scores": tuple(one + 1 for one in record.scores)}), *others)}
    )
    assert recommender.recommend(Request()).items
    recommender.close()
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        with staging(own_shop.root) as staged:
            shutil.copytree(good, staged, dirs_exist_ok=True)
            manifest.write(staged)
            bad = publish(staged, own_shop.root)
        deadline = time.monotonic() + 10
        while (ready := server.wait().json)["refused"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ready["refused"]["bundle"] == bad.name
        assert "1 of 25 golden requests" in ready["refused"]["reason"]
        assert server.post(BODY).json["bundle"] == good.name


def test_a_version_that_does_not_fit_in_memory_is_refused_unread(own_shop: Shop, tmp_path: Path) -> None:
    good = own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        recommender = Recommender.load(good)
        listed = recommender.bundle.manifest.files
        recommender.close()
        huge = listed["index.faiss"].model_copy(update={"bytes": 1 << 50})
        manifest = recommender.bundle.manifest.model_copy(update={"files": {**listed, "index.faiss": huge}})
        with staging(own_shop.root) as staged:
            shutil.copytree(good, staged, dirs_exist_ok=True)
            manifest.write(staged)
            bad = publish(staged, own_shop.root)
        answer = post(server, f"/v1/models/{bad.name}:activate")
        assert answer.status == 409
        assert "bytes of memory" in answer.json["errors"][0]["message"]
        assert server.post(BODY).json["bundle"] == good.name


def test_a_served_version_is_not_pruned(own_shop: Shop, tmp_path: Path) -> None:
    first = own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log", "--poll", "60") as server:
        server.wait()
        with staging(own_shop.root) as staged:
            shutil.copytree(first, staged, dirs_exist_ok=True)
            second = publish(staged, own_shop.root, keep=1)
        assert versions(own_shop.root) == [first, second]
        assert server.post(BODY).json["user"] == "known"
        assert post(server, f"/v1/models/{second.name}:activate").status == 200
        with staging(own_shop.root) as staged:
            shutil.copytree(first, staged, dirs_exist_ok=True)
            third = publish(staged, own_shop.root, keep=1)
        assert versions(own_shop.root) == [second, third]
