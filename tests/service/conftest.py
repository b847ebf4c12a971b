"""Real servers over real bundles."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.publishing import Shop
from tests.service.serving import Server, serving


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
