"""Fuzzing of every operation with requests generated from the OpenAPI document."""

from typing import Any

from tests.faults.bench import Bench
from tests.faults.case import Case, Score


def fuzzed(bench: Bench, score: Score) -> None:
    """Case 20."""
    try:
        import schemathesis
        from hypothesis import HealthCheck, given, settings
        from hypothesis import seed as seeded
        from schemathesis import GenerationMode
        from schemathesis.core.result import Ok
        from schemathesis.specs.openapi.checks import positive_data_acceptance
    except ImportError as error:
        score.unmet.append(f"not run: {error.name} is not installed")
        return
    root = bench.root(2)
    with bench.serve(root) as server:
        server.ready()
        api = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
        found = list(api.get_all_operations())
        operations = [one.ok() for one in found if isinstance(one, Ok)]
        score.require(len(operations) == len(found), "operations that schemathesis cannot read")
        sent = 0
        for operation in operations:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

                @seeded(bench.random.randrange(1 << 30))
                @given(case=operation.as_strategy(generation_mode=mode))
                @settings(
                    max_examples=bench.many(10, 300), deadline=None, database=None, suppress_health_check=list(HealthCheck)
                )
                def answered(case: schemathesis.Case[Any]) -> None:
                    nonlocal sent
                    sent += 1
                    if case.headers and case.headers.get("X-Request-Timeout-Ms"):
                        case.headers["X-Request-Timeout-Ms"] = "60000"  # a short timeout, which gives 504
                    if mode is GenerationMode.POSITIVE:  # noqa: B023 - called within this iteration
                        case.call_and_validate(excluded_checks=[positive_data_acceptance])
                    else:
                        answer = case.call()
                        assert answer.status_code < 500 or answer.status_code in (503, 504), (
                            f"{answer.status_code} {answer.text[:200]}"
                        )

                name = f"{operation.method.upper()} {operation.path}, {mode.value}"
                try:
                    answered()
                except Exception as error:
                    if "Unsatisfiable" in type(error).__name__ or "no cases" in str(error).lower() or "Cannot" in str(error):
                        continue  # no such request exists
                    score.record(False, f"{name}: {str(error)[:600]}")
                else:
                    score.record(True)
        score.notes.append(f"{sent:,} requests to {len(operations)} operations")
        score.require("Traceback" not in server.log.read_text(), "traceback in the log")


CASES = [
    Case(
        20,
        "valid and invalid requests by the OpenAPI document",
        "schemathesis generates requests for every operation",
        "only documented statuses and response schemas; no 5xx",
        fuzzed,
    ),
]
