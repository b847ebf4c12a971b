"""Mutable user stores with the same interface."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recall.store.users.changes import LiveUsers
from recall.store.users.redis import RedisLiveUsers
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from tests.store.users.servers import Cluster, RedisServer, redis_cluster, redis_server

PATIENT = 5.0  # seconds: time-outs are not tested here, and the machine may be busy

Open = Callable[[], LiveUsers]


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that do not damage it; each uses its own prefix."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for all tests that end none of them."""
    with redis_cluster(tmp_path_factory.mktemp("cluster") / "nodes") as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens the same store repeatedly."""
    opened: list[LiveUsers] = []

    def open_one() -> LiveUsers:
        if request.param == "sqlite":
            opened.append(SqliteLiveUsers(tmp_path / USERS_LIVE))
        else:
            url = request.getfixturevalue(request.param).url
            prefix = f"{tmp_path.name}:"
            opened.append(RedisLiveUsers(url, read_seconds=PATIENT, write_seconds=PATIENT, prefix=prefix))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def store(open_store: Open) -> LiveUsers:
    return open_store()


def in_redis(url: str, folder: Path) -> RedisLiveUsers:
    """Return a store that reads the users of bundles from a Redis, too; its keys are those of a test."""
    return RedisLiveUsers(url, read_seconds=PATIENT, write_seconds=PATIENT, prefix=f"{folder.name}:", exported=True)
