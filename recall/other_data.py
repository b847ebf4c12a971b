"""Whether two bundles come from one data set, so that one may take the other's place in a service."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recall.bundle.bundle import Bundle
from recall.errors import BundleError
from recall.stores.sqlite import SqliteUsers

_FEW_ITEMS = 0.05  # of the smaller catalogue
_FEW_PAIRS = 0.1  # numbers as ids occur in any data set, interactions do not
_SAMPLE = 500  # users whose interactions are compared
_ENOUGH = 100  # interactions below which a share says nothing


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a bundle has in common with the one that is served.

    Attributes:
        columns: id columns with another name, each as "its name, the served one".
        items: share of the smaller catalogue that is in the other one.
        pairs: share of what the users of both have taken that both know, of the bundle that knows less of them; None where
            that is too little to compare.
    """

    columns: tuple[tuple[str, str], ...]
    items: float
    pairs: float | None

    @property
    def other_data(self) -> bool:
        """Whether the bundles were made from different data sets."""
        return bool(self.columns) or self.items < _FEW_ITEMS or (self.pairs is not None and self.pairs < _FEW_PAIRS)

    def reasons(self) -> Iterator[str]:
        """Say what they do not have in common, one clause each."""
        for mine, served in self.columns:
            yield f"its ids are in a column {mine!r}, and those of the served version in {served!r}"
        if self.items < _FEW_ITEMS:
            yield f"{self.items:.1%} of the item ids are in both catalogues"
        if self.pairs is not None and self.pairs < _FEW_PAIRS:
            yield f"{self.pairs:.1%} of what their common users have taken is the same"


def compare_data(bundle: Bundle, served: Bundle) -> Likeness:
    """Compare the ids of two bundles, and what a sample of the users of both have taken. Raises BundleError."""
    mine, theirs = bundle.encoder.schema, served.encoder.schema
    names = ((mine.user_id, theirs.user_id), (mine.item_id, theirs.item_id))
    smaller, larger = sorted((bundle.item_ids, served.item_ids), key=len)
    shared = larger.rows(smaller.values.to_list()) >= 0
    return Likeness(
        columns=tuple((one, other) for one, other in names if one != other),
        items=float(np.mean(shared)),
        pairs=_pairs(bundle, served),
    )


def refuse_other_data(bundle: Bundle, served: Bundle) -> None:
    """Raise BundleError when a bundle comes from another data set than the one that is served."""
    likeness = compare_data(bundle, served)
    if likeness.other_data:
        raise BundleError(
            f"the version comes from another data set than {served.manifest.version}, which is served",
            where=str(bundle.folder),
            why="; ".join(likeness.reasons()),
            mend="Give a version of the data that this root serves, or another root; "
            "add --other-data if this root is to serve the other data from now on",
        )


def _pairs(bundle: Bundle, served: Bundle) -> float | None:
    if bundle.manifest.users_elsewhere is not None or served.manifest.users_elsewhere is not None:
        return None
    mine, theirs = SqliteUsers(bundle.users_file), SqliteUsers(served.users_file)
    try:
        both = found = known = 0
        for user in theirs.sample(_SAMPLE, 0):
            ours, other = mine.get(user), theirs.get(user)
            if ours is not None and other is not None:
                both += len(set(ours.seen) & set(other.seen))
                found += len(ours.seen)
                known += len(other.seen)
        least = min(found, known)
        return both / least if least >= _ENOUGH else None
    finally:
        mine.close()
        theirs.close()
