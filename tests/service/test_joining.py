"""One worker listens at once; the others wait until it can serve, or is gone."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.joining import join
from service.live import Live
from service.metrics.meters import Meters
from service.security.limits import shared_file
from service.settings import Settings
from service.starting import Place

FIRST = """
import sys
from service.metrics.meters import Meters
meters = Meters(2, 0, int(sys.argv[1]))
for line in sys.stdin:
    name, value = line.split()
    getattr(meters, name).set(float(value))
    print("done", flush=True)
"""


@pytest.fixture
def first() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process in the place of the first worker, and the rows that it shares."""
    rows = Meters.shared(2)
    command = [sys.executable, "-c", FIRST, str(rows)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[rows])
    try:
        yield process, rows
    finally:
        process.kill()
        process.communicate()
        os.close(rows)


def loads(process: "subprocess.Popen[str]", how: int) -> None:
    say(process, "loading", how)


def say(process: "subprocess.Popen[str]", name: str, how: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{name} {how}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@pytest.mark.parametrize("killed", [False, True])
def test_the_others_wait_until_the_first_can_serve_or_is_gone(
    tmp_path: Path, first: "tuple[subprocess.Popen[str], int]", killed: bool
) -> None:
    process, rows = first
    loads(process, 1)

    async def second() -> None:
        live = Live(Settings(bundle=tmp_path, workers=2), Place(1, shared_file(), rows, lifeline=0))
        watching = asyncio.create_task(live.watch())
        joining = asyncio.create_task(join(live, Place(1, 0, rows, lifeline=0)))
        await live.settled()
        done, _ = await asyncio.wait([joining], timeout=0.3)
        assert not done
        if killed:
            process.kill()
            process.wait()
        else:
            loads(process, 0)
        assert await asyncio.wait_for(joining, 30) == []
        watching.cancel()
        live.close()

    asyncio.run(second())


def test_the_first_does_not_listen_before_it_can_serve_where_another_does(
    tmp_path: Path, first: "tuple[subprocess.Popen[str], int]"
) -> None:
    process, rows = first
    say(process, "listening", 1)  # it was started later, and was faster

    async def slow() -> None:
        place = Place(1, shared_file(), rows, lifeline=0, first=True)
        live = Live(Settings(bundle=tmp_path, workers=2), place)
        joining = asyncio.create_task(join(live, place))
        done, _ = await asyncio.wait([joining], timeout=0.3)
        loading, listening = live.meters.loading, live.meters.listening
        assert (not done, loading.row[loading.at], listening.row[listening.at]) == (True, 1.0, 0.0)
        watching = asyncio.create_task(live.watch())
        await live.settled()
        say(process, "listening", 0)  # else one that has nothing to serve would wait for it to go
        assert await asyncio.wait_for(joining, 30) == []
        assert (loading.row[loading.at], listening.row[listening.at]) == (0.0, 1.0)
        watching.cancel()
        live.close()

    asyncio.run(slow())


def test_the_first_listens_before_it_has_anything_to_serve(tmp_path: Path) -> None:
    rows = Meters.shared(2)

    async def alone() -> None:
        place = Place(0, shared_file(), rows, lifeline=0, first=True)
        live = Live(Settings(bundle=tmp_path, workers=2), place)
        (settling,) = await asyncio.wait_for(join(live, place), 30)
        loading = live.meters.loading
        assert loading.row[loading.at] == 1.0
        watching = asyncio.create_task(live.watch())
        await asyncio.wait_for(settling, 30)
        assert loading.row[loading.at] == 0.0
        watching.cancel()
        live.close()

    asyncio.run(alone())
    os.close(rows)
