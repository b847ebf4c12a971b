"""The page shows the answers of the service."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from recall.config import parse_config
from service.scenarios import FILE
from tests.service.page.conftest import PATIENT, Visit, visiting
from tests.service.publishing import CONFIG, USERS, Shop
from tests.service.serving import serving


def test_the_list_is_the_served_one(visit: Visit) -> None:
    visit.recommend("3", n="12")
    served = visit.server.post({"user_id": "3", "n": 12}).json
    assert visit.listed() == [one["item_id"] for one in served["items"]]
    assert visit.numbers("#list .head") == pytest.approx([one["score"] for one in served["items"]], abs=1e-6)
    badges = visit.texts("#badges li")
    for said in ("user known", "exact", "not degraded", f"bundle {served['bundle']}", f"sequence {served['sequence']}"):
        assert said in badges
    assert any(re.fullmatch(r"total [\d.]+ ms", one) for one in badges)
    known = visit.server.ask("GET", "/v1/users/3").json
    assert visit.texts("#known ol .id") == known["history"]
    assert visit.texts("#known dt") == list(known["features"])
    genre = visit.server.ask("GET", f"/v1/items/{visit.listed()[-1]}").json["features"]["genre"]
    assert f"genre{genre}" in visit.texts("#list > li:last-child .attributes > div")


def test_everything_typed_is_in_the_request(visit: Visit) -> None:
    visit.page.click("#recommend-form summary")
    visit.page.uncheck("#seen")
    visit.recommend(
        "nobody",
        n="4",
        popularity="0.5",
        features='{"age": 44}',
        context='{"device": "web"}',
        history="7\na/b",
        filter='{"genre": "noir"}',
    )
    asked = {
        "user_id": "nobody",
        "n": 4,
        "popularity": 0.5,
        "features": {"age": 44},
        "context": {"device": "web"},
        "history": ["7", "a/b"],
        "filter": {"genre": "noir"},
        "exclude_seen": False,
    }
    assert visit.listed() == [one["item_id"] for one in visit.server.post(asked).json["items"]]
    assert "user unknown" in visit.texts("#badges li.warn")
    assert visit.texts("#list .attributes > div:first-child") == ["genrenoir"] * 4


def test_it_opens_with_the_list_of_a_user(visit: Visit) -> None:
    first = visit.server.ask("GET", "/v1/users?page_size=1").json["users"][0]["user_id"]
    visit.settle()
    served = visit.server.post({"user_id": first, "n": 10}).json
    assert visit.listed() == [one["item_id"] for one in served["items"]]
    assert visit.text("#recommend-status") == "To begin with, for the first user: 10 items."
    assert visit.page.input_value("#user") == ""


def test_bars_add_up_to_the_score(visit: Visit) -> None:
    for popularity in ("1", "0.5", "0"):
        visit.recommend("3", n="2", popularity=popularity)
        scores = visit.numbers("#list .head")
        assert len(scores) == 2
        for place, score in enumerate(scores, 1):
            check_bars(visit, f"#list > li:nth-child({place})", score)


def check_bars(visit: Visit, row: str, score: float) -> None:
    """The bars of one item."""
    visit.page.click(f"{row} button:has-text('Why')")
    visit.page.wait_for_selector(f"{row} .bars")
    parts = visit.numbers(f"{row} .bars")
    assert len(parts) > 3
    assert sum(parts) == pytest.approx(score, abs=1e-4)
    total, served, residual = visit.numbers(f"{row} .bars + dl")
    assert total == pytest.approx(sum(parts))
    assert served == score
    assert abs(residual) < 1e-4
    widths = visit.page.eval_on_selector_all(f"{row} .bar", "all => all.map(one => one.getBoundingClientRect().width)")
    assert max(widths) == widths[0] > 10  # the largest is first, and visible
    visit.page.click(f"{row} summary")
    visit.page.wait_for_selector(f"{row} table")
    values = visit.numbers(f"{row} table")
    assert visit.text(f"{row} caption") == "All of them"
    assert sum(values) == pytest.approx(score, abs=1e-4)
    assert sorted(values, key=abs, reverse=True) == values


def test_why_an_item_is_not_listed(visit: Visit) -> None:
    visit.recommend("3", n="5")
    answer = visit.server.ask(
        "POST", "/v1/why-not", b'{"user_id": "3", "n": 5, "item_id": "7"}', content_type="application/json"
    ).json
    visit.page.fill("#why-not-item", "7")
    visit.page.click("#why-not-form button")
    visit.page.wait_for_selector("#why-not .bars")
    assert f"It ranks {answer['rank']} of {answer['eligible']}." in visit.text("#why-not")
    assert visit.texts("#why-not li strong") == [one["kind"] for one in answer["reasons"]]
    assert sum(visit.numbers("#why-not .bars")) == pytest.approx(answer["missing"], abs=1e-4)


def test_an_interaction_changes_the_next_list(visit: Visit) -> None:
    visit.recommend("11", n="6")
    first = visit.listed()
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.click("#list > li:first-child button:has-text('Took it')")
    visit.until("document.querySelector('#known ol .id').textContent === " + json.dumps(first[0]))
    assert first[0] not in visit.listed()
    assert visit.server.ask("GET", "/v1/users/11").json["history"][0] == first[0]
    assert visit.focused() == "list-title"


def test_two_lists_side_by_side(visit: Visit) -> None:
    visit.open("compare")
    for name, value in {"left-user": "5", "right-user": "5", "right-popularity": "0", "compare-n": "8"}.items():
        visit.page.fill(f"#{name}", value)
    visit.page.click("#compare-form button")
    visit.page.wait_for_selector("#compare-result table")
    lists = [
        [one["item_id"] for one in visit.server.post({"user_id": "5", "n": 8, "popularity": popularity}).json["items"]]
        for popularity in (1, 0)
    ]
    assert lists[0] != lists[1]
    for column, expected in zip((2, 3), lists, strict=True):
        assert visit.texts(f"#compare-result td:nth-child({column}) .id") == expected
    both = len(set(lists[0]) & set(lists[1]))
    assert visit.text("#compare-status").startswith(f"Overlap@8: {both / 8:.2f} ({both} of 8 ")
    moves = [lists[0].index(one) - at if one in lists[0] else None for at, one in enumerate(lists[1])]
    said = ["new" if one is None else "same" if one == 0 else f"up {one}" if one > 0 else f"down {-one}" for one in moves]
    assert visit.texts("#compare-result td:nth-child(4)") == said


def test_the_model_card(visit: Visit) -> None:
    for _ in range(3):
        visit.server.post({"n": 1})
    visit.open("model")
    visit.page.wait_for_selector("#latency svg")
    info = visit.server.ask("GET", "/v1/info").json
    card = dict(zip(visit.texts("#card dt"), visit.texts("#card dd"), strict=True))
    assert card["Version"] == info["bundle"]
    assert (card["Users"], card["Items"]) == (str(info["sizes"]["users"]), str(info["sizes"]["items"]))
    assert card["Created"].startswith(info["created"])
    assert info["certificate"]["met"] is True
    assert f"{100 * info['certificate']['target']:.2f} %" in visit.text("#certificate")
    assert visit.texts("#versions tbody th") == [info["bundle"]]
    assert visit.page.input_value("#route") == "/v1/recommend"
    counted = sum(
        float(one.rpartition(" ")[2])
        for one in visit.server.ask("GET", "/metrics").body.decode().splitlines()
        if one.startswith('recall_http_request_duration_seconds_count{route="/v1/recommend"}')
    )
    assert counted >= 3
    assert visit.text("#latency").startswith(f"{counted:.0f} answers; half took at most ")
    heights = visit.page.eval_on_selector_all("#latency rect", "all => all.map(one => Number(one.getAttribute('height')))")
    assert max(heights) > 100
    visit.page.click("#latency summary")
    assert sum(map(int, visit.texts("#latency td"))) == counted


def test_an_item_is_added_and_deleted(visit: Visit) -> None:
    visit.recommend("6", n="1000")
    before = visit.listed()
    visit.page.click("nav a:has-text('Items')")
    visit.page.fill("#item", "made here")
    visit.page.fill("#item-features", '{"genre": "noir", "year": 1999}')
    visit.page.click("#item-form [type=submit]")
    visit.page.wait_for_selector("#item-status a")
    assert "is new in the catalogue" in visit.text("#item-status")
    visit.page.click("#item-status a")
    visit.settle()
    after = visit.listed()
    assert sorted([*before, "made here"]) == sorted(after)
    assert visit.texts("#list .mark .id") == ["made here"]
    ranked = re.search(r"ranks (\d+) of (\d+)", visit.text("#item-status"))
    assert (int(ranked[1]), int(ranked[2])) == (after.index("made here") + 1, len(after))

    visit.page.click("nav a:has-text('Items')")
    visit.page.fill("#item-features", "")
    visit.page.click("#item-load")
    visit.until("document.getElementById('item-features').value !== ''")
    assert '"year": 1999' in visit.page.input_value("#item-features")
    visit.page.click("#item-delete")  # dialogs are dismissed here
    assert visit.troubles == ['dialog: Delete the item "made here" from the catalogue?']
    assert visit.server.ask("GET", "/v1/items/made%20here").status == 200
    visit.troubles.clear()
    visit.page.evaluate("window.confirm = () => true")
    visit.page.click("#item-delete")
    visit.page.wait_for_selector("#item-status:has-text('Deleted')")
    assert visit.server.ask("GET", "/v1/items/made%20here").status == 404
    visit.page.click("nav a:has-text('Recommend')")
    visit.settle()
    assert visit.listed() == before


def test_copied_code_sends_the_same_request(visit: Visit) -> None:
    awkward = "' OR 1=1--"
    visit.recommend(awkward, n="5", features='{"age": 44}', filter='{"not": {"genre": "noir"}}')
    served = visit.listed()
    commands = {"curl": ["bash", "-c"], "Python": [sys.executable, "-c"]}
    for style, command in commands.items():
        visit.page.click(f"#recommend-code button:has-text('Copy as {style}')")
        visit.until("document.querySelector('#recommend-code [role=status]').textContent !== ''")
        code = visit.page.input_value("#recommend-code textarea")
        answer = subprocess.run([*command, code], capture_output=True, text=True, check=True, env=dict(os.environ), timeout=60)
        assert re.findall(r'"item_id":"([^"]*)"', answer.stdout) == served, style
    visit.open("items")
    visit.page.fill("#item", "a/b")
    visit.page.click("#item-load")
    visit.page.click("#item-code button:has-text('Copy as curl')")
    code = visit.page.input_value("#item-code textarea")
    answer = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert '"item_id":"a/b"' in answer.stdout


def test_a_late_answer_does_not_replace_a_newer_one(visit: Visit) -> None:
    held = []

    def hold(route) -> None:
        held.append(route) if not held else route.continue_()

    visit.page.route("**/v1/recommend", hold)
    visit.page.fill("#user", "1")
    visit.page.click("#recommend-form [type=submit]")
    visit.until("document.getElementById('recommend-status').textContent.startsWith('Asking')")
    visit.recommend("2")
    second = visit.listed()
    assert len(held) == 1
    held[0].abort()
    visit.page.wait_for_timeout(100)
    assert visit.listed() == second == [one["item_id"] for one in visit.server.post({"user_id": "2"}).json["items"]]


def test_the_clipboard_is_used_if_allowed(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.recommend("3", n="2")
    visit.page.click("#recommend-code button:has-text('Python')")
    visit.page.wait_for_selector("#recommend-code [role=status]:has-text('Copied as Python.')")
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == visit.page.input_value("#recommend-code textarea")
    assert "v1/recommend" in copied
    visit.page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
    )  # as over plain HTTP from another machine
    visit.page.click("#recommend-code button:has-text('curl')")
    visit.page.wait_for_selector("#recommend-code [role=status]:has-text('Copy the marked text')")
    marked = visit.page.evaluate("getSelection().toString()")
    assert marked == visit.page.input_value("#recommend-code textarea")
    assert marked.startswith("curl ")


def test_degradations_are_shown(browser: Browser, shop: Shop, tmp_path: Path) -> None:
    index = {**CONFIG["index"], "kind": "ivf"}
    config = parse_config({**CONFIG, "index": index})
    Shop(tmp_path / "b", tmp_path / "made", config, shop.dataset, shop.encoder).publish(seed=1)
    options = ("--users", "redis://127.0.0.1:1/0", "--shadow", "1", *PATIENT)  # nothing listens on that port
    with serving(tmp_path / "b", tmp_path / "log", *options) as server, visiting(browser, server) as visit:
        server.wait()
        visit.open()
        visit.troubles.clear()  # the page asks for a user to begin with
        visit.recommend("3")
        assert any(one.startswith("degraded: users: ") for one in visit.texts("#badges li.warn"))
        assert "approximate" in visit.texts("#badges li")
        assert not {"exact", "not degraded"} & set(visit.texts("#badges li"))
        assert len(visit.listed()) == 10
        visit.page.click("nav a:has-text('Model')")
        visit.page.wait_for_selector("#certificate dl")
        assert visit.texts("#certificate dd")[3] == "no"  # there are too few users for a bound
        deadline = time.monotonic() + 30
        while "Live" not in visit.text("#certificate"):  # it is measured in the background
            assert time.monotonic() < deadline
            server.post({"user_id": "4"})
            visit.page.click("#model-again")
            time.sleep(0.2)
        assert re.search(r"Live[\d.]+ %, between [\d.]+ % and [\d.]+ %$", visit.text("#certificate"))
        assert visit.troubles == []
        assert visit.violations() == []


def test_a_random_user_is_chosen(visit: Visit) -> None:
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.click("#random")
    visit.settle()
    assert visit.page.input_value("#user") in USERS
    assert "user known" in visit.texts("#badges li")


def test_faults_are_shown_at_their_fields(visit: Visit) -> None:
    visit.page.click("#recommend-form summary")
    for name, value, said in (
        ("features", "{", "This is not JSON"),
        ("filter", "[1]", "This is not an object"),
        ("features", '{"aeg": 3}', "/features/aeg"),
        ("n", "0", "/n"),
    ):
        before = visit.page.input_value(f"#{name}")
        visit.page.fill(f"#{name}", value)
        visit.page.click("#recommend-form [type=submit]")
        visit.page.wait_for_selector(f"#recommend-error:has-text('{said}')")
        assert visit.focused() == name
        assert visit.page.get_attribute(f"#{name}", "aria-invalid") == "true"
        visit.page.fill(f"#{name}", before)
    visit.recommend("3")
    assert visit.text("#recommend-error") == ""
    assert visit.page.query_selector("[aria-invalid]") is None
    assert len(visit.troubles) == 2  # the browser logs each unsuccessful answer
    assert all(one.startswith("console: Failed to load resource") for one in visit.troubles)
    visit.troubles.clear()


def test_scenarios_and_their_hit_rates(visit: Visit, root: Path) -> None:
    (root / FILE).write_text('[home]\ndescription = "<b>Start</b>"\nn = 3\n')
    try:
        deadline = time.monotonic() + 30
        path, body = "/v1/scenarios/home:recommend", b'{"user_id": "3"}'
        while (answer := visit.server.ask("POST", path, body, **{"content-type": "application/json"})).status != 200:
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)
        visit.open("model")
        visit.page.wait_for_selector("#scenarios table")
        assert visit.texts("#scenarios tbody")[0] == 'home<b>Start</b>{"n":3}'
        assert visit.texts("#scenarios tbody")[1] == f"home{answer.json['bundle']}100.00 %"
    finally:
        (root / FILE).unlink()
