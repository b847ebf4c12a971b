"""Of several processes that serve one root, only one compacts it."""

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recall.bundle.versions import resolve
from recall.store.items.catalog import Catalog
from service import background
from service.bundles import Snapshot
from service.config import Settings
from service.live import Live
from tests.service.publishing import Shop


async def starts(root: Path, then: Callable[[], None] = lambda: None) -> bool:
    """Whether a run starts; `then` is called, and the run stopped."""
    started = asyncio.Event()
    run = asyncio.create_task(background.compact(root, {}, started.set))
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([run, waiting], return_when=asyncio.FIRST_COMPLETED)
    if started.is_set():
        await asyncio.to_thread(then)
    for task in (run, waiting):
        task.cancel()
    await asyncio.gather(run, waiting, return_exceptions=True)
    return started.is_set()


def test_only_one_of_several_runs(own_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "ASK_AGAIN", 0.0)
    own_shop.publish(seed=1)
    others: list[bool] = []
    assert asyncio.run(starts(own_shop.root, lambda: others.append(asyncio.run(starts(own_shop.root)))))
    assert others == [False]
    assert asyncio.run(starts(own_shop.root)), "a run that was stopped frees the lock"


def test_a_process_that_dies_frees_the_lock(own_shop: Shop) -> None:
    own_shop.publish(seed=1)
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(own_shop.root / ".compactor", os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert asyncio.run(starts(own_shop.root))


def test_a_read_only_root_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "ASK_AGAIN", 0.0)
    assert not asyncio.run(starts(tmp_path / "nowhere"))


def test_a_service_compacts_once_much_has_changed(own_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    own_shop.publish(seed=1)
    monkeypatch.setattr(Catalog, "needs_compaction", False)

    async def go() -> None:
        live, started = Live(Settings(bundle=own_shop.root)), asyncio.Event()
        monkeypatch.setattr(live.meters.compactions, "inc", started.set)
        live.snapshot = await asyncio.to_thread(Snapshot.load, resolve(own_shop.root), own_shop.root)
        await live.compact()
        assert not started.is_set()
        monkeypatch.setattr(Catalog, "needs_compaction", True)
        run = asyncio.create_task(live.compact())
        await asyncio.wait_for(started.wait(), 60)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        live.close()

    asyncio.run(go())
