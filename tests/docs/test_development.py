"""The pages for developers name files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "development"
PAGES = sorted(FOLDER.glob("*.md"))
PATH = re.compile(r"`((?:recall|service|tests|scripts|docs|docker|examples)/[\w./-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_by_a_page_exist(page: Path) -> None:
    # a name in capitals represents a file that the reader adds
    named = [name for name in PATH.findall(page.read_text(encoding="utf-8")) if not re.search(r"\b[A-Z]{2,}\.", name)]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_resolve(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_the_first_page_links_all_other_pages() -> None:
    first = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"]({page.name})" not in first] == []
