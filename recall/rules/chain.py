"""Steps one after another, over as much of the ranking as the answer takes."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from recall.rules.contract import Candidates, Step

_WIDER = 4
"""How many times as many candidates are fetched when too few came out: all rounds together cost a third more than the last."""


def shaped(fetch: Callable[[int], Candidates], steps: Sequence[Step], n: int) -> Candidates:
    """The first n of the ranking that the steps make of the whole one.

    Args:
        fetch: the first w of the ranking, `complete` when it has no more.
        steps: in order.
        n: results wanted.

    Returns:
        Exactly min(n, what the steps leave of the whole ranking), complete when it is all that they leave.
    """
    wants = list(accumulate(reversed(steps), lambda wanted, step: step.needs(wanted), initial=n))[::-1]
    factor, fetched = 1, fetch(wants[0])
    while True:
        found = fetched
        for step, wanted in zip(steps, wants[1:], strict=True):
            found = step.apply(found, wanted * factor)
        if found.complete or len(found) >= n:
            return found if len(found) <= n else found.take(slice(n), complete=False)
        factor *= _WIDER
        if not fetched.complete:
            fetched = fetch(wants[0] * factor)
