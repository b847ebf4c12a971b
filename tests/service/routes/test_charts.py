"""Charts over HTTP: of the bundle, and of a stored evaluation."""

from contextlib import closing
from pathlib import Path

from recall.bundle.versions import evaluation_file, versions
from recall.store.users.changes import UserUpsert
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from tests.service.publishing import ITEMS, USERS, Shop
from tests.service.serving import serving


def test_charts_come_from_the_bundle_and_a_fault_of_the_evaluation_is_told(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=1)
    root = tmp_path / "a root"
    own_shop.root.rename(root)
    (folder,) = versions(root)
    with closing(SqliteLiveUsers(root / USERS_LIVE)) as store:  # with values that the model cannot read
        store.write([UserUpsert(one, {"age": ["a", "list"]}, None, None) for one in USERS])
    with serving(root, tmp_path / "log") as server:
        server.wait()
        told = server.ask("GET", "/v1/charts").json
        assert (told["bundle"], told["fault"]) == (folder.name, "")
        drawn = {one["title"]: [part["kind"] for part in one["parts"]] for one in told["sections"] if one["parts"]}
        assert drawn == {"Strength of field pairs": ["bars", "caption"], "Item map": ["points", "caption"]}
        missing = {one["title"]: one["missing"] for one in told["sections"] if one["missing"]}
        assert missing["Quality"].startswith("No evaluation is given")
        assert shown(told) == set(ITEMS)
        assert server.ask("DELETE", "/v1/items/3").status == 200
        assert shown(server.ask("GET", "/v1/charts").json) == {*ITEMS} - {"3"}
        evaluation_file(folder).parent.mkdir()
        evaluation_file(folder).write_text("{")
        told = server.ask("GET", "/v1/charts").json
        assert "the file must be an evaluation" in told["fault"]
        assert str(tmp_path) not in told["fault"]
        assert f" evaluations/{folder.name}.json" in f" {told['fault']}"
        assert [one["title"] for one in told["sections"] if one["parts"]] == list(drawn)


def shown(charts: dict) -> set[str]:
    """Return the titles on the map of items."""
    parts = [part for one in charts["sections"] for part in one["parts"] if part["kind"] == "points"]
    return {point[2] for part in parts for group in part["groups"].values() for point in group}
