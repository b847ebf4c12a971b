"""A web page does not reach the service on the same machine under its own host name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.auth import Hosts
from tests.service.publishing import Shop
from tests.service.serving import Answer, Server, request, serving

OWN = (
    "localhost",
    "LOCALHOST:8000",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.3.2.1",
    "[::1]",
    "[::1]:8000",
    "a.localhost",
    "localhost.",
)
STRANGE = (
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost"),
    *("10.0.0.1", "[::2]", "", "[", "\xff"),
)


@pytest.mark.parametrize("host", OWN)
def test_own_names_are_allowed(host: str) -> None:
    hosts = Hosts()
    for _ in range(2):  # the second answer is cached
        assert hosts.allow(host.encode("latin-1"))


@pytest.mark.parametrize("host", STRANGE)
def test_other_names_are_not_allowed(host: str) -> None:
    hosts = Hosts()
    for _ in range(2):
        assert not hosts.allow(host.encode("latin-1"))


def test_further_names_are_allowed_on_any_port() -> None:
    hosts = Hosts(["api.example.com", "Shop.Example:443"])
    assert hosts.allow(b"API.example.com:8443")
    assert hosts.allow(b"shop.example")
    assert hosts.allow(b"localhost")
    assert not hosts.allow(b"example.com")
    assert not hosts.allow(b"x.api.example.com")


def test_the_cache_of_names_is_bounded() -> None:
    hosts = Hosts()
    assert all(hosts.allow(b"localhost:%d" % port) for port in range(2000))
    assert hosts.allow.cache_info().currsize < 1000


def ask(server: Server, *hosts: str, path: str = "/v1/recommend", **headers: str) -> Answer:
    method, body = ("POST", b"{}") if path == "/v1/recommend" else ("GET", b"")
    raw = request(method, path, body, content_type="application/json", **headers)
    own = b"host: localhost\r\n"
    assert raw.count(own) == 1
    return server.send(raw.replace(own, b"".join(b"host: %b\r\n" % host.encode() for host in hosts)))


@pytest.fixture(scope="module")
def told(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(shop.root, tmp_path_factory.mktemp("told") / "log", "--hosts", "api.example.com, shop.example") as server:
        server.wait()
        yield server


def test_without_a_key_only_this_machine_is_answered(server: Server) -> None:
    for path in ("/v1/recommend", "/v1/info", "/metrics"):
        refused = ask(server, "evil.example", path=path)
        assert refused.status == 421
        assert refused.json["type"] == "urn:fm-recall:problem:wrong-host"
        assert b"evil" not in refused.body
    for hosts in (["localhost", "evil.example"], ["evil.example", "localhost"], ["localhost", "localhost"], [""]):
        assert ask(server, *hosts).status == 421
    for hosts in (["localhost"], [f"127.0.0.1:{server.port}"], ["[::1]:80"], []):
        assert ask(server, *hosts).status == 200
    assert 'recall_refused_total{reason="wrong-host"}' in ask(server, "localhost", path="/metrics").body.decode()


def test_health_and_documentation_are_answered_under_any_name(server: Server) -> None:
    for path in ("/health/live", "/health/ready", "/docs"):
        assert ask(server, "10.1.2.3:8000", path=path).status == 200


def test_further_names_are_answered(told: Server) -> None:
    for host in ("api.example.com", "SHOP.example:443", "localhost"):
        assert ask(told, host).status == 200
    assert ask(told, "evil.example").status == 421
    assert "421" in ask(told, "localhost", path="/openapi.json").json["paths"]["/v1/recommend"]["post"]["responses"]


def test_a_key_is_sufficient_unless_names_are_set(shop: Shop, tmp_path: Path) -> None:
    key = "a key that no page has"
    for options, status in (((), 200), (("--hosts", "api.example.com"), 421), (("--hosts", "*"), 200)):
        with serving(shop.root, tmp_path / "log", *options, environment={"RECALL_READ_KEY": key}) as server:
            server.wait()
            assert ask(server, "any.example", x_api_key=key).status == status
            assert ask(server, "localhost", x_api_key=key).status == 200


def test_a_service_on_the_network_accepts_addresses_and_local_names() -> None:
    hosts = Hosts(network=True)
    for host in ("10.1.2.3:8000", "192.168.0.7", "[fe80::1]:8000", "recall:8000", "recall_1", "localhost"):
        assert hosts.allow(host.encode()), host
    for host in ("any.example", "10.1.2.3.example", "recall.evil.example:80", "", "a b", "\xff", "[", ".", "x."):
        assert hosts.allow(host.encode("latin-1")) is (host == "x."), host  # a trailing dot does not change a name


@pytest.mark.parametrize(("options", "status"), [((), 421), (("--hosts", "any.example"), 200), (("--hosts", "*"), 200)])
def test_without_a_key_no_public_name_reaches_it_on_the_network(
    shop: Shop, tmp_path: Path, options: tuple[str, ...], status: int
) -> None:
    with serving(shop.root, tmp_path / "log", "--host", "0.0.0.0", "--insecure", *options) as server:
        server.wait()
        assert ask(server, "any.example").status == status
        assert ask(server, f"127.0.0.1:{server.port}").status == 200
        assert ask(server, "recall:8000").status == (200 if options != ("--hosts", "any.example") else 421)
