"""A real browser, and a server whose items and users the page changes."""

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
"""Options of a server whose answers may take long, since a browser runs on the same machine."""


@dataclass
class Visit:
    """A page, and the errors that it has caused."""

    page: Page
    server: Server
    troubles: list[str] = field(default_factory=list)

    def open(self, view: str = "") -> None:
        self.page.goto(f"http://127.0.0.1:{self.server.port}/" + (f"#{view}" if view else ""))
        self.until("'started' in document.getElementById('main').dataset")

    def recommend(self, user: str = "3", **fields: str) -> None:
        """Fill in the form, send it, and wait for the answer."""
        self.page.evaluate("document.querySelector('#recommend-form details').open = true")
        for name, value in {"user": user, **fields}.items():
            self.page.fill(f"#{name}", value)
        with self.page.expect_response("**/v1/recommend"):
            self.page.click("#recommend-form [type=submit]")
        self.settle()

    def settle(self) -> None:
        """Wait until the list is complete, with attributes and the user."""
        self.page.wait_for_selector("#list:not([aria-busy]) > li")

    def listed(self) -> list[str]:
        return self.texts("#list > li .head > .id")

    def until(self, expression: str) -> None:
        """Wait until an expression is true; Playwright's own function evaluates text, which the page's policy forbids."""
        deadline = time.monotonic() + 20
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return self.page.eval_on_selector(selector, "one => one.textContent")

    def texts(self, selector: str) -> list[str]:
        return self.page.eval_on_selector_all(selector, "all => all.map(one => one.textContent)")

    def numbers(self, selector: str) -> list[float]:
        """The full value of every number in an element."""
        return self.page.eval_on_selector_all(f"{selector} data", "all => all.map(one => Number(one.value))")

    def focused(self) -> str:
        """The id of the focused element."""
        return self.page.evaluate("document.activeElement.id")

    def violations(self) -> list[str]:
        return self.page.evaluate("window.violations")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, for these tests only, because its event loop excludes others."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def root(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published shop, which the tests change."""
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
    """A page in its own context, with Playwright's options."""
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
    """The page at its first view; dialogs, errors or violations of the page's policy fail the test."""
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
