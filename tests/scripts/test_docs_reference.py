"""The generated parts of the reference are complete."""

import re

import pytest

import recall
from recall.config import RunConfig
from scripts.docs_reference import GENERATED, ROOT, on_page_markdown
from service.config import Settings


def test_every_text_is_on_exactly_one_page() -> None:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    marks = [mark for page in pages for mark in re.findall(r"<!-- generated: ([\w-]+) -->", page)]
    assert sorted(marks) == sorted(GENERATED)


def test_a_mark_is_replaced() -> None:
    text = on_page_markdown("a\n\n<!-- generated: exit-codes -->\n\nb\n", page=None)
    assert text.startswith("a\n\n| code | meaning | exceptions |")
    assert text.endswith("\n\nb\n")
    with pytest.raises(KeyError, match="other"):
        on_page_markdown("<!-- generated: other -->")


def test_all_commands_have_their_options() -> None:
    text = GENERATED["command-line"]()
    for heading in ("recall train", "recall data check", "recall items upsert", "recall serve"):
        assert f"## `{heading}`" in text
    assert "* `--resume BUNDLE`: Continue from a published bundle" in text
    assert "[below](#recall-serve-options)" in text


def test_all_settings_of_the_service_are_listed() -> None:
    text = GENERATED["service-options"]()
    assert "| `--port` | `RECALL_PORT` | integer | `8000` |" in text
    assert len(text.splitlines()) == 2 + len(Settings.model_fields)


def test_all_sections_of_a_configuration_are_listed() -> None:
    text = GENERATED["configuration"]()
    for name in RunConfig.model_fields:
        assert f"[{name}" in text or f"`{name}`" in text


def test_all_exceptions_have_an_exit_code_with_a_meaning() -> None:
    text = GENERATED["exceptions"]()
    assert [name for name in recall.__all__ if name.endswith("Error") and f"`{name}`" not in text] == []
    assert [line for line in GENERATED["exit-codes"]().splitlines() if "|  |" in line.removesuffix("|  |")] == []


def test_operations_and_schemas_are_linked() -> None:
    text = GENERATED["http"]()
    assert "### POST /v1/recommend { #recommend }" in text
    assert "Body: [RecommendRequest](#schema-recommendrequest)" in text
    targets = set(re.findall(r"\(#(schema-\w+)\)", text))
    assert targets == set(re.findall(r"\{ #(schema-\w+) \}", text)) & targets
    assert "| `n` | integer | `" in text


def test_metrics_have_types_and_labels() -> None:
    text = GENERATED["metrics"]()
    assert "| `recall_http_requests_total` | counter |" in text
    assert "| `recall_http_request_duration_seconds` | histogram |" in text
