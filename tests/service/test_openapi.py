"""The OpenAPI document: whole, stable, true to what is answered, and shown without any other host."""

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
    return create_app(Settings(bundle=tmp_path_factory.mktemp("none"), hosts=("*",))).openapi()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(bundle=tmp_path))) as client:
        yield client


def test_operations_statuses_and_components_are_stable(document: dict) -> None:
    operations = {
        (path, method): (operation["operationId"], sorted(operation["responses"]))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations == {
        ("/v1/recommend", "post"): ("recommend", ["200", "400", "403", "408", "412", "413", "415", "422", "503", "504"]),
        ("/v1/items:upsert", "post"): (
            "upsertItems",
            ["200", "400", "403", "408", "409", "413", "415", "422", "500", "503", "507"],
        ),
        ("/v1/items/{item_id}", "delete"): ("deleteItem", ["200", "403", "409", "422", "500", "503", "507"]),
        ("/metrics", "get"): ("getMetrics", ["200"]),
        ("/v1/models", "get"): ("listModels", ["200"]),
        ("/v1/models/{version}", "get"): ("getModel", ["200", "404", "422"]),
        ("/v1/models/{version}:activate", "post"): ("activate", ["200", "403", "404", "409", "412", "422", "500"]),
        ("/v1/models:rollback", "post"): ("rollBack", ["200", "403", "409", "412", "500"]),
        **{
            (path, method): (operation, ["200", "400", "403", "408", "409", "413", "415", "422", "500", "503", "507"])
            for path, method, operation in (
                ("/v1/interactions", "post", "postInteractions"),
                ("/v1/users:upsert", "post", "upsertUsers"),
                ("/v1/users/{user_id}", "put", "putUser"),
            )
        },
        ("/v1/users", "get"): ("listUsers", ["200", "422", "503"]),
        ("/v1/users/{user_id}", "get"): ("getUser", ["200", "404", "422", "503"]),
        ("/v1/users/{user_id}", "delete"): ("deleteUser", ["200", "403", "409", "422", "500", "503", "507"]),
        **{
            (path, "post"): (operation, ["200", "400", "403", "408", "412", "413", "415", "422", "503", "504"])
            for path, operation in (
                ("/v1/recommend:batch", "recommendBatch"),
                ("/v1/explain", "explain"),
                ("/v1/why-not", "whyNot"),
                ("/v1/score", "score"),
                ("/v1/user-vector", "getUserVector"),
            )
        },
        ("/v1/users/{user_id}/recommendations", "get"): ("getRecommendations", ["200", "304", "412", "422", "503", "504"]),
        ("/v1/items", "get"): ("listItems", ["200", "412", "422", "503"]),
        ("/v1/items/{item_id}", "get"): ("getItem", ["200", "404", "412", "422", "503"]),
        ("/v1/items/{item_id}/similar", "get"): ("getSimilarItems", ["200", "404", "412", "422", "503", "504"]),
        ("/v1/items/{item_id}/similar", "post"): (
            "findSimilarItems",
            ["200", "400", "403", "404", "408", "412", "413", "415", "422", "503", "504"],
        ),
        ("/v1/info", "get"): ("getInfo", ["200", "503"]),
        ("/v2", "get"): ("getServerMetadata", ["200"]),
        ("/v2/health/live", "get"): ("isServerLive", ["200"]),
        ("/v2/health/ready", "get"): ("isServerReady", ["200", "503"]),
        ("/v2/models/{name}", "get"): ("getModelMetadata", ["200", "404", "422", "503"]),
        ("/v2/models/{name}/ready", "get"): ("isModelReady", ["200", "404", "422", "503"]),
        ("/health/live", "get"): ("isLive", ["200"]),
        ("/health/ready", "get"): ("isReady", ["200", "503"]),
    }
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
        "Degradation",
        "Item",
        "ItemsUpsert",
        "ItemUpsert",
        "Changed",
        *("Interactions", "Interaction", "Taken"),
        *("UsersPage", "UserEntry", "KnownUser", "UserPut", "UsersUpsert", "UserUpsert", "UsersChanged"),
        "ItemSource",
        *("Quota", "Dedupe", "Diversify", "Pin"),
        *("Channels", "ModelChannel", "PopularChannel", "LatestChannel", "ListChannel"),
        *("Info", "IndexCertificate"),
        *("Model", "Models", "Activated"),
        "Columns",
        "Sizes",
        "Liveness",
        "Readiness",
        "RefusedBundle",
        "ProblemDocument",
        "FaultDocument",
    }


def test_every_reference_leads_somewhere(document: dict) -> None:
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
        for field, part in schema["properties"].items():
            for example in part.get("examples", []):
                jsonschema_rs.validate({**part, "components": document["components"]}, example), field
                seen += 1
    assert seen > 10


def test_the_request_schema_says_what_is_refused(document: dict) -> None:
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


def test_where_the_host_counts_every_path_that_tells_something_may_answer_421(document: dict, tmp_path: Path) -> None:
    told = create_app(Settings(bundle=tmp_path)).openapi()
    without = {
        path
        for path, methods in told["paths"].items()
        for method, operation in methods.items()
        if set(operation["responses"]) - set(document["paths"][path][method]["responses"]) != {"421"}
    }
    assert without == {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}


def test_what_waits_for_a_change_says_so(document: dict) -> None:
    waiting = {
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "X-Recall-Token" in [one["name"] for one in operation.get("parameters", []) if one["in"] == "header"]
    }
    assert waiting == {
        *("recommend", "recommendBatch", "getRecommendations", "getSimilarItems", "findSimilarItems"),
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
    assert not re.findall(r"(?:src|href)=\"(?!/)[^\"]*\"", page.text)
    assert "//" not in re.sub(r"<!--.*?-->|^\s*//.*$", "", page.text, flags=re.S | re.M)
    for address in re.findall(r"(?:src|href)=\"(/[^\"]*)\"", page.text):
        asset = client.get(address)
        assert asset.status_code == 200
        assert len(asset.content) > 1000
    assert client.get("/openapi.json").json()["info"]["title"] == "FM recall"


def test_documentation_can_be_turned_off(tmp_path: Path) -> None:
    with TestClient(create_app(Settings(bundle=tmp_path, docs=False)), base_url="http://localhost") as client:
        for path in ("/docs", "/openapi.json", "/redoc", "/docs/assets/swagger-ui.css"):
            assert client.get(path).status_code == 404
