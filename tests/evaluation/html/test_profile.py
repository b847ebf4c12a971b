"""The profile of the data in a real browser, and its texts."""

import re
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser

EVIL = "<script>window.taken = 1</script>"
CONFIG = """
[data]
interactions = "log.parquet"
items = "items.parquet"
time = "at"
attributes = ["title"]
[fields]
user_id = { side = "user", kind = "categorical" }
item_id = { side = "item", kind = "categorical" }
"<b>&\\"'" = { side = "item", kind = "categorical" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = {"user_id": [f"u{n % 9}" for n in range(90)], "item_id": [f"i{n % 7}" for n in range(90)]}
    pl.DataFrame({**log, "at": range(1_700_000_000, 1_700_900_000, 10_000)}).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(7)], "title": [EVIL] * 3 + [None] * 4, "<b>&\"'": [EVIL, "b"] * 3 + ["c"]}
    ).write_parquet(tmp_path / "items.parquet")
    (tmp_path / "recall.toml").write_text(CONFIG)
    return tmp_path


def test_the_page_has_the_figures_and_escapes_all_values(run, folder: Path, browser: Browser) -> None:
    out = folder / "out" / "profile.html"
    ended = run("data", "check", folder / "recall.toml", "--report", out)
    assert ended.code == 0
    page = out.read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "http://" not in re.sub(r"http://www\.w3\.org/\S*", "", page)
    headings = [re.sub("<.*?>", "", one) for one in re.findall("<h2>.*?</h2>", page)]
    assert headings == ["Findings", "Long tail", "Time line", "Missing values", "Different values", "Columns"]
    assert "<dt>interactions</dt><dd>90</dd><dd>10.0 a user, 12.9 an item</dd>" in page
    assert "<td>items</td><td>title</td><td>string</td><td>attribute for filters</td><td>57.1%</td><td>1</td>" in page
    inks = set()
    for scheme, width in (("light", 360), ("dark", 1280)):
        with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
            shown = context.new_page()
            asked: list[str] = []
            shown.on("request", lambda one, asked=asked: asked.append(one.url))
            shown.goto(out.as_uri())
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert shown.evaluate("document.querySelectorAll('svg').length") == 4
            assert shown.evaluate("window.taken") is None
            assert EVIL in shown.evaluate("document.body.textContent")
            inks.add(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
            shown.screenshot(path=folder / f"profile-{width}-{scheme}.png", full_page=True)
            assert asked == [out.as_uri()]
    assert len(inks) == 2


def test_a_run_that_cannot_be_trained_is_profiled_with_its_error(run, folder: Path) -> None:
    items = pl.read_parquet(folder / "items.parquet")
    pl.concat([items, items.head(1)]).write_parquet(folder / "items.parquet")
    ended = run("data", "check", folder / "recall.toml", "--report", folder / "profile.html")
    assert ended.code == 65
    page = (folder / "profile.html").read_text()
    assert "<dt>findings</dt><dd>1 error" in page
    assert "1 ids are in more than one row" in page


def test_settings_are_overridden(run, folder: Path) -> None:
    ended = run("data", "check", folder / "recall.toml", "--set", "data.repeats=merge", "--json")
    assert 'data.repeats = \\"merge\\" leaves out' in ended.out
