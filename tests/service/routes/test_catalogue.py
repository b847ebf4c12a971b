"""Single items and pages of items: each item is on exactly one page, during changes too."""

from pathlib import Path
from urllib.parse import quote

import orjson
import pytest

from tests.service.publishing import ITEMS, ODD_IDS, Shop
from tests.service.routes.asking import content, get, refused
from tests.service.serving import Server, serving
from tests.service.test_live import served_within


def pages(server: Server, size: int, between=lambda number: None) -> list[dict]:
    """All items, page by page; `between` is called after each page with its number."""
    items, token, number = [], "", 0
    while number == 0 or token:
        answer = get(server, f"/v1/items?page_size={size}&page_token={token}")
        assert answer.status == 200, answer.body
        items += answer.json["items"]
        assert len(answer.json["items"]) <= size
        token = answer.json["next_page_token"]
        between(number)
        number += 1
    return items


@pytest.mark.parametrize("size", [1, 7, len(ITEMS) - 1, len(ITEMS), len(ITEMS) + 1, 5000])
def test_every_item_is_on_one_page(server: Server, shop: Shop, size: int) -> None:
    found = pages(server, size)
    assert [one["item_id"] for one in found] == sorted(ITEMS)
    table = {row.pop("item_id"): row for row in shop.dataset.items.select("item_id", "genre", "year").to_dicts()}
    assert {one["item_id"]: one["features"] for one in found} == table


def test_the_usual_page(server: Server) -> None:
    found = content(get(server, "/v1/items"))
    assert len(found["items"]) == len(ITEMS)
    assert found["next_page_token"] == ""
    assert content(get(server, "/v1/items?page_size=0")) == found


@pytest.mark.parametrize("item_id", ["7", *ODD_IDS])
def test_one_item(server: Server, shop: Shop, item_id: str) -> None:
    found = content(get(server, "/v1/items/" + quote(item_id, safe="")))
    year = shop.dataset.items.filter(item_id=item_id)["year"][0]
    assert found["item_id"] == item_id
    assert found["features"]["year"] == year


def test_items_are_found_by_a_part_of_their_ids(server: Server) -> None:
    found = content(get(server, "/v1/items?search=SCRIPT&page_size=2"))
    assert [one["item_id"] for one in found["items"]] == ["<script>alert(1)</script>"]
    assert found["next_page_token"] == ""
    assert len(content(get(server, "/v1/items?search=1&page_size=4"))["items"]) == 4


def test_missing_items_and_invalid_requests(server: Server) -> None:
    refused(get(server, "/v1/items/none%20such"), 404)
    for query in ("page_size=-1", "page_size=many", "page_size=1&page_size=2", "page=2", "page_token=x", "page_token=%FF"):
        refused(get(server, f"/v1/items?{query}"), 422)
    token = get(server, "/v1/items?page_size=3").json["next_page_token"]
    for wrong in (token[:-1], token + "A", token.lower(), token + "="):
        refused(get(server, f"/v1/items?page_token={wrong}"), 422)


def test_paging_through_a_changing_catalogue(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()

        def change(number: int) -> None:
            if number == 3:
                items = [{"item_id": one, "features": {"genre": "noir"}} for one in (*ITEMS[:20], "fresh", "-fresh", "zzz")]
                assert (
                    server.ask(
                        "POST", "/v1/items:upsert", orjson.dumps({"items": items}), content_type="application/json"
                    ).status
                    == 200
                )
                assert server.ask("DELETE", "/v1/items/59").status == 200
            if number == 6:
                served_within(server, own_shop.publish(seed=1).name)

        found = [one["item_id"] for one in pages(server, 5, change)]
        assert len(found) == len(set(found))
        assert set(found) >= {*ITEMS, "zzz"} - {"59"}
        after = [one["item_id"] for one in pages(server, 6)]
        assert after == sorted({*ITEMS, "fresh", "-fresh", "zzz"} - {"59"})
        item = get(server, "/v1/items/fresh").json
        assert item["features"] == {"genre": "noir"}
        assert item["sequence"] == 24
        refused(get(server, "/v1/items/59"), 404)


def test_an_item_that_is_read_can_be_upserted(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        before = server.post({"user_id": "3", "n": 1000}).json["items"]
        found = pages(server, 1000)
        assert (
            server.ask("POST", "/v1/items:upsert", orjson.dumps({"items": found}), content_type="application/json").status
            == 200
        )
        assert pages(server, 1000) == found
        after = server.post({"user_id": "3", "n": 1000}).json["items"]
        assert sorted(one["item_id"] for one in after) == sorted(one["item_id"] for one in before)
