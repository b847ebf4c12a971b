"""The OpenAPI document: complete, stable, correct, and shown without other hosts."""

import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.config import Settings

SHAPED = {
    "rules": [{"kind": "quota", "column": "genre", "most": 2}, {"kind": "pin", "items": {"7": 1}}, {"kind": "diversify"}],
    "channels": {"lists": [{"kind": "model"}, {"kind": "list", "items": [7, "12"], "scores": [1, 0.5]}], "merge": "weights"},
    "boosts": {"year": 1, "genre=noir": -0.5},
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return create_app(Settings(bundle=tmp_path_factory.mktemp("none"))).openapi()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(bundle=tmp_path))) as client:
        yield client


ADMITTED = {"401", "403", "421", "422", "429", "503"}
SEARCHES = ADMITTED | {"412", "504"}
BODY = {"400", "408", "413", "415"}
CHANGES = ADMITTED | {"409", "500", "507"}
OPERATIONS = {
    ("/v1/recommend", "post"): ("recommend", SEARCHES | BODY | {"410"}),
    ("/v1/recommend:batch", "post"): ("recommendBatch", SEARCHES | BODY),
    ("/v1/users/{user_id}/recommendations", "get"): ("getRecommendations", SEARCHES | {"304"}),
    ("/v1/score", "post"): ("score", SEARCHES | BODY),
    ("/v1/user-vector", "post"): ("getUserVector", SEARCHES | BODY),
    ("/v1/explain", "post"): ("explain", SEARCHES | BODY),
    ("/v1/why-not", "post"): ("whyNot", SEARCHES | BODY),
    ("/v1/items/{item_id}/similar", "get"): ("getSimilarItems", SEARCHES | {"404"}),
    ("/v1/items/{item_id}/similar", "post"): ("findSimilarItems", SEARCHES | BODY | {"404"}),
    ("/v1/items", "get"): ("listItems", ADMITTED | {"412"}),
    ("/v1/items/{item_id}", "get"): ("getItem", ADMITTED | {"404", "412"}),
    ("/v1/items/{item_id}", "delete"): ("deleteItem", CHANGES),
    ("/v1/items:upsert", "post"): ("upsertItems", CHANGES | BODY),
    ("/v1/items:delete", "post"): ("deleteItems", CHANGES | BODY),
    ("/v1/users", "get"): ("listUsers", ADMITTED),
    ("/v1/users/{user_id}", "get"): ("getUser", ADMITTED | {"404"}),
    ("/v1/users/{user_id}", "put"): ("putUser", CHANGES | BODY),
    ("/v1/users/{user_id}", "delete"): ("deleteUser", CHANGES),
    ("/v1/users:upsert", "post"): ("upsertUsers", CHANGES | BODY),
    ("/v1/users:delete", "post"): ("deleteUsers", CHANGES | BODY),
    ("/v1/interactions", "post"): ("postInteractions", CHANGES | BODY | {"410"}),
    ("/v1/scenarios", "get"): ("listScenarios", ADMITTED),
    ("/v1/scenarios/{name}:recommend", "post"): ("recommendScenario", SEARCHES | BODY | {"404", "410"}),
    ("/v1/models", "get"): ("listModels", ADMITTED),
    ("/v1/models/{version}", "get"): ("getModel", ADMITTED | {"404"}),
    ("/v1/models/{version}:activate", "post"): ("activate", CHANGES | {"404", "412"}),
    ("/v1/models:rollback", "post"): ("rollBack", CHANGES | {"412"}),
    ("/v1/info", "get"): ("getInfo", ADMITTED),
    ("/v1/charts", "get"): ("getCharts", ADMITTED),
    ("/metrics", "get"): ("getMetrics", ADMITTED),
    ("/v2", "get"): ("getServerMetadata", ADMITTED),
    ("/v2/models/{name}", "get"): ("getModelMetadata", ADMITTED | {"404"}),
    ("/v2/models/{name}/ready", "get"): ("isModelReady", ADMITTED | {"404"}),
    ("/v2/health/live", "get"): ("isServerLive", set()),
    ("/v2/health/ready", "get"): ("isServerReady", {"503"}),
    ("/health/live", "get"): ("isLive", set()),
    ("/health/ready", "get"): ("isReady", {"503"}),
}


