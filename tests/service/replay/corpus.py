"""About a thousand requests for all routes: valid, invalid, and without JSON."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from tests.service.publishing import ITEMS, ODD_IDS, USERS
from tests.service.serving import request
from tests.service.test_corpus import INVALID, NOT_JSON, TWICE

JSON = "application/json"


class Call(NamedTuple):
    """One request.

    Attributes:
        method: HTTP method.
        target: path and query, in the sent form.
        body: raw body.
        headers: further headers.
    """

    method: str
    target: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()

    def raw(self, request_id: str) -> bytes:
        """The bytes that are sent."""
        headers = dict(self.headers)
        host = headers.pop("host", "localhost")
        raw = request(self.method, self.target, self.body, **headers, x_request_id=request_id)
        return raw.replace(b"host: localhost", b"host: " + host.encode(), 1)


SEARCHES = (
    "/v1/recommend",
    "/v1/recommend:batch",
    "/v1/explain",
    "/v1/why-not",
    "/v1/score",
    "/v1/user-vector",
    "/v1/items/12/similar",
)
CHANGES = ("/v1/items:upsert", "/v1/users:upsert", "/v1/interactions")
FILTERS: tuple[object, ...] = (
    None,
    {"genre": "noir"},
    {"genre": {"in": ["noir", "drama"]}, "not": {"year": 1952}},
    {"any": [{"year": {"gte": 1955}}, {"genre": "comedy"}]},
    {"all": [{"year": {"gte": 1950, "lt": 1953}}, {"not": {"genre": "drama"}}]},
    {"year": {"missing": True}},
    {"columns": {"genre": "noir"}},
    {"gerne": "noir"},
    {"genre": {"on": ["noir"]}},
    {"year": "1951"},
    {"any": []},
    {"not": 1},
    {"all": {"genre": "noir"}},
)
RULES: tuple[object, ...] = (
    [],
    [{"kind": "quota", "column": "genre", "most": 2}],
    [{"kind": "dedupe", "column": "genre"}],
    [{"kind": "diversify", "relevance": 0.7}],
    [{"kind": "pin", "items": {"12": 1}}],
    [{"kind": "dedupe", "column": "gerne"}],
)


def post(target: str, value: object, **headers: str) -> Call:
    """A POST of JSON, or of bytes declared as JSON."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    named = {"content-type": JSON, **{name.replace("_", "-"): text for name, text in headers.items()}}
    return Call("POST", target, body, tuple(named.items()))


def quoted(text: str) -> str:
    """A path part for any id."""
    return "".join(f"%{byte:02X}" for byte in text.encode())


def recommendations(path: str = "/v1/recommend") -> Iterator[Call]:
    """Requests for recommendations to one path, valid and invalid."""
    for user in (*USERS, "nobody", "x" * 1024):
        yield post(path, {"user_id": user, "n": 5})
    for n in (1, 2, 10, 79, 80, 1000):
        yield post(path, {"n": n})
        yield post(path, {"user_id": "3", "n": n, "exclude_seen": False})
        yield post(path, {"user_id": "3", "n": n, "explain": True})
    for one, rules in itertools.product(FILTERS, RULES):
        yield post(path, {"user_id": "4", "n": 4, "filter": one, "rules": rules})
    for popularity in (0, 0.5, 1, 1.0, 2.5, 10):
        yield post(path, {"user_id": "5", "popularity": popularity, "boosts": {"year": 0.1, "genre=noir": -0.5}})
    for body in (
        {},
        {"user_id": 7, "history": [1, "2", 3]},
        {"features": {"age": 31, "likes": ["noir"]}, "context": {"device": "web"}},
        {"features": {"age": "31"}, "context": {"device": ["web"]}},
        {"features": {"shoe": 43}},
        {"allow": ["1", "2", "none"], "exclude": ["1"]},
        {"allow": []},
        {"channels": {"lists": [{"kind": "model"}, {"kind": "list", "name": "editors", "items": ["12", "7"]}]}},
        {"channels": {"lists": [{"kind": "latest", "column": "year"}]}, "n": 3},
    ):
        yield post(path, body)
    for text, _ in INVALID:
        yield post(path, text.encode())
    for raw in (*NOT_JSON.values(), *TWICE):
        yield post(path, raw)
    for media in ("text/plain", "", "application/json; charset=latin-1", "json", "Application/JSON; charset=UTF-8"):
        yield post(path, {}, content_type=media)
    yield Call("POST", path, b"{}")
    yield post(path, {}, content_encoding="gzip")
    for timeout in ("0", "-1", "x", "600001", "600000"):
        yield post(path, {}, x_request_timeout_ms=timeout)
    for token in ("x", "?", "1:2", "x" * 200):
        yield post(path, {}, x_recall_token=token)
    yield post(path, {}, host="elsewhere.example")
    yield post(path, {}, origin="https://elsewhere.example")
    yield post(path, {}, sec_fetch_site="cross-site")
    yield post(path, {}, sec_fetch_site="same-origin")


