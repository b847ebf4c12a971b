"""Accessibility of the page: keyboard, small screens, dark mode and screen readers."""

from itertools import product

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.service.page.conftest import SCREENS, Visit, visiting
from tests.service.serving import Server

VIEWS = ("recommend", "compare", "items", "model", "traffic")


def fill_all(visit: Visit) -> None:
    """Open all parts of every view."""
    page = visit.page
    visit.open()
    page.click("nav a:has-text('Compare')")
    page.fill("#right-user", "4" * 40)
    page.click("#compare-form button")
    page.wait_for_selector("#compare-result table")
    page.click("nav a:has-text('Items')")
    page.fill("#item", "long" * 40)
    page.click("#item-form [type=submit]")
    page.wait_for_selector("#item-status a")
    page.click("#item-form [type=submit]")
    page.click("nav a:has-text('Model')")
    page.wait_for_selector("#versions table")
    page.click("#changes-form button")
    page.wait_for_selector("#changes table")
    page.wait_for_selector("#report section")
    visit.open_all("#report")
    page.click("nav a:has-text('Traffic')")
    page.wait_for_selector("#latency svg")
    page.click("#latency summary")
    page.click("nav a:has-text('Recommend')")
    visit.open_all("#recommend-form")
    for part in ("filter", "rules", "boosts", "channels"):
        page.click(f"#{part} button:has-text('Add a ')")
    page.select_option("#because", "1")
    visit.recommend("3", n="5")
    page.click("#list > li:first-child button:has-text('Why')")
    page.click("#list > li:nth-child(2) button:has-text('Similar')")
    page.wait_for_selector("#list .plain")
    page.wait_for_selector("#list .reasons")
    visit.open_all("#list")
    page.click("#recommend-code button")
    page.fill("#why-not-item", "7")
    page.locator("#why-not-form").evaluate("form => form.requestSubmit()")  # suggestions may open over the button just now
    page.wait_for_selector("#why-not p")


def show(visit: Visit, view: str) -> None:
    visit.page.click(f"nav a[href='#{view}']")
    visit.page.wait_for_selector(f"#{view}:not([hidden])")


@pytest.mark.slow
def test_no_serious_violation_and_no_horizontal_overflow(browser: Browser, server: Server) -> None:
    with visiting(browser, server, viewport={"width": 360, "height": 740}) as visit:
        page = visit.page
        fill_all(visit)
        assert visit.troubles == []
        assert visit.violations() == []
        for view, scheme, width in product(VIEWS, ("light", "dark"), (1280, 360)):
            page.set_viewport_size({"width": width, "height": 740})
            page.emulate_media(color_scheme=scheme)
            show(visit, view)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (view, width)
            assert page.evaluate(
                "[...document.querySelectorAll('main *')].every(one => one.getBoundingClientRect().left >= -1)"
            )
            page.screenshot(path=SCREENS / f"{view}-{scheme}-{width}.png", full_page=True)
            if (scheme, width) in (("light", 1280), ("dark", 360)):
                found = Axe().run(page).response["violations"]
                assert [(one["id"], one["impact"], [node["html"] for node in one["nodes"]]) for one in found] == [], view


def test_axe_detects_a_violation(visit: Visit) -> None:
    visit.page.evaluate("document.querySelector('label[for=user]').remove()")
    assert "label" in [one["id"] for one in Axe().run(visit.page).response["violations"]]


def test_dark_mode_follows_the_browser(visit: Visit) -> None:
    shown = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.getElementById('user')).color]"
    for scheme in ("dark", "light"):
        visit.page.emulate_media(color_scheme=scheme)
        colours = visit.page.evaluate(shown)
        ground, ink = (sum(map(int, one.removeprefix("rgb(").removesuffix(")").split(","))) for one in colours)
        dark, bright = (ground, ink) if scheme == "dark" else (ink, ground)
        assert dark < 150 < 600 < bright


def test_the_keyboard_is_sufficient(visit: Visit) -> None:
    keys = visit.page.keyboard
    keys.press("Tab")
    assert visit.focused() == "skip"
    keys.press("Enter")
    assert visit.focused() == "main"
    keys.press("Tab")
    assert visit.focused() == "user"
    outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    keys.type("3")
    keys.press("Tab")
    assert visit.focused() == "random"
    keys.press("Tab")
    assert visit.focused() == "n"
    keys.press("Control+a")
    keys.type("4")
    keys.press("Tab")
    keys.press("Enter")  # opens features and context
    keys.press("Tab")
    assert visit.page.evaluate("document.activeElement.labels[0].textContent") == "age"
    keys.type("50")
    while visit.page.evaluate("document.activeElement.tagName") != "SUMMARY":
        keys.press("Tab")
    keys.press("Enter")  # opens the filter
    keys.press("Tab")
    keys.press("Enter")  # adds a condition, whose first part has the focus
    assert visit.page.evaluate("document.activeElement.labels[0].textContent") == "Column"
    while visit.page.evaluate("document.activeElement.type") != "submit":
        keys.press("Tab")
    with visit.page.expect_response("**/v1/recommend"):
        keys.press("Enter")
    visit.settle()
    assert visit.text("#recommend-status") == "4 items."
    served = visit.server.post({"user_id": "3", "n": 4, "features": {"age": 50}}).json
    assert visit.listed() == [one["item_id"] for one in served["items"]]
    visit.page.focus("#list-title")
    keys.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent").startswith("Why")
    keys.press("Space")
    visit.page.wait_for_selector("#list .reasons")
    assert visit.page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    keys.press("Space")
    assert not visit.page.is_visible("#list .reasons")
