"""A root of published versions that a test may change, and the catalogue in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from recall.serving.recommender import Recommender


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


@pytest.fixture
def live(root: Path) -> Iterator[Recommender]:
    """The root's live version, followed."""
    loaded = Recommender.load(root)
    yield loaded
    loaded.close()
