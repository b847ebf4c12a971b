from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from recall.store.users.redis import Breaker


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


def test_it_stays_closed_while_calls_succeed_now_and_then() -> None:
    breaker = Breaker(failures=3, clock=Clock())
    for outcome in "ffsffsffs":
        assert breaker.admits()
        (breaker.failed if outcome == "f" else breaker.succeeded)()
        assert breaker.state == "closed"


def test_failures_in_a_row_open_it_for_a_pause() -> None:
    clock = Clock()
    breaker = opened(clock)
    assert breaker.state == "open"
    clock.now += 0.99
    assert not breaker.admits()


def test_half_open_it_lets_one_call_through() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.admits()
    assert breaker.state == "half-open"
    assert not breaker.admits()


def test_a_call_that_succeeds_closes_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed()
    assert breaker.admits()
    assert breaker.state == "closed"


def test_a_call_that_fails_opens_it_again() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(5):
        clock.now += 1
        assert breaker.admits()
        breaker.failed()
        assert breaker.state == "open"
        assert not breaker.admits()


def test_a_call_of_which_nothing_is_heard_does_not_hold_it_half_open() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1
    assert breaker.admits()
    clock.now += 1
    assert breaker.admits()


def test_of_many_threads_one_is_let_through() -> None:
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
