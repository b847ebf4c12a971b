"""All cases, by their numbers."""

from faulting import changing, corpus, damage, elsewhere, keys, loads, publishing, soak

CASES = sorted(
    [
        *publishing.CASES,
        *damage.CASES,
        *changing.CASES,
        *corpus.CASES,
        *keys.CASES,
        *loads.CASES,
        *elsewhere.CASES,
        *soak.CASES,
    ],
    key=lambda one: one.number,
)
