"""The users that are known, page by page in order of the UTF-8 of their ids.

As with items, a user who is known from the first page to the last stands on exactly one of them.
"""

from heapq import merge
from itertools import islice

from recall.store.users.base import LiveUsers
from recall.store.users.record import UserStore


def page(stored: UserStore, live: LiveUsers | None, after: str | None, count: int) -> list[str]:
    """Ids of at most so many users, those of a bundle and those that came since, less those that were deleted.

    Args:
        stored: the bundle's.
        live: what has changed since, if anything may.
        after: those after this id; None from the first.
        count: at least 1.

    Raises:
        StoreError: what has changed cannot be read: then nobody knows who was deleted.
    """
    if live is None:
        return stored.ids(after, count)
    changed = live.ids(after, count)
    found: list[str] = []
    while len(found) < count and (batch := stored.ids(after, count)):
        after = batch[-1]
        states = live.get(batch)  # who is in there stands in `changed`, or was deleted
        found += [user_id for user_id in batch if user_id not in states]
    return list(islice(merge(found, changed), count))
