"""The README and the pages in docs/: examples that parse, links that resolve, and a configuration reference that is current."""

import re
import tomllib
from pathlib import Path

import pytest

from recall.config import parse_config
from scripts.run_readme import CONFIGURATION, README, ROOT, blocks, pages, with_table

PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


def _toml(page: Path) -> list[str]:
    return [part.split("```")[0] for part in page.read_text(encoding="utf-8").split("```toml\n")[1:]]


def test_the_configuration_reference_is_current() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    assert with_table(text) == text, "run: python scripts/run_readme.py --write"


def test_the_example_configuration_of_the_readme_is_valid() -> None:
    (shown,) = _toml(README)
    config = parse_config(tomllib.loads(shown))
    assert (config.name, config.data.time, len(config.fields)) == ("films", "when", 7)


def test_examples_are_marked_to_be_run() -> None:
    text = README.read_text(encoding="utf-8")
    assert [language for language, _ in blocks(text)] == ["bash", "bash", "python"]
    assert "recall train" in blocks(text)[0][1]
    languages = {page.stem: [language for language, _ in blocks(page.read_text(encoding="utf-8"))] for page in pages()}
    assert languages == {
        "http-api": ["bash"],
        "live-changes": ["bash", "python", "python"],
        "recommendations": ["python", "python", "python", "bash"],
        "search-index": ["bash", "bash", "python"],
    }


def test_the_data_settings_shown_are_valid() -> None:
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    pieces = [parse_config({"data": tomllib.loads(text), "fields": fields}).data for text in _toml(ROOT / "docs" / "data.md")]
    columns, outcomes = pieces
    assert (outcomes.label, outcomes.weight, outcomes.events.left_out) == ("clicked", "plays", ("refund",))
    assert (columns.item_columns, columns.nulls, columns.text) == (("title", "price"), ("NA", "NULL"), ("code",))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if ":" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}, link


def test_the_readme_links_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in text] == []
