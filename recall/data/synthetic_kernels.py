# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs
"""Compiled loop behind the choices of a synthetic shop with a large catalogue."""

import numpy as np
from numba import float32, int32, int64, uint8, uint64

from recall._numba import compiled, read
from recall.data.split import splitmix64
from recall.data.synthetic_catalogue import FACTORS

_TRIES = 16  # times that a user looks again where the choice was made before
_STEP = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


_splitmix64 = compiled(uint64)(splitmix64)
_TABLE = read(float32, 2)


@compiled(
    int64,
    int64,
    uint64,
    int64,
    read(int64),
    read(uint8),
    read(uint8),
    read(int32, 2),
    _TABLE,
    _TABLE,
    _TABLE,
    _TABLE,
    _TABLE,
    int32[::1],
)
def choose(first, last, seed, considered, start, device, daypart, aliases, style, taste, devices, dayparts, successor, chosen):
    """Draw the choices of users `first` to `last`, each from a separate generator.

    Items are offered by popularity, by the alias method (Walker 1977), and one of them is chosen with probability
    softmax(utility).

    Args:
        first: first user.
        last: user after the last.
        seed: seed of all generators.
        considered: number of items offered for each choice.
        start: int64 [users + 1], the first event of each user.
        device: uint8 [n].
        daypart: uint8 [n].
        aliases: int32 [items, 2], in how many of 2^24 cases an item offers itself rather than its alias, and that.
        style: float32 [items, d].
        taste: float32 [users, d].
        devices: float32 [devices, d].
        dayparts: float32 [dayparts, d].
        successor: float32 [items + 1, d].
        chosen: int32 [n], written: the item row of each event, -1 where a user found nothing new.
    """
    items = len(style)
    query = np.empty(FACTORS, dtype=np.float32)
    # a separate loop for the offered items and their styles lets their memory accesses overlap
    offered, shares = np.empty(considered, dtype=np.int64), np.empty(considered, dtype=np.float32)
    for user in range(first, last):
        state = _splitmix64(seed ^ (np.uint64(user) * _STEP))
        previous = items  # the last row of `successor`: none
        for at in range(start[user], start[user + 1]):
            for factor in range(FACTORS):
                context = devices[device[at], factor] + dayparts[daypart[at], factor]
                query[factor] = taste[user, factor] + context + successor[previous, factor]
            chosen[at] = -1
            for _ in range(_TRIES):
                for place in range(considered):
                    drawn = _splitmix64(state + np.uint64(place + 1) * _STEP)
                    item = np.int64(((drawn >> np.uint64(32)) * np.uint64(items)) >> np.uint64(32))
                    own = np.int64(drawn & np.uint64(0xFFFFFF)) < aliases[item, 0]
                    offered[place] = item if own else np.int64(aliases[item, 1])
                for place in range(considered):
                    utility = np.float32(0)
                    for factor in range(FACTORS):
                        utility += query[factor] * style[offered[place], factor]
                    shares[place] = utility
                total = np.float32(0)  # shares become sums of the shares up to each place
                for place in range(considered):
                    total += np.exp(shares[place])
                    shares[place] = total
                state += np.uint64(considered + 1) * _STEP
                luck = np.float32((_splitmix64(state) >> np.uint64(11)) * _UNIT * total)
                place = 0
                for other in range(considered - 1):  # without a branch, which could not be predicted
                    place += np.int64(shares[other] < luck)
                best = offered[place]
                new = True
                for earlier in range(start[user], at):
                    new = new and chosen[earlier] != best
                if new:
                    chosen[at] = previous = best
                    break
