"""The Open Inference Protocol, for platforms that use it."""

from pathlib import Path

from tests.service.publishing import Shop
from tests.service.routes.asking import get, refused
from tests.service.serving import Server, serving


def test_health_and_metadata(server: Server, shop: Shop) -> None:
    version = shop.root.joinpath("CURRENT").read_text().strip()
    assert get(server, "/v2/health/live").json == {"live": True}
    assert get(server, "/v2/health/ready").json == {"ready": True}
    assert get(server, "/v2").json == {"name": "fm-recall", "version": "1", "extensions": []}
    model = get(server, "/v2/models/shop").json
    assert (model["name"], model["versions"], model["platform"]) == ("shop", [version], "fm-recall")
    assert [one["name"] for one in model["outputs"]] == ["item_id", "score"]
    assert get(server, "/v2/models/shop/ready").json == {"name": "shop", "ready": True}
    for path in ("/v2/models/other", "/v2/models/other/ready", "/v2/models", "/v2/models/shop/infer"):
        refused(get(server, path), 404)


def test_before_there_is_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    with serving(tmp_path / "bundles", tmp_path / "log") as server:
        assert get(server, "/v2/health/live").status == 200
        assert get(server, "/v2").status == 200
        for path in ("/v2/health/ready", "/v2/models/shop", "/v2/models/shop/ready"):
            refused(get(server, path), 503)
