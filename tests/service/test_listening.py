"""An address that cannot be listened on is reported before anything is loaded."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recall.errors import ConfigError
from service.listening import listeners, reserve


def close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


def test_a_taken_port_names_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for bind in (lambda: listeners("127.0.0.1", port, shared=False), lambda: reserve("127.0.0.1", port)):
            with pytest.raises(ConfigError, match="cannot listen there") as raised:
                bind()
            assert raised.value.where == f"127.0.0.1:{port}"
            assert "--port" in raised.value.mend


def test_two_programs_do_not_get_one_port_before_either_serves() -> None:
    first = listeners("127.0.0.1", 0, shared=False)
    with pytest.raises(ConfigError, match="cannot listen there"):
        listeners("127.0.0.1", first[0].getsockname()[1], shared=False)
    close(first)


@pytest.mark.parametrize(
    ("host", "hint"), [("192.0.2.1", "address of this machine"), ("no-such-host.invalid", "address of this machine")]
)
def test_an_address_of_another_machine_is_refused(host: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen there") as raised:
        listeners(host, 0, shared=False)
    assert hint in raised.value.mend


def test_an_address_that_is_missing_among_several_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a name has an IPv6 address too and IPv6 is turned off: the name's addresses are given, binding is real."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    sockets = listeners("both", 0, shared=False)
    assert [one.getsockname()[0] for one in sockets] == ["127.0.0.1"]
    close(sockets)
    assert "not listening on 192.0.2.1" in caplog.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_service_ends_before_it_loads_a_bundle(tmp_path: Path, workers: str) -> None:
    (tmp_path / "root").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "service", str(tmp_path / "root"), "--port", port, "--workers", workers]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert ended.returncode == 78
    assert f"Another program uses port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "bundle" not in ended.stderr.replace(str(tmp_path), "")
