"""A store with the S3 API for tests."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec

import pytest


@contextmanager
def s3_bucket() -> Iterator[str]:
    """Run a store, and yield the address of its bucket; AWS_... variables say where it is."""
    if find_spec("obstore") is None or find_spec("moto") is None:
        pytest.skip("no obstore or moto")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                time.sleep(0.02)
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/shop", method="PUT")).close()
            where = {"ENDPOINT_URL": f"http://127.0.0.1:{port}", "REGION": "us-east-1"}
            with pytest.MonkeyPatch.context() as patched:
                for name, value in {**where, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
                    patched.setenv(f"AWS_{name}", value)
                yield "s3://shop"
        finally:
            server.kill()
