"""Of several processes that serve one root, only one compacts it."""

import asyncio
import fcntl
import os
from pathlib import Path

from service.background import Compactor
from tests.service.publishing import Shop


def test_only_one_of_several_runs(own_shop: Shop) -> None:
    own_shop.publish(seed=1)

    async def go() -> None:
        first, second = Compactor(own_shop.root, {}), Compactor(own_shop.root, {})
        assert await first.start()
        assert not await second.start()
        assert not await first.start()
        first.close()
        third = Compactor(own_shop.root, {})  # `second` checks again only after a while
        assert await third.start()
        third.close()
        await asyncio.sleep(0.5)  # the stopped runs end

    asyncio.run(go())


def test_a_process_that_dies_frees_the_lock(own_shop: Shop) -> None:
    own_shop.publish(seed=1)
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(own_shop.root / ".compactor", os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)

    async def go() -> None:
        compactor = Compactor(own_shop.root, {})
        assert await compactor.start()
        compactor.close()
        await asyncio.sleep(0.5)

    asyncio.run(go())


def test_a_read_only_root_is_not_changed(tmp_path: Path) -> None:
    async def go() -> None:
        assert not await Compactor(tmp_path / "nowhere", {}).start()

    asyncio.run(go())
