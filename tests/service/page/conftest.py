"""A real browser, and a server of a shop whose items and users the page changes."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, sync_playwright

from tests.service.publishing import Shop
from tests.service.serving import Server, serving

_REPORT = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""

PATIENT = ("--age", "30")
"""Options of a server whose answers may take long: a browser is at work beside it."""


@dataclass
class Visit:
    """A page, and all that it should not have brought about."""

    page: Page
    server: Server
    troubles: list[str] = field(default_factory=list)

    def open(self, view: str = "") -> None:
        self.page.goto(f"http://127.0.0.1:{self.server.port}/" + (f"#{view}" if view else ""))
        self.until("document.getElementById('serving').textContent !== ''")

    def recommend(self, user: str = "3", **fields: str) -> None:
        """Fill in the form, send it, and wait for the answer."""
        self.page.evaluate("document.querySelector('#recommend-form details').open = true")
        for name, value in {"user": user, **fields}.items():
            self.page.fill(f"#{name}", value)
        with self.page.expect_response("**/v1/recommend"):
            self.page.click("#recommend-form [type=submit]")
        self.settle()

    def settle(self) -> None:
        """Wait until the list is whole, with attributes and what is known of the user."""
        self.page.wait_for_selector("#list:not([aria-busy]) > li")

    def listed(self) -> list[str]:
        return self.texts("#list > li .head > .id")

    def until(self, expression: str) -> None:
        """Wait until an expression is true; Playwright's own way would evaluate text, which the page's policy forbids."""
        deadline = time.monotonic() + 20
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return self.page.eval_on_selector(selector, "one => one.textContent")

    def texts(self, selector: str) -> list[str]:
        return self.page.eval_on_selector_all(selector, "all => all.map(one => one.textContent)")

    def numbers(self, selector: str) -> list[float]:
        """The whole of every number that is shown in an element."""
        return self.page.eval_on_selector_all(f"{selector} data", "all => all.map(one => Number(one.value))")

    def focused(self) -> str:
        """The id of the element that has the focus."""
        return self.page.evaluate("document.activeElement.id")

    def violations(self) -> list[str]:
        return self.page.evaluate("window.violations")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, for as long as these tests run: no event loop of others can run beside its own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def root(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shop is published that is visited, and changed."""
    own = shop.in_(tmp_path_factory.mktemp("visited") / "bundles")
    own.publish(seed=1)
    return own.root


@pytest.fixture(scope="package")
def server(root: Path) -> Iterator[Server]:
    with serving(root, root.parent / "server.log", *PATIENT) as started:
        started.wait()
        yield started


@contextmanager
def visiting(browser: Browser, server: Server, **options) -> Iterator[Visit]:
    """A page of a context of its own, with Playwright's options for it."""
    with browser.new_context(**options) as context:
        context.add_init_script(_REPORT)
        yield _watched(context, server)


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context() as context:
        context.add_init_script(_REPORT)
        yield context


@pytest.fixture
def visit(context: BrowserContext, server: Server) -> Iterator[Visit]:
    """The page at its first view; the test may not bring about dialogs, errors or violations of the page's policy."""
    visit = _watched(context, server)
    visit.open()
    yield visit
    assert visit.troubles == []
    assert visit.violations() == []
    visit.page.close()


def _watched(context: BrowserContext, server: Server) -> Visit:
    page = context.new_page()
    page.set_default_timeout(20_000)
    visit = Visit(page, server)

    def refuse(dialog: Dialog) -> None:
        visit.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.troubles.append(f"console: {message.text}")

    page.on("dialog", refuse)
    page.on("console", note)
    page.on("pageerror", lambda error: visit.troubles.append(f"error: {error}"))
    return visit
