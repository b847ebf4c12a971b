"""A client that openapi-python-client generates from the document works."""

import importlib
import os
import sys
from types import ModuleType

import orjson
import pytest

from tests.service.publishing import Shop
from tests.service.serving import Server, serving


@pytest.fixture(scope="module")
def server(shop: Shop, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("client")
    own = shop.in_(folder / "bundles")
    own.publish(seed=1)
    with serving(own.root, folder / "log") as started:
        started.wait()
        yield started


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    if "RECALL_REQUIRE_ALL" not in os.environ:
        pytest.importorskip("openapi_python_client")
    from openapi_python_client import generate
    from openapi_python_client.config import Config, ConfigFile, MetaType

    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_bytes(server.ask("GET", "/openapi.json").body)
    settings = ConfigFile(project_name_override="recall-client", package_name_override="recall_client", post_hooks=[])
    config = Config.from_sources(
        settings, MetaType.NONE, document, "utf-8", overwrite=True, output_path=folder / "recall_client"
    )
    problems = [one for one in generate(config=config) if "text/plain" not in str(one)]
    assert not problems, problems
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("recall_client")
    finally:
        sys.path.remove(str(folder))


def test_recommendations_and_changes(server: Server, client: ModuleType) -> None:
    api = f"{client.__name__}.api"
    models = importlib.import_module(f"{client.__name__}.models")
    with client.Client(base_url=f"http://127.0.0.1:{server.port}") as connection:
        recommend = importlib.import_module(f"{api}.recommendations.recommend")
        body = models.RecommendRequest.from_dict(
            {
                "user_id": "3",
                "n": 5,
                "filter": {"genre": {"in": ["noir", "drama"]}, "not": {"year": {"lt": 1951}}},
                "rules": [{"kind": "quota", "column": "genre", "most": 3}],
            }
        )
        assert orjson.loads(orjson.dumps(body.to_dict()))["rules"][0]["kind"] == "quota"
        answer = recommend.sync(client=connection, body=body)
        assert isinstance(answer, models.RecommendResponse)
        assert 0 < len(answer.items) <= 5
        wrong = recommend.sync_detailed(client=connection, body=models.RecommendRequest.from_dict({"n": 0}))
        assert wrong.status_code == 422
        upsert = importlib.import_module(f"{api}.items.upsert_items")
        items = models.ItemsUpsert.from_dict({"items": [{"item_id": "a client's", "features": {"genre": "noir"}}]})
        changed = upsert.sync(client=connection, body=items)
        assert isinstance(changed, models.Changed)
        fetched = importlib.import_module(f"{api}.items.get_item").sync("a client's", client=connection)
        assert isinstance(fetched, models.ItemResponse)
        assert fetched.features.to_dict() == {"genre": "noir"}
        missing = importlib.import_module(f"{api}.items.get_item").sync_detailed("no such item", client=connection)
        assert missing.status_code == 404
