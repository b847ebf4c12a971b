"""A real Redis for tests, with a proxy that injects faults, and a Redis Cluster."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import redis_proxy
from tests.faults.redis_proxy import Cluster, Proxy, RedisServer

__all__ = ["Cluster", "Proxy", "RedisServer", "redis_cluster", "redis_server"]


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a Redis that fsyncs every write."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    with redis_proxy.redis_server(folder, *options) as server:
        yield server


@contextmanager
def redis_cluster(folder: Path, replicas: int = 0) -> Iterator[Cluster]:
    """Run three nodes with slots, and replicas of the first ones, each of which fsyncs every write."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    cluster = Cluster(folder, replicas=replicas)
    try:
        yield cluster
    finally:
        cluster.kill()
