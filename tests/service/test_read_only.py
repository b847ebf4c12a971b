"""With a read-only folder of versions, as in containers, requests are answered and changes refused."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, serving

_MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
CHANGES = (
    ("POST", "/v1/items:upsert", {"items": [{"item_id": "late"}]}),
    ("DELETE", "/v1/items/7", None),
    ("POST", "/v1/users:upsert", {"users": [{"user_id": "late"}]}),
    ("PUT", "/v1/users/3", {"history": ["7"]}),
    ("DELETE", "/v1/users/3", None),
    ("POST", "/v1/interactions", {"interactions": [{"user_id": "3", "item_id": "7"}]}),
)


@pytest.fixture
def read_only() -> Callable[[Path], list[str]]:
    """A command prefix that makes a folder read-only for one process."""

    def read_only(folder: Path) -> list[str]:
        return ["unshare", "-rm", "sh", "-c", _MOUNTED, str(folder)]

    try:
        tried = subprocess.run([*read_only(Path(__file__).parent), "true"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if tried.returncode:
        pytest.skip("mounts are not allowed here")
    return read_only


def change(server: Server, method: str, path: str, value: object) -> Answer:
    body = b"" if value is None else orjson.dumps(value)
    return server.ask(method, path, body, content_type="application/json")


def refuses_changes(server: Server, version: str) -> None:
    for one in (*CHANGES, ("POST", f"/v1/models/{version}:activate", None), ("POST", "/v1/models:rollback", None)):
        answer = change(server, *one)
        assert answer.status == 409, one
        assert answer.json["type"] == "urn:fm-recall:problem:read-only", one
        assert "Nothing was changed" in answer.json["detail"]
    assert server.post({"user_id": "3"}).status == 200


def test_changes_are_refused_and_answers_continue(
    own_shop: Shop, tmp_path: Path, read_only: Callable[[Path], list[str]]
) -> None:
    own_shop.publish(seed=1)
    version = own_shop.publish(seed=2).name
    with serving(own_shop.root, tmp_path / "log", before=read_only(own_shop.root)) as server:
        server.wait()
        refuses_changes(server, version)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_earlier_changes_and_those_of_others_are_served(
    own_shop: Shop, tmp_path: Path, read_only: Callable[[Path], list[str]]
) -> None:
    own_shop.publish(seed=1)
    version = own_shop.publish(seed=2).name

    def there(server: Server, path: str) -> bool:
        return server.ask("GET", path).status == 200

    def within_a_while(server: Server, path: str) -> None:
        deadline = time.monotonic() + 20
        while not there(server, path):
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)

    def write(server: Server, name: str) -> None:
        assert change(server, "POST", "/v1/items:upsert", {"items": [{"item_id": name}]}).status == 200
        assert change(server, "POST", "/v1/users:upsert", {"users": [{"user_id": name}]}).status == 200

    with serving(own_shop.root, tmp_path / "first") as writer:
        writer.wait()
        write(writer, "early")
    with serving(own_shop.root, tmp_path / "log", before=read_only(own_shop.root)) as server:
        server.wait()
        assert there(server, "/v1/items/early")
        assert there(server, "/v1/users/early")
        refuses_changes(server, version)
        with serving(own_shop.root, tmp_path / "second") as writer:
            writer.wait()
            write(writer, "meanwhile")
            within_a_while(server, "/v1/items/meanwhile")
            within_a_while(server, "/v1/users/meanwhile")
            refuses_changes(server, version)
        write_again = ("/v1/items/meanwhile", "/v1/users/meanwhile", "/v1/items/early")
        for path in write_again:
            within_a_while(server, path)
        assert server.post({"user_id": "meanwhile"}).json["degraded"] == []
        with serving(own_shop.root, tmp_path / "third") as writer:
            writer.wait()
            write(writer, "last")
            within_a_while(server, "/v1/items/last")
            within_a_while(server, "/v1/users/last")
    assert "Traceback" not in (tmp_path / "log").read_text()
