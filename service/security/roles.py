"""What each path needs: the one place that says which key opens it, and whether it searches.

Nothing needs to be written here for a path that only reads and is asked by GET, nor for one that changes something: the
former asks for a read key, everything else for an admin key. So does what is stored of users, which is theirs: a read key gets
recommendations for them. A POST that only reads is added to `_ASKED`, or it stays shut to
read keys, which is the safe side to err on.
"""

from enum import IntEnum
from typing import NamedTuple


class Role(IntEnum):
    """What a key allows; a higher one allows all that a lower one does."""

    OPEN = 0
    """Needs no key."""
    READ = 1
    ADMIN = 2


class Access(NamedTuple):
    """What a path needs.

    Attributes:
        role: the least role that may ask.
        searches: whether it searches the catalogue, so that it has to wait for its turn and may have a deadline.
    """

    role: Role
    searches: bool


_OPENS = Access(Role.OPEN, False)
_READS = Access(Role.READ, False)
_SEARCHES = Access(Role.READ, True)
_CHANGES = _TELLS = Access(Role.ADMIN, False)

_OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"})
_OPEN_FOLDERS = ("/docs/assets/", "/page/")
_ASKED = {
    "/v1/recommend": _SEARCHES,
    "/v1/recommend:batch": _SEARCHES,
    "/v1/explain": _SEARCHES,
    "/v1/why-not": _SEARCHES,
    "/v1/score": _SEARCHES,
    "/v1/user-vector": _SEARCHES,
}
"""Paths that only read, although they are asked by POST."""
_SIMILAR = ("/v1/items/", "/similar")
_OF_USER = ("/v1/users/", "/recommendations")
_USERS, _USER = "/v1/users", "/v1/users/"


def access(method: str, path: str) -> Access:
    """What a request needs.

    Args:
        method: in capitals.
        path: percent-decoded, without a query: what the router chooses by.
    """
    if method == "POST":
        asked = _ASKED.get(path)
        if asked is not None:
            return asked
        return _SEARCHES if _between(path, _SIMILAR) else _CHANGES
    if method not in ("GET", "HEAD"):
        return _CHANGES
    if path in _OPEN or path.startswith(_OPEN_FOLDERS):
        return _OPENS
    if _between(path, _SIMILAR) or _between(path, _OF_USER):
        return _SEARCHES
    return _TELLS if path == _USERS or path.startswith(_USER) else _READS


def _between(path: str, ends: tuple[str, str]) -> bool:
    first, last = ends
    return len(path) > len(first) + len(last) and path.startswith(first) and path.endswith(last)
