"""Changes of users from the command line."""

from pathlib import Path

from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from tests.store.users.servers import redis_server


def test_a_user_is_erased(run, root: Path) -> None:
    assert run("users", "erase", "u1", root).code == 65
    assert "The folder comes first" in run("users", "erase", "u1", root).err
    with Recommender.load(root) as served:
        ended = run("users", "erase", root, "u1", "--wait", "0", "--yes")
        assert ended.code == 75
        assert served.bundle.folder.name in ended.err
    ended = run("users", "erase", root, "u1", "u3", "--json")
    assert ended.code == 0, ended.err
    assert len(ended.json["removed"]) == 2
    assert "Backups" in ended.err
    with Recommender.load(root) as served:
        assert [served.recommend(Request(one)).user for one in ("u1", "u2", "u3")] == ["unknown", "known", "unknown"]


def test_users_are_loaded_into_redis(run, root: Path, tmp_path: Path) -> None:
    refused = run("users", "load", root)
    assert refused.code == 78
    assert "RECALL_USERS=redis://" in refused.err
    with redis_server(tmp_path / "redis") as redis:
        command = ("users", "load", root, "--users", redis.url, "--json")
        ended = run(*command)
        assert ended.code == 0, ended.err
        first = ended.json["version"]
        assert (ended.json["users"], ended.json["sent"]) == (12, 12)
        with Recommender.load(root) as served:
            served.items.delete(["i1"])
        assert compact(root) is not None
        again = run(*command).json  # the compacted version has the same users
        assert again["version"] != first
        assert (again["sent"], again["removed"]) == (0, [])
        assert run("users", "erase", root, "u1").code == 0
        ended = run(*command, "--prune").json
        assert (ended["users"], ended["sent"], len(ended["removed"])) == (11, 11, 1)
        assert run("users", "load", root, "--users", redis.url, "--version", "000009-00000000").code != 0
