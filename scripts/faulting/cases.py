"""All cases, by their numbers."""

from faulting import changing, corpus, damage, keys, loads, publishing

CASES = sorted(
    [*publishing.CASES, *damage.CASES, *changing.CASES, *corpus.CASES, *keys.CASES, *loads.CASES], key=lambda one: one.number
)
