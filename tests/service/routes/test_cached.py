"""Recommendations by GET: the same as by POST, and not sent again while unchanged."""

from pathlib import Path
from urllib.parse import quote

import orjson
import pytest

from tests.service.publishing import ODD_IDS, Shop
from tests.service.routes.asking import get, refused
from tests.service.serving import Answer, Server, serving


def ask(server: Server, user_id: str, query: str = "", **headers: str) -> Answer:
    return get(server, f"/v1/users/{quote(user_id, safe='')}/recommendations{query}", **headers)


@pytest.mark.parametrize("user_id", ["3", "nobody", *ODD_IDS])
def test_they_are_the_same_as_by_post(server: Server, user_id: str) -> None:
    found = ask(server, user_id, "?n=6", x_request_id="mine")
    assert found.status == 200
    assert found.json == server.post({"user_id": user_id, "n": 6}, x_request_id="mine").json
    assert len(ask(server, user_id).json["items"]) == 10


def test_an_unchanged_answer_is_not_sent_again(server: Server) -> None:
    tag = ask(server, "3", "?n=6").headers["etag"]
    assert tag.startswith('W/"')
    for condition in (tag, f'"x", {tag}', tag.removeprefix("W/"), "*"):
        again = ask(server, "3", "?n=6", if_none_match=condition)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["cache-control"] == "private, no-cache"
    assert ask(server, "3", "?n=7", if_none_match=tag).status == 200
    assert ask(server, "4", "?n=6", if_none_match=tag).status == 200


def test_any_change_of_the_answer_changes_its_tag(own_shop: Shop, tmp_path: Path) -> None:
    own_shop.publish(seed=0)
    with serving(own_shop.root, tmp_path / "log") as server:
        server.wait()
        first = ask(server, "3")
        best = first.json["items"][0]["item_id"]
        body = orjson.dumps({"interactions": [{"user_id": "3", "item_id": best}]})
        assert server.ask("POST", "/v1/interactions", body, content_type="application/json").status == 200
        second = ask(server, "3", if_none_match=first.headers["etag"])
        assert second.status == 200
        assert best not in [one["item_id"] for one in second.json["items"]]
        assert server.ask("DELETE", "/v1/items/" + quote(second.json["items"][0]["item_id"], safe="")).status == 200
        assert ask(server, "3", if_none_match=second.headers["etag"]).status == 200


def test_invalid_requests(server: Server) -> None:
    for query in ("?n=0", "?n=1001", "?n=x", "?m=3", "?n=1&n=1"):
        refused(ask(server, "3", query), 422)
    refused(get(server, "/v1/users/%FF/recommendations"), 422)
