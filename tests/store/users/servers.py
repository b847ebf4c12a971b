"""A real Redis, started by the test that needs it, and what can go wrong on the way to it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import redis_proxy
from tests.faults.redis_proxy import Proxy, RedisServer

__all__ = ["Proxy", "RedisServer", "redis_server"]


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A Redis of its own that fsyncs what it acknowledges."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    with redis_proxy.redis_server(folder, *options) as server:
        yield server
