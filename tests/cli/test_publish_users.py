"""Changes of users from the command line."""

from pathlib import Path

from recall.serving.recommender import Recommender
from recall.serving.request import Request


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
