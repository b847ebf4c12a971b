"""A real Redis, started by the test that needs it, and what can go wrong on the way to it."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "scripts"))

from faulting import far
from faulting.far import Proxy, RedisServer

__all__ = ["Proxy", "RedisServer", "redis_server"]


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A Redis of its own that fsyncs what it acknowledges."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    with far.redis_server(folder, *options) as server:
        yield server
