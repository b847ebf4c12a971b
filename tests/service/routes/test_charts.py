"""Charts over HTTP: what the bundle holds, and an evaluation that is kept beside it."""

from pathlib import Path

from recall.bundle.versions import evaluation_file
from tests.service.publishing import Shop
from tests.service.serving import serving


def test_charts_come_from_the_bundle_and_a_fault_of_the_evaluation_is_told(own_shop: Shop, tmp_path: Path) -> None:
    folder = own_shop.publish(seed=1)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        told = server.ask("GET", "/v1/charts").json
        assert (told["bundle"], told["fault"]) == (folder.name, "")
        drawn = {one["title"]: [part["kind"] for part in one["parts"]] for one in told["sections"] if one["parts"]}
        assert drawn == {"Strength of field pairs": ["bars", "caption"], "Item map": ["points", "caption"]}
        missing = {one["title"]: one["missing"] for one in told["sections"] if one["missing"]}
        assert missing["Quality"].startswith("No evaluation is given")
        evaluation_file(folder).parent.mkdir()
        evaluation_file(folder).write_text("{")
        told = server.ask("GET", "/v1/charts").json
        assert "the file must be an evaluation" in told["fault"]
        assert str(tmp_path) not in told["fault"]
        assert [one["title"] for one in told["sections"] if one["parts"]] == list(drawn)
