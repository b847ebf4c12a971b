"""Real servers over real bundles."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service.publishing import Shop
from tests.service.serving import Reach, Server, both_ready, receive, request, serving


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with one published version; tests that publish more use `shop.in_` with their own folder."""
    folder = tmp_path_factory.mktemp("shop")
    shop = Shop.open(folder / "tables", folder / "bundles")
    shop.publish(seed=1)
    return shop


@pytest.fixture(scope="session")
def server(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(shop.root, tmp_path_factory.mktemp("log") / "server.log") as server:
        server.wait()
        yield server


@pytest.fixture
def own_shop(shop: Shop, tmp_path: Path) -> Shop:
    """A shop without published versions."""
    return shop.in_(tmp_path / "bundles")


@pytest.fixture(scope="session")
def workers(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers, whose items and users change; each test uses its own."""
    own = shop.in_(tmp_path_factory.mktemp("workers") / "bundles")
    own.publish(seed=1)
    with serving(own.root, tmp_path_factory.mktemp("log") / "workers.log", "--workers", "2", "--patience", "60") as server:
        both_ready(server)
        yield server


@pytest.fixture
def reaching() -> Iterator[Reach]:
    """Return a connection that a worker has accepted."""
    with ExitStack() as stack:

        def reaching(server: Server, worker: int) -> socket.socket:
            while True:
                connection = stack.enter_context(server.connect())
                connection.sendall(request("GET", "/health/live"))
                receive(connection)
                inodes = {os.readlink(one) for one in Path(f"/proc/{worker}/fd").iterdir() if one.is_symlink()}
                place = f"0100007F:{connection.getsockname()[1]:04X}"
                for line in Path("/proc/net/tcp").read_text().splitlines():
                    words = line.split()
                    if words[2] == place and f"socket:[{words[9]}]" in inodes:
                        return connection

        yield reaching
