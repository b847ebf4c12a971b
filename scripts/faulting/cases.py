"""All cases, by their numbers."""

from faulting import damage, publishing

CASES = sorted([*publishing.CASES, *damage.CASES], key=lambda one: one.number)
