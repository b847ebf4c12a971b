"""Tell requests of another site's page from those of programs and of the service's own page.

A browser lets any page send a POST without a body to any address, 127.0.0.1 included, and tells the server where the page
came from: by `Sec-Fetch-Site`, which no page can set, and by `Origin` (Fetch standard, sections 3.2 and 3.3). Programs send
neither.
"""

from urllib.parse import urlsplit

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing here, and whose answers a browser keeps from a page of another origin."""

_OWN = (b"same-origin", b"none")  # "none": typed into the address bar, or a bookmark


def is_cross_site(fetch_site: bytes | None, origin: bytes | None, host: bytes | None) -> bool:
    """Whether a browser says that a request comes from a page of another origin.

    `Sec-Fetch-Site` decides where it is sent: a proxy may change `Host`, so that `Origin` differs from it on the service's
    own page too.

    Args:
        fetch_site: the `Sec-Fetch-Site` header; None without one, b"" if there are several.
        origin: the `Origin` header, in the same form.
        host: the `Host` header, in the same form.
    """
    if fetch_site is not None:
        return fetch_site not in _OWN
    if origin is None:
        return False
    try:
        asked_from = urlsplit(origin.decode("ascii")).netloc
    except ValueError:
        return True
    return not asked_from or host is None or asked_from.lower() != host.decode("latin-1").lower()
