"""Sockets of one port for several processes: each has its own, and the kernel shares new connections among them."""

import os
import socket

from recall.errors import ConfigError

_REUSE = ((socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT))


def listeners(host: str, port: int) -> list[socket.socket]:
    """A bound socket for each address that a name stands for; none listens yet, so none gets connections.

    Args:
        host: name or address.
        port: 0 lets the system choose one, the same for all addresses.

    Raises:
        ConfigError: the name stands for nothing, or the port cannot be had.
    """
    found: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            one = socket.socket(family, kind, protocol)
            found.append(one)
            for level, option in _REUSE:
                one.setsockopt(level, option, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], found[0].getsockname()[1] if len(found) > 1 else port, *address[2:]))
    except OSError as error:
        for one in found:
            one.close()
        raise ConfigError("cannot listen there", where=f"{host}:{port}", why=error.strerror or str(error)) from None
    return found


def reserve(host: str, port: int) -> list[socket.socket]:
    """As `listeners`, but only where nobody listens yet: the kernel would let a second service share the first one's port.

    Whoever holds these sockets keeps the port for processes of its own. Raises ConfigError.
    """
    if port:
        for one in listeners(host, port):
            with one:
                address = one.getsockname()
                family = one.family
            with socket.socket(family, socket.SOCK_STREAM) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    alone.bind(address)
                except OSError as error:
                    why = error.strerror or os.strerror(error.errno or 0)
                    raise ConfigError("cannot listen there", where=f"{host}:{port}", why=why) from None
    return listeners(host, port)
