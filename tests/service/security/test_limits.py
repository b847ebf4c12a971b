"""Rate limits of keys."""

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from service.auth import RateLimits, whole_seconds
from service.keys import Key, KeyRing, Role
from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, serving


def keys(*rates: float | None) -> tuple[Key, ...]:
    return KeyRing(Key(bytes([number]) * 32, Role.READ, rate=rate) for number, rate in enumerate(rates)).keys


def granted(limits: RateLimits, key: Key | None, times: int) -> int:
    return sum(limits.take(key) == 0 for _ in range(times))


def test_a_rate_is_allowed_again_after_a_second() -> None:
    (key,) = keys(20.0)
    limits = RateLimits(None)
    assert granted(limits, key, 30) == 20
    assert 0 < limits.take(key) <= 1
    start, more = time.monotonic(), 0
    while time.monotonic() - start < 2:
        more += limits.take(key) == 0
        time.sleep(0.005)
    assert 20 <= more <= 41


def test_a_rate_below_one_a_second_allows_one_at_a_time() -> None:
    (key,) = keys(0.1)
    limits = RateLimits(None)
    assert granted(limits, key, 3) == 1
    assert 0 < limits.take(key) <= 10


def test_each_key_is_counted_separately_or_not_at_all() -> None:
    first, second, free = keys(2.0, 3.0, None)
    limits = RateLimits(None)
    assert (granted(limits, first, 10), granted(limits, second, 10)) == (2, 3)
    assert granted(limits, free, 1000) == 1000
    assert granted(limits, None, 1000) == 1000
    shared = RateLimits(5.0)
    assert (granted(shared, first, 10), granted(shared, free, 10), granted(shared, None, 10)) == (2, 5, 5)


def test_a_request_that_holds_many_counts_as_many() -> None:
    (key,) = keys(10.0)
    limits = RateLimits(None)
    assert limits.take(key) == 0
    assert limits.take(key, 9) == 0
    assert limits.take(key) > 0
    assert RateLimits(None).take(key, 30) == 0  # a count above the limit counts as the limit


def test_workers_share_a_rate() -> None:
    (key,) = keys(48.0)
    assert granted(RateLimits(None, workers=4), key, 50) == 12


@pytest.mark.parametrize(("wait", "said"), [(0.001, "1"), (1.0, "1"), (1.2, "2"), (90.0, "90")])
def test_retry_after_is_whole_seconds(wait: float, said: str) -> None:
    assert whole_seconds(wait) == said


def test_a_key_that_sends_too_fast_gets_429_with_retry_after(shop: Shop, tmp_path: Path) -> None:
    slow, fast = "a-slow-key-is-slow", "a-fast-key-is-fast"
    lines = [
        f"read sha256:{sha256(key.encode()).hexdigest()} {key[:6]} rate={rate}" for key, rate in ((slow, 0.01), (fast, 1e5))
    ]
    (tmp_path / "keys").write_text("\n".join(lines))
    with serving(shop.root, tmp_path / "log", "--keys", str(tmp_path / "keys")) as server:
        server.wait()
        answers = [server.post({}, x_api_key=slow) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 429, 429]
        assert answers[1].json["type"] == "urn:fm-recall:problem:rate-limited"
        assert 0 < int(answers[1].headers["retry-after"]) <= 100
        assert {server.post({}, x_api_key=fast).status for _ in range(20)} == {200}
        assert {server.ask("GET", "/health/live").status for _ in range(20)} == {200}


BATCHES = {
    "/v1/recommend:batch": {"requests": [{}] * 3},
    "/v1/users:upsert": {"users": [{"user_id": f"fresh {number}"} for number in range(3)]},
    "/v1/items:upsert": {"items": [{"item_id": f"fresh {number}"} for number in range(3)]},
    "/v1/interactions": {"interactions": [{"user_id": "1", "item_id": "2"}] * 3},
}


@pytest.fixture(scope="module")
def counting(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key for each path."""
    folder = tmp_path_factory.mktemp("counting")
    own = shop.in_(folder / "bundles")
    own.publish(seed=1)
    lines = [f"admin sha256:{sha256(_key(path).encode()).hexdigest()} rate=3\n" for path in BATCHES]
    (folder / "keys").write_text("".join(lines))
    with serving(own.root, folder / "log", "--keys", str(folder / "keys")) as server:
        server.wait()
        yield server


def _key(path: str) -> str:
    return f"a key that is counted {path}"


@pytest.mark.parametrize(("path", "body"), BATCHES.items())
def test_each_request_in_a_batch_counts(counting: Server, path: str, body: dict[str, list[object]]) -> None:
    batch = orjson.dumps(body)
    one = orjson.dumps({name: values[:1] for name, values in body.items()})

    def ask(what: bytes) -> Answer:
        return counting.ask("POST", path, what, x_api_key=_key(path), content_type="application/json")

    accepted = ask(batch)
    assert accepted.status == 200, accepted.body
    refused = ask(one)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) == 1
    deadline = time.monotonic() + 60
    while (answer := ask(one)).status == 429:
        assert time.monotonic() < deadline
        time.sleep(int(answer.headers["retry-after"]))
    assert ask(batch).status == 429  # one of three is used
