"""Addresses that the service listens on without a key."""

import subprocess
import sys
from pathlib import Path

import pytest

from recall.errors import ConfigError
from service.auth import check_binding, is_loopback
from tests.service.publishing import Shop
from tests.service.serving import serving


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("no-such-host.invalid", False),
        ("", False),
        ("127.0.0.1.evil.invalid", False),
    ],
)
def test_only_addresses_of_this_machine_need_no_key(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    if loopback:
        check_binding(host, keyed=False, insecure=False)
    else:
        with pytest.raises(ConfigError, match="no key is set"):
            check_binding(host, keyed=False, insecure=False)
        check_binding(host, keyed=True, insecure=False)
        check_binding(host, keyed=False, insecure=True)


def test_the_service_refuses_to_start_if_anybody_could_send_requests(shop: Shop, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "service", str(shop.root), "--host", "0.0.0.0", "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=60)
    assert ended.returncode == 78
    assert "recall key new" in ended.stderr
    assert "Traceback" not in ended.stderr
    with serving(shop.root, tmp_path / "one", "--host", "0.0.0.0", "--insecure") as server:
        assert server.ask("GET", "/v1/info").status in (200, 503)
    key = {"RECALL_READ_KEY": "long enough to be one"}
    with serving(shop.root, tmp_path / "two", "--host", "0.0.0.0", environment=key) as server:
        assert server.ask("GET", "/v1/info").status == 401
