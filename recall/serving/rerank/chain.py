"""Steps one after another, over as much of the ranking as the answer takes."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from recall.serving.rerank.base import Candidates, Mask, Step

_WIDER = 4
"""How many times as many candidates go through the steps when too few came out."""


def shaped(fetch: Callable[[int, Mask | None], Candidates], steps: Sequence[Step], n: int, size: int) -> Candidates:
    """The first n of the ranking that the steps make of the whole one.

    Args:
        fetch: the first w of the ranking, or of its rows that a mask lets in; `complete` when there are no more.
        steps: in order.
        n: results wanted.
        size: rows of the catalogue; no fetch asks for more than one row beyond them.

    Returns:
        Exactly min(n, what the steps leave of the whole ranking), complete when it is all that they leave.
    """
    # one more than there are, so that a fetch of everything learns that nothing follows
    most = size + 1
    wants = list(accumulate(reversed(steps), lambda wanted, step: min(step.needs(wanted), most), initial=n))[::-1]
    factor, fetched = 1, fetch(wants[0], None)
    while True:
        found = fetched
        for step, wanted in zip(steps, wants[1:], strict=True):
            found = step.apply(found, wanted * factor)
        if found.complete or len(found) >= n:
            return found if len(found) <= n else found.take(slice(n), complete=False)
        factor *= _WIDER
        if not fetched.complete:
            # what the first step drops for certain need not be fetched: where quotas are full, nearly nothing is left
            left = steps[0].beyond(fetched)
            more = fetch(min(wants[0] * factor, most), left)
            fetched = more if left is None else fetched.followed(more)
