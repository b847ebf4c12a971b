"""What is checked before anything is loaded: the address, the certificate, and names."""

import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from recall.errors import BundleError, ConfigError
from service.__main__ import AddressError, serve
from service.config import Settings


def test_the_socket_of_an_ended_service_is_replaced(tmp_path: Path) -> None:
    """A server leaves its socket behind, which prevents another bind."""
    path = tmp_path / "socket"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with pytest.raises(BundleError, match="no such folder"):  # the address was accepted
        serve(Settings(bundle=tmp_path / "none", uds=str(path)))
    assert not path.exists()


def test_a_socket_in_use_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as used:
        used.bind(str(path))
        used.listen()
        with pytest.raises(AddressError) as refused:
            serve(Settings(bundle=tmp_path, uds=str(path)))
        assert (refused.value.exit_code, refused.value.where) == (69, str(path))
        assert refused.value.why == "Address already in use"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.parametrize(
    ("name", "why"),
    [("file", "it is not a socket"), (".", "it is not a socket"), ("none/socket", "No such file"), ("x" * 200, "too long")],
)
def test_a_path_that_cannot_be_a_socket_is_named(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(AddressError) as refused:
        serve(Settings(bundle=tmp_path, uds=str(tmp_path / name)))
    assert refused.value.where == str(tmp_path / name)
    assert why in refused.value.why
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(("certificate", "key"), [("none", "none"), ("text", "text"), ("text", None), (None, "text")])
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, certificate: str | None, key: str | None) -> None:
    (tmp_path / "text").write_text("no certificate")
    certfile, keyfile = (None if one is None else tmp_path / one for one in (certificate, key))
    with pytest.raises(ConfigError) as refused:
        serve(Settings(bundle=tmp_path, port=0, ssl_certfile=certfile, ssl_keyfile=keyfile))
    assert str(certfile or keyfile) in refused.value.where


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("cors_origins", "shop.example"),
        ("cors_origins", "https://shop.example/"),
        ("cors_origins", "null"),
        ("hosts", "https://api.example"),
        ("hosts", "api.example/v1"),
    ],
)
def test_names_that_no_request_has_are_refused(tmp_path: Path, name: str, wrong: str) -> None:
    with pytest.raises(ValidationError, match="is not"):
        Settings.model_validate({"bundle": tmp_path, name: wrong})


def test_origins_and_hosts_may_have_ports_and_be_any(tmp_path: Path) -> None:
    origins = ("https://shop.example", "http://localhost:3000", "http://[::1]:3000", "*")
    settings = Settings(bundle=tmp_path, cors_origins=origins, hosts=("api.example.com:8000", "*", "[::1]"))
    assert settings.cors_origins == origins
