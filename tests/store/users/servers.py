"""A real Redis for tests, with a proxy that injects faults."""

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
    """Run a Redis that fsyncs every write."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    with redis_proxy.redis_server(folder, *options) as server:
        yield server
