"""Ids stay text, keys stay in memory, and no other host receives requests."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.service.page.conftest import IMAGES, PATIENT, SCREENS, TITLES, Visit, visiting
from tests.service.serving import Server, serving

HOSTILE = ("<img src=x onerror=alert(1)>", "<b>bold</b>", "javascript:alert(1)", '"><script>alert(1)</script>')
READ, ADMIN = "read-" + "r" * 40, "admin-" + "a" * 40


@pytest.fixture
def guarded(root: Path, tmp_path: Path) -> Iterator[Server]:
    keys = {"RECALL_READ_KEY": READ, "RECALL_ADMIN_KEY": ADMIN}
    with serving(root, tmp_path / "server.log", *PATIENT, environment=keys) as server:
        server.wait()
        yield server


def test_hostile_ids_and_values_stay_text(visit: Visit) -> None:
    elements = "document.querySelectorAll('main img[onerror], main script, main b, main iframe, main [onerror]').length"
    visit.open("items")
    for item in HOSTILE:
        visit.page.fill("#item", item)
        visit.labelled("#item-columns", "genre").fill("<img src=x onerror=alert(2)>")
        visit.page.click("#item-form [type=submit]")
        visit.until(f"document.querySelector('#item-status .id')?.textContent === {json.dumps(item)}")
    visit.page.click("nav a:has-text('Recommend')")
    visit.recommend("<script>alert(1)</script>", n="1000", more={"filter": {"item_id": {"in": HOSTILE}}})
    assert sorted(visit.listed()) == sorted(HOSTILE)
    assert visit.texts("#known .id")[0] == "<script>alert(1)</script>"
    assert visit.texts("#list .attributes bdi") == ["<img src=x onerror=alert(2)>"] * len(HOSTILE)
    for button in visit.page.query_selector_all("#list button:has-text('Why')"):
        button.click()
    visit.page.wait_for_selector(f"#list > li:nth-child({len(HOSTILE)}) .reasons")
    visit.page.fill("#why-not-item", HOSTILE[0])
    visit.page.press("#why-not-form button", "Enter")
    visit.page.wait_for_selector("#why-not p")
    assert visit.page.evaluate(elements) == 0
    visit.page.evaluate("document.body.append(document.createElement('b'))")
    assert visit.page.evaluate(elements.replace("main b", "body b")) == 1  # the expression finds elements


def test_hostile_titles_stay_text_and_in_their_place(browser: Browser, server: Server) -> None:
    hostile = [str(number) for number in range(7, 12)]
    with visiting(browser, server, viewport={"width": 360, "height": 740}) as visit:
        visit.open()
        visit.recommend("3", n="1000", more={"allow": hostile, "exclude_seen": False})
        assert sorted(visit.listed(), key=int) == hostile
        assert sorted(visit.texts("#list .title")) == sorted(TITLES[one] for one in hostile)
        visit.page.fill("#history-add", "alert(")
        visit.page.wait_for_selector("#history-form [role=option]")
        assert visit.texts("#history-form [role=option] .title") == [TITLES["7"], TITLES["11"]]
        assert visit.page.evaluate("document.querySelectorAll('main script, main [onerror]').length") == 0
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        heights = visit.page.eval_on_selector_all("#list .names", "all => all.map(one => one.getBoundingClientRect().height)")
        assert max(heights) < 100  # of 2,000 characters a few lines are shown
        lefts = visit.page.eval_on_selector_all("#list .id", "all => all.map(one => getComputedStyle(one).unicodeBidi)")
        assert set(lefts) == {"isolate"}
        visit.page.screenshot(path=SCREENS / "hostile.png", full_page=True)
        assert visit.troubles == []
        assert visit.violations() == []


def test_text_cannot_become_html(visit: Visit) -> None:
    made = "try { document.body.innerHTML = '<p>x</p>'; 'made' } catch (error) { error.name }"
    assert visit.page.evaluate(made) == "TypeError"
    assert [one.split()[0] for one in visit.violations()] == ["require-trusted-types-for"]
    visit.page.evaluate("window.violations = []")
    visit.troubles.clear()  # the console reports it, too


def test_only_the_service_receives_requests(browser: Browser, server: Server) -> None:
    with visiting(browser, server) as visit:
        asked: list[str] = []
        visit.page.on("request", lambda request: asked.append(request.url))
        visit.open()
        visit.recommend("3")
        visit.page.click("nav a:has-text('Model')")
        visit.page.wait_for_selector("#card dl")
        visit.page.click("nav a:has-text('Traffic')")
        visit.page.wait_for_selector("#latency svg")
        assert len(asked) > 20
        assert {one for one in asked if not one.startswith((f"http://127.0.0.1:{server.port}/", f"{IMAGES}/"))} == set()
        assert visit.troubles == []
        assert visit.violations() == []


def test_a_key_is_requested_and_kept_in_memory(browser: Browser, guarded: Server) -> None:
    with visiting(browser, guarded) as visit:
        page = visit.page
        visit.open()
        assert visit.text("#serving") == "A key is needed: type one."
        page.fill("#user", "3")
        page.click("#recommend-form [type=submit]")
        page.wait_for_selector("#recommend-error:has-text('A key is needed')")
        assert visit.focused() == "key"
        page.keyboard.type(READ)
        visit.recommend("3")
        assert len(visit.listed()) == 10
        assert "This needs an admin key." in visit.text("#known")  # stored data of a user
        assert visit.text("#serving").startswith("shop 000002-")

        page.click("nav a:has-text('Items')")  # which this key may not change
        page.fill("#item", "7")
        page.click("#item-form [type=submit]")
        page.wait_for_selector("#item-error:has-text('admin key')")
        page.fill("#key", ADMIN)
        page.click("#item-form [type=submit]")
        page.wait_for_selector("#item-status a")

        for style in ("curl", "Python"):
            page.click(f"#item-code button:has-text('Copy as {style}')")
            code = page.input_value("#item-code textarea")
            assert "RECALL_KEY" in code
            assert READ not in code
            assert ADMIN not in code
        kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state])"
        assert page.evaluate(kept) == f'[{{}},{{}},"","{page.url}",null]'
        assert "#items" in page.url
        assert ADMIN not in page.content()
        assert page.context.cookies() == []
        page.reload()
        visit.until("document.getElementById('serving').textContent.startsWith('A key')")
        assert page.input_value("#key") == ""
        assert visit.violations() == []
        assert all("Failed to load resource: the server responded with a status of 40" in one for one in visit.troubles)
