"""Buckets of tokens, one for each key, in one process and in several."""

import os
import time
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from service.security.keys import MOST_KEYS, Key, KeyRing
from service.security.limits import RateLimits, shared_file, whole_seconds
from service.security.roles import Role
from tests.service.publishing import Shop
from tests.service.serving import Answer, serving


def keys(*rates: float | None) -> tuple[Key, ...]:
    return KeyRing(Key(bytes([number]) * 32, Role.READ, rate=rate) for number, rate in enumerate(rates)).keys


def taken(limits: RateLimits, key: Key | None, times: int) -> int:
    return sum(limits.take(key) == 0 for _ in range(times))


def test_a_bucket_holds_a_second_and_fills_at_its_rate() -> None:
    (key,) = keys(20.0)
    limits = RateLimits([key], None)
    start = time.monotonic()
    assert taken(limits, key, 20) == 20
    refilled = 0
    while time.monotonic() - start < 0.5:
        refilled += limits.take(key) == 0
        time.sleep(0.001)
    passed = time.monotonic() - start
    assert 1 <= refilled <= 20 * passed + 1
    assert 0 < max(limits.take(key) for _ in range(3)) <= 1 / 20


def test_a_rate_below_one_a_second_allows_one_at_a_time() -> None:
    (key,) = keys(0.1)
    limits = RateLimits([key], None)
    assert taken(limits, key, 3) == 1
    assert 9 < limits.take(key) <= 10


def test_each_key_has_a_bucket_of_its_own_and_some_have_none() -> None:
    first, second, free = keys(2.0, 3.0, None)
    limits = RateLimits([first, second, free], None)
    assert limits.limited
    assert (taken(limits, first, 10), taken(limits, second, 10)) == (2, 3)
    assert taken(limits, free, 1000) == 1000
    assert taken(limits, None, 1000) == 1000
    assert not RateLimits([free], None).limited
    shared = RateLimits([first, second, free], 5.0)
    assert (taken(shared, first, 10), taken(shared, free, 10), taken(shared, None, 10)) == (2, 5, 5)


def test_many_tokens_at_once_are_paid_back() -> None:
    (key,) = keys(10.0)
    limits = RateLimits([key], None)
    assert limits.take(key, 30) == 0
    assert 2 < limits.take(key) <= 2.1


def test_a_request_that_holds_many_is_counted_as_many() -> None:
    (key,) = keys(10.0)
    limits = RateLimits([key], None)
    assert limits.take(key) == 0
    assert limits.take_further(key, 9) == 0
    assert 0 < limits.take(key) <= 0.1  # ten are what it holds
    larger = RateLimits([key], None)
    assert larger.take(key) == 0
    assert larger.take_further(key, 29) == 0  # more than it ever holds empty a full one
    assert 2 < larger.take(key) <= 2.1


def test_many_that_are_refused_may_come_when_it_was_said() -> None:
    (key,) = keys(50.0)
    limits = RateLimits([key], None)
    assert taken(limits, key, 41) >= 41
    wait = limits.take_further(key, 29)
    assert 0.2 < wait <= 21 / 50
    time.sleep(wait)
    assert limits.take(key) == 0
    assert limits.take_further(key, 29) == 0


def test_processes_share_their_buckets() -> None:
    (key,) = keys(50.0)
    descriptor = shared_file()
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            os._exit(taken(RateLimits([key], None, descriptor), key, 50))
        pids.append(pid)
    counts = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert 50 <= sum(counts) < 75  # alone each would have taken 50
    assert taken(RateLimits([key], None, descriptor), key, 50) < 25
    os.close(descriptor)


def test_buckets_stay_with_their_keys_when_others_come_and_go() -> None:
    first, second, third = keys(0.01, 0.01, 0.01)
    descriptor = shared_file()
    one, other = RateLimits([first, second], None, descriptor), RateLimits([second, first], None, descriptor)
    assert one.take(first) == 0
    assert other.take(first) > 0
    other.know([third, second, first])
    one.know([first])
    assert (one.take(first) > 0, other.take(first) > 0) == (True, True)
    assert (other.take(second), other.take(third)) == (0, 0)
    assert one.take(second) == 0  # who is not known is not counted
    one.know([])
    assert not one.limited
    os.close(descriptor)


def test_the_bucket_of_a_key_that_is_gone_serves_another_full() -> None:
    def many(first: int) -> list[Key]:
        return [Key(number.to_bytes(8, "big") * 4, Role.READ, rate=0.01) for number in range(first, first + MOST_KEYS)]

    before, after = many(1), many(1 + MOST_KEYS - 1)
    limits = RateLimits(before, None)
    assert taken(limits, before[0], 2) == taken(limits, before[-1], 2) == 1
    limits.know(after)
    assert after[0] == before[-1]
    assert [taken(limits, key, 2) for key in (after[0], after[1], after[-1])] == [0, 1, 1]


@pytest.mark.parametrize(("wait", "said"), [(0.001, "1"), (1.0, "1"), (1.2, "2"), (90.0, "90")])
def test_retry_after_is_whole_seconds(wait: float, said: str) -> None:
    assert whole_seconds(wait) == said


def test_a_server_answers_429_with_retry_after_to_the_key_that_asks_too_fast(shop: Shop, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/recommend:batch", {"requests": [{}] * 3}),
        ("/v1/users:upsert", {"users": [{"user_id": f"fresh {number}"} for number in range(3)]}),
        ("/v1/items:upsert", {"items": [{"item_id": f"fresh {number}"} for number in range(3)]}),
        ("/v1/interactions", {"interactions": [{"user_id": "1", "item_id": "2"}] * 3}),
    ],
)
def test_each_request_in_a_batch_is_one(own_shop: Shop, tmp_path: Path, path: str, body: dict[str, list[object]]) -> None:
    own_shop.publish(seed=1)
    key = "a key that is counted"
    (tmp_path / "keys").write_text(f"admin sha256:{sha256(key.encode()).hexdigest()} rate=0.4\n")
    batch = orjson.dumps(body)
    one = orjson.dumps({name: values[:1] for name, values in body.items()})
    with serving(own_shop.root, tmp_path / "log", "--keys", str(tmp_path / "keys")) as server:
        server.wait()

        def ask(what: bytes) -> Answer:
            return server.ask("POST", path, what, x_api_key=key, content_type="application/json")

        accepted = ask(batch)
        assert accepted.status == 200, accepted.body
        refused = ask(one)
        assert refused.status == 429
        assert 3 <= int(refused.headers["retry-after"]) <= 8  # 3 / 0.4, less what has passed
        deadline = time.monotonic() + 60
        while (answer := ask(one)).status == 429:
            assert time.monotonic() < deadline
            time.sleep(int(answer.headers["retry-after"]))
        assert ask(batch).status == 429
