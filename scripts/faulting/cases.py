"""All cases, by their numbers."""

from faulting import changing, corpus, damage, publishing

CASES = sorted([*publishing.CASES, *damage.CASES, *changing.CASES, *corpus.CASES], key=lambda one: one.number)
