"""A connection's clock: it calls once, unless somebody stops it or starts it anew."""

import asyncio

from service.clock import Clock


def test_it_calls_once_after_its_time_however_often_it_was_started_and_stopped_before() -> None:
    async def go() -> list[float]:
        loop = asyncio.get_running_loop()
        called: list[float] = []
        clock = Clock(loop, 0.1, lambda: called.append(loop.time()))
        assert not clock.running
        for _ in range(3):
            clock.start()
            await asyncio.sleep(0.04)
            clock.start()
            await asyncio.sleep(0.08)  # longer than the first, shorter than the second
            clock.stop()
            assert not clock.running
            await asyncio.sleep(0.12)
        assert called == []
        clock.start()
        started = loop.time()
        await asyncio.sleep(0.3)
        assert not clock.running
        return [one - started for one in called]

    (after,) = asyncio.run(go())
    assert after + 0.005 >= 0.1


def test_one_that_was_put_away_never_calls() -> None:
    async def go() -> None:
        called: list[int] = []
        clock = Clock(asyncio.get_running_loop(), 0.01, lambda: called.append(1))
        clock.start()
        clock.close()
        await asyncio.sleep(0.05)
        assert not called

    asyncio.run(go())
