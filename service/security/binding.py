"""Where the service may listen: for everybody only with a key."""

import socket
from ipaddress import ip_address

from recall.errors import ConfigError


def check_binding(host: str, keyed: bool, insecure: bool) -> None:
    """Refuse to listen where others can ask, unless they need a key or somebody said that they do not.

    Args:
        host: name or address to listen on.
        keyed: whether any key is known.
        insecure: whether to listen all the same.

    Raises:
        ConfigError: others than this machine could ask, and nobody would ask them for a key.
    """
    if not keyed and not insecure and not is_loopback(host):
        raise ConfigError(
            "others than this machine could ask and change what is served, and no key is set",
            where=f"--host {host}",
            mend="Set a key in RECALL_ADMIN_KEY or with --keys (recall key new makes one), listen on 127.0.0.1, "
            "or say --insecure where something in front of the service asks for a key",
        )


def is_loopback(host: str) -> bool:
    """Whether every address that a name stands for can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        return False  # whatever it is, binding will say so
    return bool(found) and all(ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)
