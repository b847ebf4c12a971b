"""Draw the pictures of the README: the page and a report of the demo.

    python scripts/pictures.py [--demo FOLDER] [--out docs/images]

FOLDER is the output of `recall demo`, which is run when the folder does not exist. Needs Chromium and the extras `report`
and `dev`.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Page, sync_playwright

_RECALL = (sys.executable, "-c", "from recall.cli import main; main()")
_MOST = 200_000  # bytes of a picture
_WAIT = 60.0  # seconds for the service


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/pictures"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    if not (given.demo / "bundles").exists():
        _run("demo", "--out", given.demo)
    report = given.demo / "report.html"
    _run("evaluate", given.demo / "data/recall.toml", given.demo / "bundles", "--ablate", "--report", report)
    given.out.mkdir(parents=True, exist_ok=True)
    browser_path = shutil.which("chromium") or shutil.which("chrome")
    with sync_playwright() as playwright, _serving(given.demo / "bundles") as address:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        _save(page, given.out / "report.png")
        page.goto(address)
        _ask(page)
        _save(page, given.out / "page.png")
        browser.close()


def _run(*arguments: object) -> None:
    subprocess.run([*_RECALL, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _serving(root: Path) -> Iterator[str]:
    """Serve a root, and yield the address of its page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = subprocess.Popen([*_RECALL, "serve", str(root), "--port", str(port)], stdout=subprocess.DEVNULL)
    address, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + _WAIT
    try:
        while True:
            try:
                urlopen(f"{address}health/ready", timeout=5).close()
                break
            except URLError:
                if service.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the service did not start")
                time.sleep(0.2)
        yield address
    finally:
        service.terminate()
        service.wait()


def _ask(page: Page) -> None:
    """Ask for a list, and why the first item is in it."""
    page.wait_for_selector("main[data-started]", state="attached")
    page.fill("#user", "u0001")
    with page.expect_response("**/v1/recommend"):
        page.click("#recommend-form [type=submit]")
    page.wait_for_selector("#list:not([aria-busy]) > li")
    page.click("#list > li:first-child button:has-text('Why')")
    page.wait_for_selector("#list .reasons")


def _save(page: Page, path: Path) -> None:
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(128)
    picture.save(path, optimize=True)
    size = path.stat().st_size
    if size > _MOST:
        sys.exit(f"{path} has {size:,} bytes, more than {_MOST:,}")
    print(f"{path}: {size:,} bytes")


if __name__ == "__main__":
    main()
