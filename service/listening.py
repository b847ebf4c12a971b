"""Sockets that are bound before anything is loaded, so that an address that cannot be had is reported at once.

Several processes may share a port: each has sockets of its own, and the kernel shares new connections among them.
"""

import errno
import logging
import os
import socket

from recall.errors import ConfigError

_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What binding says of an address that this machine does not have, such as ::1 where IPv6 is turned off."""

_BACKLOG = 2048  # as uvicorn has it

log = logging.getLogger("service")


def listeners(host: str, port: int, *, shared: bool = True) -> list[socket.socket]:
    """Bind a socket for each address of a name.

    Sockets that are not shared listen at once. Shared ones do not yet, so that none gets connections.

    Of several addresses those that this machine does not have are left out, with a warning in the log.

    Args:
        host: name or address.
        port: 0 lets the system choose one, the same for all addresses.
        shared: whether sockets of other processes may be bound to the same port.

    Raises:
        ConfigError: The name has no address, or the port cannot be bound.
    """
    options = [socket.SO_REUSEADDR, *([socket.SO_REUSEPORT] if shared else [])]
    found: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
                missing = _missed(address[0], error)
                continue
            found.append(one)
            for option in options:
                one.setsockopt(socket.SOL_SOCKET, option, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address[0], found[0].getsockname()[1] if len(found) > 1 else port, *address[2:]))
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
                found.pop().close()
                missing = _missed(address[0], error)
            else:
                if not shared:  # two sockets may be bound to one port, but only one of them listens
                    one.listen(_BACKLOG)
        if missing is not None and not found:
            raise missing
    except OSError as error:
        for one in found:
            one.close()
        raise _unusable(host, port, error) from None
    return found


def _missed(address: object, error: OSError) -> OSError:
    log.warning("not listening on %s: %s", address, error.strerror)
    return error


def _unusable(host: str, port: int, error: OSError) -> ConfigError:
    hints = {
        errno.EADDRINUSE: f"Another program uses port {port}: stop it, or choose another with --port",
        errno.EACCES: "Choose a port above 1023 with --port, or give the process the right to bind this one",
        errno.EADDRNOTAVAIL: "Give an address of this machine as --host; 0.0.0.0 stands for all",
    }
    mend = hints.get(error.errno or 0, "Give a name or an address of this machine as --host")
    return ConfigError("cannot listen there", where=f"{host}:{port}", why=error.strerror or str(error), mend=mend)


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
                    raise _unusable(host, port, OSError(error.errno, os.strerror(error.errno or 0))) from None
    return listeners(host, port)
