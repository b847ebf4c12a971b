"""The log of a root, in a file and in a Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from recall.store.items.log import VARIABLE
from tests.store.items.logs import Storage, in_file, in_redis
from tests.store.users.servers import RedisServer, redis_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests that do not damage it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(params=["file", "redis"])
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A log without versions."""
    return in_file(tmp_path) if request.param == "file" else in_redis(tmp_path, request.getfixturevalue("server").url)


@pytest.fixture(params=["file", "redis"])
def storage(request: pytest.FixtureRequest, root: Path) -> Iterator[Storage]:
    """Keep the changes of the root in this; ask for it before `live`."""
    if request.param == "file":
        yield in_file(root)
        return
    url = request.getfixturevalue("server").url
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, url)
        yield in_redis(root, url)
