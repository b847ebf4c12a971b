"""The page shows the answers of the service."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from recall.bundle.versions import SCENARIOS
from recall.config import parse_config
from tests.service.page.conftest import IMAGES, NAMES, PATIENT, TITLES, Visit, visiting
from tests.service.publishing import CONFIG, USERS, Shop
from tests.service.serving import serving
from tests.service.test_live import damage


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
    assert visit.texts("#history .id") == known["history"]
    assert visit.texts("#history .title") == [TITLES[one] for one in known["history"] if one in TITLES]
    assert visit.texts("#known dt") == list(known["features"])
    features = visit.server.ask("GET", f"/v1/items/{visit.listed()[-1]}").json["features"]
    assert f"genre{features['genre']}" in visit.texts("#list > li:last-child .attributes > div")
    assert visit.texts("#list .title") == [TITLES[one] for one in visit.listed() if one in TITLES]
    pictured = [one for one in visit.listed() if int(one) % 5 == 0] if all(one.isdigit() for one in visit.listed()) else None
    shown = visit.page.eval_on_selector_all("#list img", "all => all.map(one => [one.src, one.complete && one.naturalWidth])")
    if pictured is not None:
        assert shown == [[f"{IMAGES}/{one}.png", 48] for one in pictured]


def test_the_forms_follow_the_schema(visit: Visit) -> None:
    visit.open_all("#recommend-form")
    label, page = visit.labelled, visit.page
    assert visit.texts("#features label") == ["age", "likes"]
    assert visit.texts("#context option") == ["any", "web", "phone"] or visit.texts("#context option") == [
        "any",
        "phone",
        "web",
    ]
    page.uncheck("#seen")
    label("#features", "age").fill("44")
    for value in ("noir", "drama"):
        label("#features", "likes").fill(value)
        label("#features", "likes").press("Enter")
    assert visit.texts("#features .chips bdi") == ["noir", "drama"]
    page.click("#features .chips .remove")
    label("#context", "device").select_option("web")
    page.click("#filter > button")
    label("#filter", "Column").select_option("genre")
    label("#filter", "Condition").select_option("is one of")
    label("#filter", "Value").fill("noir")
    page.click("#filter > button")
    label("#filter", "Column").select_option("year")
    label("#filter", "Condition").select_option("is at least")
    label("#filter", "Value").fill("1951")
    page.click("#rules > button")
    label("#rules", "Column").select_option("year")
    label("#rules", "Most").fill("2")
    page.click("#rules > button")
    label("#rules", "Rule").select_option("Pin an item")
    label("#rules", "Item").fill("19")
    page.wait_for_selector("#rules [role=option]")
    label("#rules", "Item").press("Enter")
    page.click("#boosts > button")
    label("#boosts", "Weight").fill("0.5")
    page.click("#channels button:has-text('Add a channel')")
    label("#channels", "Weight").fill("2")
    visit.recommend("nobody", n="4", popularity="0.5", more={"exclude": ["12"]})
    asked = {
        "user_id": "nobody",
        "n": 4,
        "popularity": 0.5,
        "features": {"age": 44, "likes": ["drama"]},
        "context": {"device": "web"},
        "filter": {"all": [{"genre": {"in": ["noir"]}}, {"year": {"gte": 1951}}]},
        "rules": [{"kind": "quota", "column": "year", "most": 2}, {"kind": "pin", "items": {"19": 1}}],
        "boosts": {"year": 0.5},
        "channels": {"lists": [{"kind": "model", "weight": 2}], "merge": "reciprocal_rank"},
        "exclude_seen": False,
        "exclude": ["12"],
    }
    sent = visit.sent()
    assert sent.pop("fields") == ["genre", "year", "title", "poster"]
    assert sent == asked
    assert visit.listed() == [one["item_id"] for one in visit.server.post(asked).json["items"]]
    assert "user unknown" in visit.texts("#badges li.warn")
    page.click("#rules .remove")
    assert page.get_attribute("#rules fieldset [data-at$=position]", "data-at") == "/rules/0/position"


def test_the_history_is_edited_item_by_item(visit: Visit) -> None:
    visit.recommend("3")
    stored = visit.server.ask("GET", "/v1/users/3").json["history"]
    visit.page.fill("#history-add", "film 2")
    visit.page.wait_for_selector("#history-form [role=option]")
    assert visit.page.get_attribute("#history-add", "aria-expanded") == "true"
    first = visit.texts("#history-form [role=option] .title")[0]
    assert first == "Film 2"
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.press("#history-add", "Enter")
    visit.settle()
    assert visit.texts("#history .id") == ["2", *stored]
    assert visit.listed() == [
        one["item_id"] for one in visit.server.post({"user_id": "3", "history": ["2", *stored]}).json["items"]
    ]
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.click("#history li:nth-child(2) button")
    visit.settle()
    assert visit.sent()["history"] == ["2", *stored[1:]]
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.click("#history-stored")
    visit.settle()
    assert "history" not in visit.sent()
    assert visit.texts("#history .id") == stored


def test_users_and_items_are_found_while_one_types(visit: Visit) -> None:
    page = visit.page
    page.fill("#user", "1")
    page.wait_for_selector(".picker:has(#user) [role=option]")
    assert visit.texts(".picker:has(#user) [role=option]") == sorted(one for one in USERS if one.startswith("1"))[:8]
    page.fill("#user", "grace")
    page.wait_for_selector(".picker:has(#user) [role=option]:has-text('Hopper')")
    assert visit.texts(".picker:has(#user) [role=option] .title") == [NAMES["4"], NAMES["6"]]
    assert visit.texts("label[for=user]") == ["User id or name"]
    with page.expect_response("**/v1/recommend"):
        page.click(".picker:has(#user) [role=option]:has-text('Hopper')")
    visit.settle()
    assert visit.sent()["user_id"] == "4"
    assert visit.texts("#known .title") == [NAMES["4"]]
    page.fill("#user", "1")
    page.wait_for_selector(".picker:has(#user) [role=option]:has-text('10')")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    marked = page.get_attribute("#user", "aria-activedescendant")
    assert page.get_attribute(f"#{marked}", "aria-selected") == "true"
    with page.expect_response("**/v1/recommend"):
        page.keyboard.press("Enter")
    visit.settle()
    assert visit.sent()["user_id"] == page.input_value("#user") == "10"
    page.fill("#why-not-item", "film 21")
    page.wait_for_selector("#why-not-form [role=option]")
    page.keyboard.press("Escape")
    assert not page.is_visible("#why-not-form [role=listbox]")
    page.fill("#why-not-item", "Film 21")
    page.click("#why-not-form [role=option]")
    assert page.input_value("#why-not-item") == "21"
    page.press("#why-not-item", "Enter")
    page.wait_for_selector("#why-not p")
    assert visit.texts("#why-not p .title")[0] == "Film 21"


def test_it_opens_with_the_list_of_a_user(visit: Visit) -> None:
    first = visit.server.ask("GET", "/v1/users?page_size=1").json["users"][0]["user_id"]
    visit.settle()
    served = visit.server.post({"user_id": first, "n": 10}).json
    assert visit.listed() == [one["item_id"] for one in served["items"]]
    assert visit.text("#recommend-status") == "To begin with, for the first user: 10 items."
    assert visit.page.input_value("#user") == first


def test_why_is_told_in_words_and_its_parts_add_up_to_the_score(visit: Visit) -> None:
    for popularity in ("1", "0.5"):
        visit.recommend("3", n="2", popularity=popularity)
        for place, score in enumerate(visit.numbers("#list .head"), 1):
            check_why(visit, f"#list > li:nth-child({place})", score)
    assert any("you took Film" in one for one in visit.texts("#list .reasons li"))


def check_why(visit: Visit, row: str, score: float) -> None:
    """The reasons and the bars of one item."""
    visit.page.click(f"{row} button:has-text('Why')")
    visit.page.wait_for_selector(f"{row} .reasons")
    reasons = visit.numbers(f"{row} .reasons")
    assert len(reasons) == 4
    assert sorted(reasons, key=abs, reverse=True) == reasons
    assert all(re.match(r"[+−][\d.]+(because|although|despite) ", one) for one in visit.texts(f"{row} .reasons li"))
    visit.page.click(f"{row} .inner > details > summary")
    parts = visit.numbers(f"{row} .bars")
    assert len(parts) > 3
    assert sum(parts) == pytest.approx(score, abs=1e-4)
    total, served, residual = visit.numbers(f"{row} .bars + dl")
    assert total == pytest.approx(sum(parts))
    assert served == score
    assert abs(residual) < 1e-4
    widths = visit.page.eval_on_selector_all(f"{row} .bar", "all => all.map(one => one.getBoundingClientRect().width)")
    assert max(widths) == widths[0] > 10  # the largest is first, and visible
    visit.page.click(f"{row} details details summary")
    values = visit.numbers(f"{row} table")
    assert sum(values) == pytest.approx(score, abs=1e-4)
    assert sorted(values, key=abs, reverse=True) == values


def test_similar_items_and_further_lists(visit: Visit) -> None:
    visit.open_all("#recommend-form")
    visit.page.select_option("#because", "2")
    visit.recommend("3", n="3")
    answer = visit.server.post({"user_id": "3", "n": 3, "because": 2, "fields": ["title"]}).json
    assert visit.texts("#rows h3 .id") == [one["because"] for one in answer["rows"]]
    assert visit.texts("#rows li .id") == [item["item_id"] for one in answer["rows"] for item in one["items"]]
    visit.page.click("#list > li:first-child button:has-text('Similar')")
    visit.page.wait_for_selector("#list .plain")
    similar = visit.server.ask("GET", f"/v1/items/{answer['items'][0]['item_id']}/similar?n=5").json
    assert visit.texts("#list .plain .id") == [one["item_id"] for one in similar["items"]]


def test_why_an_item_is_not_listed(visit: Visit) -> None:
    visit.recommend("3", n="5")
    answer = visit.server.ask(
        "POST", "/v1/why-not", b'{"user_id": "3", "n": 5, "item_id": "7"}', content_type="application/json"
    ).json
    visit.page.fill("#why-not-item", "7")
    visit.page.press("#why-not-form button", "Enter")  # suggestions may open between the pointer going down and up
    visit.page.wait_for_selector("#why-not .bars")
    assert f"It ranks {answer['rank']} of {answer['eligible']}." in visit.text("#why-not")
    assert visit.texts("#why-not li strong") == [one["kind"] for one in answer["reasons"]]
    assert sum(visit.numbers("#why-not .bars")) == pytest.approx(answer["missing"], abs=1e-4)


def test_an_interaction_changes_the_next_list(visit: Visit) -> None:
    visit.recommend("11", n="6")
    first = visit.listed()
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.click("#list > li:first-child button:has-text('Took it')")
    visit.until("document.querySelector('#history .id')?.textContent === " + json.dumps(first[0]))
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
    visit.page.wait_for_selector("#training")
    visit.page.wait_for_selector("#card dl")
    info = visit.server.ask("GET", "/v1/info").json
    card = dict(zip(visit.texts("#card dt"), visit.texts("#card dd"), strict=True))
    assert card["Version"] == info["bundle"]
    assert (card["Users"], card["Items"]) == (str(info["sizes"]["users"]), str(info["sizes"]["items"]))
    assert card["Created"].startswith(info["created"])
    assert info["certificate"]["met"] is True
    assert f"{100 * info['certificate']['target']:.2f} %" in visit.text("#certificate")
    visit.page.wait_for_selector("#training dl")
    told = dict(zip(visit.texts("#training dt"), visit.texts("#training dd"), strict=True))
    assert told["Winner's ndcg@10"] == "0.3 [0.2, 0.4]"
    assert told["More than popularity"] == "0.25 [0.2, 0.3]"
    assert told["Sweeps"] == "3"


def test_the_charts_are_those_of_the_report(visit: Visit) -> None:
    told = visit.server.ask("GET", "/v1/charts").json
    drawn = {one["title"]: one["parts"] for one in told["sections"] if one["parts"]}
    assert list(drawn) == [
        "Quality",
        "Learning curves",
        "Popularity dial",
        "Cold start",
        "What each field is worth",
        "Strength of field pairs",
        "Item map",
    ]
    visit.open("model")
    visit.page.wait_for_selector("#report section")
    assert visit.texts("#report h3") == list(drawn)
    parts = [part for parts in drawn.values() for part in parts]
    charts = visit.page.eval_on_selector_all("#report svg", "all => all.map(one => one.getAttribute('aria-label'))")
    assert len(charts) == sum(one["kind"] in ("lines", "points") for one in parts)
    assert "Learning curves of the 2 runs of the race. 0.1 to 0.1; square: 0.2 to 0.3; popularity: 0.05 to 0.05." in charts
    assert "Loss by sweep of the final training. 0.9 to 0.4." in charts
    assert "Validation figure by sweep. 0.1 to 0.3." in charts
    bars = [bar for one in parts if one["kind"] == "bars" for bar in one["bars"]]
    assert visit.texts("#report .bars bdi") == [bar["name"] for bar in bars]
    assert visit.numbers("#report .bars") == [bar["value"] for bar in bars]
    (worth,) = drawn["What each field is worth"][:1]
    assert [(bar["name"], bar["value"], bar["colour"]) for bar in worth["bars"]] == [
        ("genre", -0.02, "s0"),
        ("<b>age</b>", 0.01, "muted"),
    ]
    groups = next(one["groups"] for one in drawn["Item map"] if one["kind"] == "points")
    assert visit.texts("#report circle title") == [text for group in groups.values() for *_, text in group]
    assert visit.texts("#report > details dt") == ["Index: recall against speed", "Calibration", "Latency"]


def test_versions_are_compared_activated_and_rolled_back(visit: Visit, root: Path) -> None:
    names = [one["version"] for one in visit.server.ask("GET", "/v1/models").json["models"]]
    old = names[1]
    visit.open("model")
    visit.page.wait_for_selector("#versions table")
    assert visit.texts("#versions tbody th") == names
    assert visit.texts("#versions tbody td:nth-child(2)") == ["served, live", ""]
    assert [visit.page.input_value(f"#changes-{end}") for end in ("from", "to")] == names[::-1]
    visit.page.click("#changes-form button")
    visit.page.wait_for_selector("#changes th")
    changed = visit.texts("#changes tbody th")
    assert "figures.race.winner" in changed
    assert not any(one.startswith("config.") for one in changed)
    visit.page.evaluate("window.confirm = text => (window.told = text, true)")
    for button, now in (("#roll-back", old), (f"#versions button[data-version='{names[0]}']", names[0])):
        visit.page.click(button)
        visit.page.wait_for_selector(f"#versions-status:has-text('{now} is live')")
        assert visit.server.ask("GET", "/v1/info").json["bundle"] == now
        visit.until(f"document.getElementById('serving').textContent.endsWith({json.dumps(now)})")
    assert visit.page.evaluate("window.told") == f"Make {names[0]} live?"
    visit.page.wait_for_selector("#versions table")
    broken = root / "versions" / f"000009-{old.partition('-')[2]}"
    shutil.copytree(root / "versions" / old, broken)
    try:
        damage(broken)
        visit.page.click("#model-again")
        visit.page.click(f"#versions button[data-version='{broken.name}']")
        visit.page.wait_for_selector("#versions-error:has-text('The live version stays live')")
        visit.troubles.clear()  # the console reports the answer
    finally:
        shutil.rmtree(broken)


def test_traffic_is_drawn(visit: Visit) -> None:
    for _ in range(3):
        visit.server.post({"n": 1})
    visit.open("traffic")
    visit.page.wait_for_selector("#latency svg")
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
    visit.server.post({"n": 1})
    visit.page.evaluate("import('./page/traffic.js').then(one => one.showTraffic())")
    visit.page.wait_for_selector("#charts svg .series")
    drawn = visit.page.get_attribute("#charts svg", "aria-label")
    assert drawn.startswith("Requests a second. all: ")
    assert "Recall of the index–" in visit.text("#tiles")


def test_an_item_is_added_and_deleted(visit: Visit) -> None:
    visit.recommend("6", n="1000")
    before = visit.listed()
    visit.page.click("nav a:has-text('Items')")
    visit.page.fill("#item", "made here")
    assert visit.texts("#item-columns label") == ["genre", "year", "title", "poster"]
    visit.labelled("#item-columns", "genre").fill("noir")
    visit.labelled("#item-columns", "year").fill("1999")
    visit.labelled("#item-columns", "title").fill("Made <b>here</b>")
    visit.page.click("#item-form [type=submit]")
    visit.page.wait_for_selector("#item-status a")
    assert visit.text("#item-status .title") == "Made <b>here</b>"
    assert "is new in the catalogue" in visit.text("#item-status")
    visit.page.click("#item-status a")
    visit.settle()
    after = visit.listed()
    assert sorted([*before, "made here"]) == sorted(after)
    assert visit.texts("#list .mark .id") == ["made here"]
    ranked = re.search(r"ranks (\d+) of (\d+)", visit.text("#item-status"))
    assert (int(ranked[1]), int(ranked[2])) == (after.index("made here") + 1, len(after))

    visit.page.click("nav a:has-text('Items')")
    visit.labelled("#item-columns", "year").fill("")
    visit.page.click("#item-load")
    visit.page.wait_for_selector("#item-status:has-text('after change')")
    assert visit.labelled("#item-columns", "year").input_value() == "1999"
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
    visit.recommend(awkward, n="5", more={"features": {"age": 44}, "filter": {"not": {"genre": "noir"}}})
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


@pytest.mark.slow
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
        visit.page.click("nav a:has-text('Traffic')")
        visit.page.wait_for_selector("#charts .area")  # the interval of the measured recall
        drawn = visit.page.get_attribute("#charts svg:has(.area)", "aria-label")
        assert re.match(r"Recall of the index, from \d+ sampled requests\. measured: [\d.]+ % to ", drawn)
        assert visit.troubles == []
        assert visit.violations() == []


def test_a_random_user_is_chosen(visit: Visit) -> None:
    with visit.page.expect_response("**/v1/recommend"):
        visit.page.click("#random")
    visit.settle()
    assert visit.page.input_value("#user") in USERS
    assert "user known" in visit.texts("#badges li")


def test_faults_are_shown_at_their_fields(visit: Visit) -> None:
    visit.open_all("#recommend-form")
    visit.page.click("#filter > button")
    visit.labelled("#filter", "Column").select_option("year")
    for name, value, said in (
        ("more", "{", "This is not JSON"),
        ("more", "[1]", "This is not an object"),
        ("more", '{"features": {"aeg": 3}}', "/features/aeg"),
        ("n", "0", "/n"),
        (visit.labelled("#filter", "Value").get_attribute("id"), "many", "/filter/year"),
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
    assert len(visit.troubles) == 3  # the browser logs each unsuccessful answer
    assert all(one.startswith("console: Failed to load resource") for one in visit.troubles)
    visit.troubles.clear()


def test_scenarios_are_chosen_and_their_hit_rates_shown(visit: Visit, root: Path) -> None:
    (root / SCENARIOS).write_text('[home]\ndescription = "<b>Start</b>"\nn = 3\nfilter = { genre = "noir" }\n')
    try:
        deadline = time.monotonic() + 30
        path, body = "/v1/scenarios/home:recommend", b'{"user_id": "3"}'
        while (answer := visit.server.ask("POST", path, body, **{"content-type": "application/json"})).status != 200:
            assert time.monotonic() < deadline, answer
            time.sleep(0.1)
        visit.open()
        visit.page.select_option("#scenario", "home")
        assert visit.text("#scenario-note").startswith('<b>Start</b> n = 3 filter = {"genre":"noir"}')
        assert (visit.page.input_value("#n"), visit.page.is_visible("#shaping")) == ("3", False)
        visit.page.fill("#user", "4")
        with visit.page.expect_response("**/v1/scenarios/home:recommend"):
            visit.page.click("#recommend-form [type=submit]")
        visit.settle()
        assert "scenario home" in visit.texts("#badges li")
        expected = visit.server.post({"user_id": "4", "n": 3, "filter": {"genre": "noir"}}).json["items"]
        assert visit.listed() == [one["item_id"] for one in expected]
        assert visit.texts("#list .title") == [TITLES[one] for one in visit.listed() if one in TITLES]
        visit.page.click("#next-page button")
        visit.until("document.getElementById('list').childElementCount === 6")
        expected = visit.server.post({"user_id": "4", "n": 6, "filter": {"genre": "noir"}}).json["items"]
        assert visit.listed() == [one["item_id"] for one in expected]
        assert visit.texts("#list .rank")[-1] == "6."
        visit.page.fill("#why-not-item", visit.listed()[0])
        visit.page.press("#why-not-form button", "Enter")  # suggestions may open between the pointer going down and up
        visit.page.wait_for_selector("#why-not:has-text('is listed at place 1.')")
        with visit.page.expect_response("**/v1/scenarios/home:recommend"):
            visit.page.click("#list > li:first-child button:has-text('Took it')")
        visit.until("document.getElementById('recommend-status').textContent.startsWith('Taken')")
        visit.open("traffic")
        visit.page.wait_for_selector("#scenarios table")
        assert visit.texts("#scenarios tbody")[0] == 'home<b>Start</b>{"n":3,"filter":{"genre":"noir"}}'
        assert visit.texts("#scenarios tbody")[1] == f"home{answer.json['bundle']}4125.00 %"
    finally:
        (root / SCENARIOS).unlink()