def test_operations_statuses_and_components_are_stable(document: dict) -> None:
    operations = {
        (path, method): (operation["operationId"], set(operation["responses"]) - {"200"})
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations == OPERATIONS
    for (path, _), operation in zip(OPERATIONS, OPERATIONS.values(), strict=True):
        assert ("401" in operation[1]) == (not path.startswith(("/health", "/v2/health")))
    assert set(document["components"]["schemas"]) == {
        "RecommendRequest",
        "RecommendResponse",
        *("BatchRequest", "BatchResponse", "BatchAnswer"),
        *("ExplainRequest", "ExplainResponse", "FieldContribution", "ValuePair", "TableValue"),
        *("WhyNotRequest", "WhyNotResponse", "AbsenceReason"),
        *("ScoreRequest", "ScoreResponse", "ItemScore", "UserVectorRequest", "UserVectorResponse"),
        *("SimilarRequest", "SimilarResponse", "SimilarItem"),
        *("ItemResponse", "ItemsResponse", "CatalogueEntry"),
        *("ServerMetadata", "ServerLive", "ServerReady", "ModelMetadata", "ModelReady", "TensorMetadata"),
        *("FilterTree", "Condition", "ItemsDelete", "UsersDelete"),
        "Degradation",
        "Item",
        "ItemsUpsert",
        "ItemUpsert",
        "Changed",
        *("Interactions", "Interaction", "Taken"),
        *("UsersPage", "UserEntry", "KnownUser", "UserPut", "UsersUpsert", "UserUpsert", "UsersChanged"),
        "ItemSource",
        "Row",
        *("ListRequest", "ScenarioRequest", "ScenarioEntry", "ScenariosResponse", "Attribution"),
        *("Quota", "Dedupe", "Diversify", "Pin"),
        *("Channels", "ModelChannel", "PopularChannel", "LatestChannel", "ListChannel"),
        *("Info", "IndexCertificate"),
        *("Charts", "Section", "Lines", "Line", "Bars", "Bar", "Points", "Caption", "Heading", "Table"),
        *("Model", "ModelDetails", "Models", "Activated"),
        "Columns",
        "Sizes",
        "Liveness",
        "Readiness",
        "RefusedBundle",
        "ProblemDocument",
        "FaultDocument",
    }


def test_every_reference_resolves(document: dict) -> None:
    references = re.findall(r"'\$ref': '([^']+)'", str(document))
    assert references
    for reference in references:
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_examples_fit_their_schemas(document: dict) -> None:
    seen = 0
    for name, schema in document["components"]["schemas"].items():
        root = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        for example in schema.get("examples", []):
            jsonschema_rs.validate(root, example)
            seen += 1
        for field, part in schema.get("properties", {}).items():
            for example in part.get("examples", []):
                jsonschema_rs.validate({**part, "components": document["components"]}, example), field
                seen += 1
    assert seen > 10


def test_the_request_schema_rejects_what_the_service_refuses(document: dict) -> None:
    root = {"$ref": "#/components/schemas/RecommendRequest", "components": document["components"]}
    validator = jsonschema_rs.validator_for(root)
    for good in (
        {},
        {"user_id": 42},
        {"n": 1000, "features": {"a": [1, "b", None]}, "history": None},
        {"filter": {"a": {"in": [1]}}, "allow": [1]},
        SHAPED,
    ):
        assert validator.is_valid(good)
    for bad in (
        [],
        {"n": 0},
        {"n": 1001},
        {"n": "10"},
        {"topk": 1},
        {"features": {"a": {}}},
        {"user_id": ""},
        {"exclude": [1.5]},
        {"rules": [{"kind": "quota", "column": "genre", "most": 0}]},
        {"rules": [{"kind": "quotas", "column": "genre"}]},
        {"rules": [{"kind": "pin", "items": {}}]},
        {"channels": {"lists": []}},
        {"channels": {"lists": [{"kind": "model", "weight": 0}]}},
        {"boosts": {"year": "1"}},
        {"allow": "1"},
        {"filter": []},
    ):
        assert not validator.is_valid(bad), bad


def test_routes_that_wait_for_a_change_declare_it(document: dict) -> None:
    waiting = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "X-Recall-Token" in [one["name"] for one in operation.get("parameters", []) if one["in"] == "header"]
    }
    assert waiting == {
        *("recommend", "recommendScenario", "recommendBatch", "getRecommendations", "getSimilarItems", "findSimilarItems"),
        *("explain", "whyNot", "score", "getUserVector", "listItems", "getItem"),
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            if operation["operationId"] in waiting:
                assert "another log" in operation["responses"]["412"]["description"]
                assert "503" in operation["responses"]


def test_problems_are_declared_as_problem_documents(document: dict) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                text = "text/plain" if operation["operationId"] == "getMetrics" else "application/json"
                expected = ["application/problem+json"] if int(status) >= 400 else [text]
                assert list(response.get("content", {})) == ([] if status == "304" else expected)


def test_the_page_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "//" not in re.sub(r"<!--.*?-->|^\s*//.*$", "", page.text, flags=re.S | re.M)
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page.text)
    assert addresses
    for address in addresses:
        assert not address.startswith("/")  # it may be served below a prefix
        asset = client.get(f"/{address}")
        assert asset.status_code == 200
        assert len(asset.content) > 1000
    assert client.get("/openapi.json").json()["info"]["title"] == "FM recall"


def test_documentation_can_be_turned_off(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(bundle=tmp_path, docs=False)), base_url="http://localhost") as client:
        for path in ("/docs", "/openapi.json", "/redoc", "/docs/assets/swagger-ui.css"):
            assert client.get(path).status_code == 404
