"""A real browser, and a server whose items and users the page changes."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Locator, Page, Request, sync_playwright

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.evaluation.evaluate import evaluate
from recall.evaluation.report import keep_evaluation
from recall.serving.recommender import Recommender
from tests.service.publishing import Shop
from tests.service.serving import Server, serving

_REPORT = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""

TITLES = {str(number): f"Film {number}" for number in range(60)} | {
    "7": "<img src=x onerror=alert(7)>",
    "8": "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "9": "long " * 400,
    "10": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 emoji",
    "11": "</bdi><script>alert(11)</script>",
}
"""Titles of items by id; the other items do not have titles."""
NAMES = {"3": "Ada Lovelace", "4": "Grace Hopper", "5": "<img src=x onerror=alert(5)>", "6": "Grace " + "long " * 99}
"""Names of users by id; the other users do not have names."""
METRICS = {
    "curve": {"losses": [0.9, 0.5, 0.4], "figures": [0.1, 0.3, None], "best_sweep": 2},
    "race": {
        "metric": "ndcg@10",
        "winner": "square",
        "raced": [
            {"recipe": "square", "value": 0.3, "low": 0.2, "high": 0.4, "sweeps": 2, "seconds": 2.0, "figures": [0.2, 0.3]},
            {"recipe": "<b>softmax</b>", "value": 0.1, "low": 0.1, "high": 0.2, "sweeps": 1, "seconds": 1.0, "figures": [0.1]},
        ],
        "popularity": {"value": 0.05, "low": 0.04, "high": 0.06},
        "over_popularity": {"value": 0.25, "low": 0.2, "high": 0.3},
        "requests": 40,
        "seconds": 3.0,
    },
    "fields": [
        {"name": "<b>age</b>", "loss": -0.01, "helps": False},
        {"name": "genre", "loss": 0.02, "helps": True},
    ],
}
"""Figures that a training would have recorded."""
IMAGES = "https://images.example"
"""An origin whose images are allowed; the browser's requests to it are answered by the tests."""
IMAGE = '<svg xmlns="http://www.w3.org/2000/svg" width="48" height="48"><circle cx="24" cy="24" r="20" fill="teal"/></svg>'
SCREENS = Path("runs/screens")
"""Folder of the screenshots that the tests write."""
PATIENT = ("--age", "30", "--images", IMAGES)
"""Options of a server whose answers may take long, since a browser runs on the same machine."""


@dataclass
class Visit:
    """A page, and the errors that it has caused."""

    page: Page
    server: Server
    troubles: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def open(self, view: str = "") -> None:
        self.page.goto(f"http://127.0.0.1:{self.server.port}/" + (f"#{view}" if view else ""))
        self.until("'started' in document.getElementById('main').dataset")

    def recommend(self, user: str = "3", more: Mapping[str, object] | None = None, **fields: str) -> None:
        """Fill in the form, send it, and wait for the answer.

        Args:
            user: id.
            more: further keys of the request, as JSON.
            fields: values of inputs by their ids.
        """
        self.open_all("#recommend-form")
        for name, value in {"user": user, "more": json.dumps(more) if more else "", **fields}.items():
            self.page.fill(f"#{name}", value)
        with self.page.expect_response("**/v1/recommend"):
            self.page.click("#recommend-form [type=submit]")
        self.settle()

    def open_all(self, within: str) -> None:
        """Open all folded parts of an element."""
        self.page.evaluate("within => document.querySelectorAll(`${within} details`).forEach(one => one.open = true)", within)

    def labelled(self, within: str, label: str) -> Locator:
        """The last input with that label in an element."""
        return self.page.locator(within).get_by_label(label, exact=True).last

    def settle(self) -> None:
        """Wait until the list is complete, with attributes and the user."""
        self.page.wait_for_selector("#list:not([aria-busy]) > li")

    def sent(self) -> dict[str, Any]:
        """The body of the last request for a list."""
        return self.asked[-1]

    def listed(self) -> list[str]:
        return self.texts("#list > li .head .id")

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
    SCREENS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose items have titles and images; two versions of it are published, the second one is evaluated."""
    folder = tmp_path_factory.mktemp("visited")
    shop = Shop.open(folder / "tables", folder / "bundles", titles=TITLES, images=IMAGES, names=NAMES)
    shop.publish(seed=2)
    published = shop.publish(seed=1, metrics=METRICS)
    values = shop.config.model_dump(mode="json")
    held_out = {"data": {**values["data"], "split": {"by": "last", "test": 1}}, "evaluation": {"at": [1, 3], "intervals": 50}}
    config = parse_config({**values, **held_out})
    with Recommender.load(published, users=None) as recommender:
        keep_evaluation(published, evaluate(recommender, load_dataset(config, folder / "tables"), config))
    return shop


@pytest.fixture(scope="package")
def root(titled: Shop) -> Path:
    """The published versions, which the tests change."""
    return titled.root


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
    page.route(f"{IMAGES}/**", lambda route: route.fulfill(body=IMAGE, content_type="image/svg+xml"))
    page.set_default_timeout(20_000)
    visit = Visit(page, server)

    def refuse(dialog: Dialog) -> None:
        visit.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.troubles.append(f"console: {message.text}")

    def keep(request: Request) -> None:
        if request.url.endswith((":recommend", "/v1/recommend")):
            visit.asked.append(request.post_data_json)

    page.on("request", keep)
    page.on("dialog", refuse)
    page.on("console", note)
    page.on("pageerror", lambda error: visit.troubles.append(f"error: {error}"))
    return visit