def calls() -> Iterator[Call]:
    """All requests in order; the later ones change items and users."""
    yield from recommendations()
    for path in SEARCHES[1:]:
        for text, _ in INVALID[::3]:
            yield post(path, text.encode())
        for raw in itertools.islice(NOT_JSON.values(), 0, None, 3):
            yield post(path, raw)
        yield Call("POST", path, b"{}")
    for user, item in itertools.product(("3", "nobody", "a/b"), ("12", "none", "a/b", "<script>alert(1)</script>")):
        yield post("/v1/explain", {"user_id": user, "item_id": item, "values": user == "3"})
        yield post("/v1/why-not", {"user_id": user, "item_id": item, "n": 3, "filter": {"genre": "noir"}})
        yield post("/v1/score", {"user_id": user, "items": [item, "7", "7"]})
    yield post("/v1/user-vector", {"user_id": "3", "popularity": 0.5})
    yield post("/v1/recommend:batch", {"requests": [{"user_id": "3"}, {"n": 0}, {"filter": {"gerne": 1}}, 7, {"rules": 1}]})
    yield post("/v1/recommend:batch", {"requests": []})
    yield post("/v1/recommend:batch", {"requests": [{"n": 1}] * 257})
    yield from reads()
    for path in CHANGES:
        for text, _ in INVALID[::4]:
            yield post(path, text.encode())
        for raw in itertools.islice(NOT_JSON.values(), 0, None, 4):
            yield post(path, raw)
    yield from changes()
    yield from reads()


def reads() -> Iterator[Call]:
    """GET requests, and methods that are not allowed."""
    for path in (
        *("/health/live", "/health/ready", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/shop"),
        *("/v2/models/shop/ready", "/v2/models/none", "/v1/info", "/v1/models", "/v1/models/none", "/v1/models/..%2fx"),
        *("/v1/users", "/v1/users?page_size=3", "/v1/users?page_size=x", "/v1/users?page_token=x", "/v1/users?size=3"),
        *(
            "/v1/items",
            "/v1/items?page_size=7",
            "/v1/items?page_size=0",
            "/v1/items?page_size=-1",
            "/v1/items?page_size=1&page_size=2",
        ),
        *("/v1/items/12/similar?n=3", "/v1/items/12/similar?n=0", "/v1/items/12/similar?m=1", "/v1/items/none/similar"),
        *("/", "/page/main.js", "/page/none.js", "/nope", "/v1/recommend", "/v1/recommend/", "/%00", "/%ff"),
    ):
        yield Call("GET", path)
    for item in (*ITEMS[:3], *ODD_IDS, "none"):
        yield Call("GET", f"/v1/items/{quoted(item)}")
        yield Call("GET", f"/v1/items/{quoted(item)}/similar?n=4")
    for user in (*USERS[:3], *ODD_IDS, "none"):
        yield Call("GET", f"/v1/users/{quoted(user)}")
        yield Call("GET", f"/v1/users/{quoted(user)}/recommendations?n=4")
    for method, path in (
        *(("DELETE", "/v1/recommend"), ("POST", "/health/live"), ("TRACE", "/v1/info"), ("PUT", "/v1/items/12")),
        *(("PATCH", "/v1/users/3"), ("POST", "/v1/models/none:activate"), ("POST", "/v1/models:rollback")),
        ("POST", "/v1/models/..%2fx:activate"),
    ):
        yield Call(method, path)
    yield post("/v1/items/12/similar", {"n": 3, "filter": {"genre": "noir"}})
    yield Call("GET", "/v1/users/3/recommendations?n=1001")


def changes() -> Iterator[Call]:
    """Changes of items and users, with and without idempotency keys."""
    yield post("/v1/items:upsert", {"items": [{"item_id": "new", "features": {"genre": "noir", "year": 2000}}]})
    yield post("/v1/items:upsert", {"items": [{"item_id": "new 2"}, {"item_id": "new 2"}]})
    yield post("/v1/items:upsert", {"items": [{"item_id": "new 3", "features": {"gerne": "noir"}}]})
    for _ in range(2):
        yield post("/v1/items:upsert", {"items": [{"item_id": "again", "features": {"year": 1}}]}, idempotency_key="k-1")
        yield post("/v1/interactions", {"interactions": [{"user_id": "3", "item_id": "new", "time": 5}]}, idempotency_key="k-2")
    yield post("/v1/items:upsert", {"items": [{"item_id": "new"}]}, idempotency_key="no key")
    yield post("/v1/users:upsert", {"users": [{"user_id": "u1", "features": {"age": 9}, "history": ["1"]}]})
    yield post("/v1/users:upsert", {"users": [{"user_id": "u1", "features": {"shoe": 9}}]})
    yield Call("PUT", "/v1/users/u2", b'{"features":{"age":3},"history":["2"]}', (("content-type", JSON),))
    yield Call("PUT", "/v1/users/u2", b'{"features":[]}', (("content-type", JSON),))
    yield post("/v1/interactions", {"interactions": [{"user_id": "u2", "item_id": "nope", "time": "2026-01-31T18:00:00Z"}]})
    yield post("/v1/interactions", {"interactions": [{"user_id": "u2", "item_id": "1", "time": "yesterday"}]})
    yield Call("DELETE", "/v1/users/u1")
    yield Call("DELETE", "/v1/users/gone")
    yield Call("DELETE", "/v1/items/new")
    yield Call("DELETE", f"/v1/items/{quoted('a/b')}")
