"""Which names the service may be asked under, so that no page in a browser reaches it under a name of its own.

A browser lets a page ask the host that it came from, and whoever owns a name may let it stand for 127.0.0.1 a moment later (DNS
rebinding). What tells such a request from one of this machine's own programs is its Host header, which no page can choose.
"""

from collections.abc import Iterable
from ipaddress import ip_address

_MOST_REMEMBERED = 256


class Hosts:
    """The names of this machine for itself, and others that were told."""

    def __init__(self, names: Iterable[str] = (), *, network: bool = False) -> None:
        """Accept the names of this machine for itself, and others.

        Args:
            names: further names, with or without a port.
            network: also accept every IP address and every name without a dot, for a service that other machines reach. A
                page's owner can let neither stand for this machine: an address is not looked up, and names without a dot
                (such as those of containers) are resolved by the local network alone.
        """
        self._names = {_name(name.strip().encode()) for name in names}
        self._network = network
        self._met: set[bytes] = set()

    def hold(self, host: bytes) -> bool:
        """Whether a Host header names one of them, on whatever port."""
        if host in self._met:
            return True
        name = _name(host)
        if name not in self._names and not _is_loopback(name) and not (self._network and _is_local(name)):
            return False
        if len(self._met) < _MOST_REMEMBERED:
            self._met.add(host)
        return True


def _name(host: bytes) -> bytes:
    """Without a port, in small letters."""
    name = host[: host.find(b"]") + 1] if host.startswith(b"[") else host.partition(b":")[0]
    return name.lower().removesuffix(b".")


def _is_loopback(name: bytes) -> bool:
    if name == b"localhost" or name.endswith(b".localhost"):
        return True
    try:
        return ip_address(name.strip(b"[]").decode("ascii")).is_loopback
    except ValueError:
        return False


def _is_local(name: bytes) -> bool:
    try:
        ip_address(name.strip(b"[]").decode("ascii"))
    except ValueError:
        return bool(name) and b"." not in name and name.isascii() and name.replace(b"-", b"").replace(b"_", b"").isalnum()
    return True
