"""Fixtures of the simulations."""

from pathlib import Path

import pytest

from tests.simulation import shop


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shop; see `shop.make_shop`."""
    return shop.make_shop(tmp_path_factory.mktemp("simulation") / "shop")
