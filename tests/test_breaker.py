from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from recall._breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(failures=3, pause=1.0, clock=clock)
    for _ in range(3):
        assert breaker.admits()
        breaker.failed()
    return breaker


def test_the_breaker_stays_closed_while_some_calls_succeed() -> None:
    breaker = Breaker(failures=3, clock=Clock())
    for outcome in "ffsffsffs":
        assert breaker.admits()
        (breaker.failed if outcome == "f" else breaker.succeeded)()
        assert breaker.state == "closed"


def test_consecutive_failures_open_the_breaker() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert breaker.state == "open"
    clock.now += 0.99
    assert not breaker.admits()


def test_a_half_open_breaker_permits_one_call() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.admits()
    assert breaker.state == "half-open"
    assert not breaker.admits()


def test_a_successful_call_closes_the_breaker() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.admits()
    assert breaker.state == "closed"


def test_a_failed_call_opens_the_breaker_again() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(5):
        clock.now += 1
        assert breaker.admits()
        breaker.failed()
        assert breaker.state == "open"
        assert not breaker.admits()


def test_a_lost_call_does_not_keep_the_breaker_half_open() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.admits()
    clock.now += 1
    assert breaker.admits()


def test_one_of_many_threads_is_permitted() -> None:
    clock = Clock()
    for _ in range(20):
        breaker = opened(clock)
        clock.now += 1
        start = Barrier(8)

        def ask(_: int, breaker: Breaker = breaker, start: Barrier = start) -> bool:
            start.wait()
            return breaker.admits()

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(ask, range(8))) == 1
