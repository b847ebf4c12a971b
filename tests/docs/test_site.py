"""The documentation as built: nothing is loaded from another host, and all links lead somewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from scripts.run_readme import ROOT

pytestmark = pytest.mark.slow  # the site takes seconds to build
_LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data", "image": "href"}


class Page(HTMLParser):
    """What a page loads, what it links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag in _LOADING and _LOADING[tag] in values:
            self.loaded.append(values[_LOADING[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {(path.name, address) for path, page in pages.items() for address in page.loaded}
    assert loaded
    assert [one for one in loaded if urlsplit(one[1]).netloc] == []
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert "@import" not in text, sheet
        assert re.findall(r"url\([\"']?(?:https?:)?//", text) == [], sheet


def test_links_and_files_of_the_site_exist(pages: dict[Path, Page]) -> None:
    assert len(pages) > 30
    wrong = []
    for path, page in pages.items():
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or path.name == "404.html":  # that page has absolute paths
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (target in pages and unquote(parts.fragment) not in pages[target].anchors):
                wrong.append((path.name, address))
    assert wrong == []


def test_no_mark_of_a_generated_text_is_left(pages: dict[Path, Page]) -> None:
    assert [path.name for path in pages if "<!-- generated" in path.read_text(encoding="utf-8")] == []


@pytest.fixture
def requests(site: Path) -> Iterator[list[str]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index.html", "how-to/recommendations.html", "reference/http-api.html"):
            page.goto((site / name).as_uri())
            page.wait_for_load_state("networkidle")
        yield asked
        browser.close()


def test_a_browser_asks_no_host(requests: list[str]) -> None:
    assert any(url.endswith("http-api.html") for url in requests)
    assert [url for url in requests if urlsplit(url).netloc] == []
