"""Turns: who waits, for how long, and who is told to come back."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from service.admission import ANYBODY, SLICE, STANDING, Admission, Caller
from service.problems import Kind, ProblemError


class Turns(Admission):
    """With the way of those that are no coroutines as one more that can be awaited."""

    async def taken(self, work: Callable[[object], object], asked: object, caller: Caller = ANYBODY) -> object:
        answered = asyncio.get_running_loop().create_future()

        def told(answer: object, error: Exception | None) -> None:
            assert (answer is None) or (error is None)
            answered.set_result(answer) if error is None else answered.set_exception(error)

        self.take(work, asked, caller, told)
        return await answered


WAYS = ["here", "taken", "elsewhere"]


def admission(threads: int = 2, waiting: int = 100, standing: int = 100, age: float = 10) -> Turns:
    return Turns(threads, waiting, standing, age)


def run(asks: Callable[[Admission], Awaitable[object]], turns: Admission) -> object:
    async def go() -> object:
        try:
            return await asks(turns)
        finally:
            turns.close()

    return asyncio.run(go())


async def outcomes(*asked: Awaitable[object]) -> list[object]:
    """What each gave, or the kind of its problem."""
    return [one.kind if isinstance(one, ProblemError) else one for one in await asyncio.gather(*asked, return_exceptions=True)]


def spin(seconds: float) -> float:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return seconds


def test_the_first_searches_at_once_and_the_rest_in_order_with_looks_at_the_sockets_between() -> None:
    done: list[object] = []

    async def go(turns: Admission) -> None:
        async def look() -> None:
            while len(done) < 10:
                done.append("look")
                await asyncio.sleep(0)

        def search(number: int) -> int:
            spin(SLICE * 0.6)
            done.append(number)
            return -number

        looking = asyncio.create_task(look())
        assert await outcomes(*(turns.here(search, number) for number in range(6))) == [0, -1, -2, -3, -4, -5]
        await looking

    run(go, admission())
    assert [one for one in done if one != "look"] == list(range(6))
    places = [place for place, one in enumerate(done) if one != "look"]
    assert all(second - first > 1 for first, second in zip(places[::2][:-1], places[2::2], strict=False))  # at most two a slice


@pytest.mark.parametrize("way", WAYS)
def test_more_than_may_wait_are_told_at_once(way: str) -> None:
    begun: list[int] = []

    async def go(turns: Admission) -> list[object]:
        ended: list[str] = []

        async def ask(number: int) -> object:
            try:
                answer = await getattr(turns, way)(lambda one: begun.append(one) or spin(0.02), number)
            except ProblemError:
                ended.append("turned away")
                raise
            ended.append("answered")
            return answer

        found = await outcomes(*(ask(number) for number in range(20)))
        # at most the one that is answered in place is done before the last of them is turned away
        last = len(ended) - ended[::-1].index("turned away")
        assert ended[:last].count("answered") <= 1
        return found

    turns = admission(threads=2, waiting=5)
    found = run(go, turns)
    running = 2 if way == "elsewhere" else 1
    assert found == [0.02] * (5 + running) + [Kind.BUSY] * (15 - running)
    assert sorted(begun) == list(range(5 + running))
    assert turns.shed == {"full": 15 - running}
    assert turns.waiting == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_line_that_stands_is_kept_short_and_one_that_was_empty_may_be_long_again(way: str) -> None:
    async def go(turns: Admission) -> None:
        async def burst(count: int) -> int:
            found = await outcomes(*(getattr(turns, way)(spin, 0.004) for _ in range(count)))
            return found.count(0.004)

        assert await burst(50) == 50  # for a moment
        await asyncio.sleep(0)
        assert await burst(50) == 50  # the line was empty
        standing = [asyncio.create_task(burst(50))]
        until = time.monotonic() + STANDING + 0.05
        while turns.waiting > 4 or time.monotonic() < until:
            turns.crowded(short=way != "elsewhere")  # others go on asking
            await asyncio.sleep(0.001)
        assert 1 <= await burst(40) <= 8  # as many as may stand, beside those that do
        await asyncio.gather(*standing)
        assert await burst(50) == 50

    run(go, admission(threads=1, waiting=64, standing=8))


@pytest.mark.parametrize("way", WAYS)
def test_nobody_searches_for_who_waits_no_longer(way: str) -> None:
    begun: list[str] = []

    async def go(turns: Admission) -> list[object]:
        gone = False

        def leave() -> None:
            nonlocal gone
            gone = True

        ask = getattr(turns, way)
        past, soon = time.monotonic() - 1, time.monotonic() + 0.01
        asyncio.get_running_loop().call_later(0.01, leave)
        stopped = [asyncio.ensure_future(ask(begun.append, "stopped", Caller())) for _ in range(1)]
        found = outcomes(
            ask(begun.append, "late", Caller(deadline=past)),
            ask(begun.append, "gone", Caller(gone=lambda: True)),
            ask(lambda _: spin(0.05) and begun.append("long"), None),
            ask(begun.append, "late in line", Caller(deadline=soon)),
            ask(begun.append, "gone in line", Caller(gone=lambda: gone or spin(0.02) > 0)),
            ask(begun.append, "patient", Caller(deadline=time.monotonic() + 60, gone=lambda: False)),
        )
        for one in stopped:
            one.cancel()
        return await found

    turns = admission(threads=1)
    assert run(go, turns) == [Kind.LATE, Kind.GONE, None, Kind.LATE, Kind.GONE, None]
    assert begun == ["long", "patient"]
    assert turns.shed == {"late": 2, "gone": 2}


@pytest.mark.parametrize("way", WAYS)
def test_who_waited_too_long_is_turned_away(way: str) -> None:
    async def go(turns: Admission) -> list[object]:
        return await outcomes(*(getattr(turns, way)(spin, seconds) for seconds in (SLICE, 0.1, 0.001, 0.001)))

    turns = admission(threads=1, age=0.05)
    assert run(go, turns) == [SLICE, 0.1, Kind.BUSY, Kind.BUSY]
    assert turns.shed == {"old": 2}


@pytest.mark.parametrize("way", WAYS)
def test_an_error_is_its_callers_alone(way: str) -> None:
    def divide(by: int) -> float:
        spin(SLICE)
        return 1 / by

    async def go(turns: Admission) -> list[object]:
        return await asyncio.gather(*(getattr(turns, way)(divide, by) for by in (0, 1, 0, 2)), return_exceptions=True)

    first, second, third, fourth = run(go, admission(threads=1))
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(third, ZeroDivisionError)
    assert (second, fourth) == (1, 0.5)


def test_long_searches_run_on_as_many_threads_as_there_are() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def search(_: int) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return threading.current_thread() is not threading.main_thread()

    async def go(turns: Admission) -> list[object]:
        return await outcomes(*(turns.elsewhere(search, number) for number in range(20)))

    assert run(go, admission(threads=3)) == [True] * 20
    assert most == 3


def test_a_waiter_that_is_stopped_leaves_the_line() -> None:
    begun: list[int] = []

    async def go(turns: Admission) -> None:
        tasks = [
            asyncio.create_task(turns.here(lambda one: begun.append(one) or spin(SLICE * 2), number)) for number in range(4)
        ]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(go, admission())
    assert begun == [0, 1, 3]


@pytest.mark.parametrize(("short", "way"), [(True, "taken"), (False, "elsewhere")])
def test_it_is_crowded_while_its_own_line_stands_and_not_after(short: bool, way: str) -> None:
    async def go(turns: Turns) -> None:
        assert not turns.crowded(short=short)
        asked = [asyncio.create_task(getattr(turns, way)(spin, 0.02)) for _ in range(5)]
        await asyncio.sleep(0)
        assert turns.waiting == 4
        assert not turns.crowded(short=short)  # for a moment there may be more
        for _ in range(6):  # the loop sees nobody leave the line
            time.sleep(STANDING / 5)
            crowded = turns.crowded(short=short)
        assert crowded
        assert not turns.crowded(short=not short)
        assert await outcomes(*asked) == [0.02] * 5
        assert not turns.crowded(short=short)

    run(go, admission(threads=1, waiting=8, standing=4))


def test_whoever_comes_while_the_process_stands_still_may_wait() -> None:
    async def go(turns: Turns) -> list[object]:
        first = [asyncio.create_task(turns.here(spin, SLICE)) for _ in range(4)]
        await asyncio.sleep(0)
        time.sleep(STANDING + 0.1)
        return await outcomes(*first, *(turns.here(spin, 0.0001) for _ in range(20)))

    assert Kind.BUSY not in run(go, admission(waiting=64, standing=4))


def test_searching_has_its_half_of_the_time_however_much_is_turned_away() -> None:
    async def go(turns: Turns) -> float:
        waiting = [asyncio.create_task(turns.here(spin, 0.0005)) for _ in range(100)]
        await asyncio.sleep(0)
        began, looking = time.monotonic(), 0.0
        while not all(one.done() for one in waiting):
            looking += spin(0.006)  # a look at the sockets that takes long
            await asyncio.sleep(0)
        return looking / (time.monotonic() - began)

    assert run(go, admission()) < 0.7  # with slices of 2 ms it would be three quarters


def test_whoever_waits_is_told_when_the_process_stops() -> None:
    async def go(turns: Turns) -> list[object]:
        asked = [asyncio.create_task(turns.here(spin, SLICE)) for _ in range(3)]
        asked += [asyncio.create_task(turns.elsewhere(spin, 0.01)) for _ in range(3)]
        await asyncio.sleep(0)
        turns.dismiss()
        return await outcomes(*asked)

    assert run(go, admission(threads=1)) == [SLICE, Kind.DRAINING, Kind.DRAINING, 0.01, Kind.DRAINING, Kind.DRAINING]
