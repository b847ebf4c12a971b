"""What is looked at before anything is opened, by one process or by the one that starts several."""

import os
import resource
from contextlib import suppress
from dataclasses import dataclass

from recall.errors import BundleError
from service.security.binding import check_binding
from service.security.known import KnownKeys
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """What one of several workers is handed.

    Attributes:
        number: of this one, from 0.
        rates: descriptor of the file in which all count the requests of each key.
        meters: descriptor of the file in which all count what they do.
        lifeline: descriptor that can be read from when whoever started this process is gone.
        first: whether no other worker was there when this one was started, so that it is to listen before it can serve.
    """

    number: int
    rates: int
    meters: int
    lifeline: int
    first: bool = False


def prepare(settings: Settings) -> KnownKeys:
    """Refuse what cannot be served, and let this process and those that it starts hold many connections.

    Returns:
        The keys that are known.

    Raises:
        BundleError: there is no such folder. One that holds no bundle yet is waited for.
        ConfigError: the keys cannot be read, or others than this machine could ask without one.
    """
    if not settings.bundle.is_dir():
        raise BundleError(
            "there is no such folder", where=str(settings.bundle), mend="Give the folder that bundles are published to"
        )
    keys = KnownKeys.read(settings.keys, os.environ)
    check_binding(settings.host, bool(keys.ring), settings.insecure)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # then as many as there may be now
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return keys
