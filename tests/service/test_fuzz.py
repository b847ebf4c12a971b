"""Requests generated from the OpenAPI document get only documented answers."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.hypotheses import examples
from tests.service.publishing import Shop
from tests.service.serving import Server, serving

OPERATIONS = [
    *(("/v1/recommend", "POST"), ("/v1/info", "GET"), ("/v1/charts", "GET"), ("/health/live", "GET"), ("/health/ready", "GET")),
    *(("/v1/items:upsert", "POST"), ("/v1/items/{item_id}", "DELETE")),
    *(("/metrics", "GET"), ("/v1/models", "GET"), ("/v1/models/{version}", "GET")),
    *(("/v1/models/{version}:activate", "POST"), ("/v1/models:rollback", "POST")),
    *(("/v1/users:upsert", "POST"), ("/v1/interactions", "POST"), ("/v1/items:delete", "POST"), ("/v1/users:delete", "POST")),
    *(("/v1/users/{user_id}", method) for method in ("GET", "PUT", "DELETE")),
    *(("/v1/recommend:batch", "POST"), ("/v1/explain", "POST"), ("/v1/why-not", "POST")),
    *(("/v1/score", "POST"), ("/v1/user-vector", "POST"), ("/v1/users/{user_id}/recommendations", "GET")),
    *(("/v1/items", "GET"), ("/v1/items/{item_id}", "GET"), ("/v1/users", "GET")),
    *(("/v1/items/{item_id}/similar", method) for method in ("GET", "POST")),
    *(("/v1/scenarios", "GET"), ("/v1/scenarios/{name}:recommend", "POST")),
    *(("/v2", "GET"), ("/v2/health/live", "GET"), ("/v2/health/ready", "GET")),
    *(("/v2/models/{name}", "GET"), ("/v2/models/{name}/ready", "GET")),
]
TIMEOUT = "X-Request-Timeout-Ms"


@pytest.fixture(scope="module")
def server(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with its own shop, whose items are changed."""
    folder = tmp_path_factory.mktemp("fuzzed")
    own = shop.in_(folder / "bundles")
    own.publish(seed=1)
    # a generated body may have several megabytes, and the checks do not expect 413
    with serving(own.root, folder / "server.log", "--max-body", str(1 << 27)) as started:
        started.wait()
        yield started


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        *((path, method, GenerationMode.POSITIVE) for path, method in OPERATIONS),
        *(  # other requests cannot be invalid, and a partly invalid batch is answered
            (path, "POST", GenerationMode.NEGATIVE)
            for path in (
                *("/v1/recommend", "/v1/items:upsert", "/v1/users:upsert", "/v1/interactions"),
                *("/v1/explain", "/v1/why-not", "/v1/score", "/v1/user-vector", "/v1/items/{item_id}/similar"),
            )
        ),
        ("/v1/users/{user_id}", "PUT", GenerationMode.NEGATIVE),
    ],
)
def test_answers_are_as_documented(server: Server, path: str, method: str, mode: GenerationMode) -> None:
    api = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    assert {(operation.path, operation.method.upper()) for operation in _all(api)} == set(OPERATIONS)

    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=examples(60), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def answers_are_as_documented(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and (case.headers or {}).get(TIMEOUT):
            case.headers[TIMEOUT] = "60000"  # a late answer is 504, which the checks count as a server error
        # A schema does not know the columns of a bundle, and invented ones are refused.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    answers_are_as_documented()


def _all(api: schemathesis.BaseSchema) -> list[schemathesis.APIOperation]:
    return [result.ok() for result in api.get_all_operations()]
