"""Which items were on offer while the training interactions were made."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recall._arrays import Bool
from recall.data.split import Times
from recall.data.tables import Table
from recall.errors import DataError

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Offer:
    """The items of a catalogue, by what training knows of them.

    An item that was not on offer could not be taken, so it is not a negative.

    Attributes:
        interacted: bool [items], in the training interactions or before them.
        shown: bool [items], on offer without being taken: shown according to the label column, or available before the
            last training interaction according to `data.available_from`. Disjoint from `interacted`.
    """

    interacted: Bool
    shown: Bool

    @staticmethod
    def of(interacted: Integers, shown: Integers, available: Bool | None, n: int) -> "Offer":
        """Classify the items of a catalogue.

        Args:
            interacted: rows of items that were taken, in any order.
            shown: rows of items that were shown and not taken.
            available: bool [n], on offer by their date; None when no date column is named.
            n: size of the catalogue.
        """
        taken = np.bincount(interacted, minlength=n) > 0
        there = np.bincount(shown, minlength=n) > 0
        if available is not None:
            there |= available
        return Offer(taken, there & ~taken)

    @property
    def candidates(self) -> Bool:
        """Items that may be drawn as negatives; bool [items]."""
        return self.interacted | self.shown

    def counts(self) -> Mapping[str, int]:
        """Count the items of each class."""
        return {
            "trained on": int(self.interacted.sum()),
            "on offer but never taken": int(self.shown.sum()),
            "without interactions": int((~self.candidates).sum()),
        }


def available(table: Table | None, column: str, n: int, times: Times | None, last: float | None) -> Bool:
    """Return the items that were on offer before the last training interaction.

    Args:
        table: of the items; its rows are the first of the catalogue.
        column: with the time from which each item is on offer; a missing one says nothing.
        n: size of the catalogue.
        times: of the interactions; they must be dates where the column holds dates, and numbers where it holds numbers.
        last: the latest time of a training interaction.

    Returns:
        bool [n].

    Raises:
        DataError: The column is missing, or its times cannot be compared with those of the interactions.
    """
    if table is None or times is None or last is None:
        raise DataError(
            "dates of availability need a table of items, and times of the interactions to compare with",
            where="data.available_from",
            hint="Set data.items and data.time as well",
        )
    raw = table.collect([column])[column]
    given = np.flatnonzero(raw.is_not_null().to_numpy())
    result = np.zeros(n, dtype=np.bool_)
    if len(given):
        since = Times.of(raw.gather(given), table.where(column))
        if since.unit != times.unit:
            held, other = ("dates", "numbers") if times.unit == 1 else ("numbers", "dates")
            raise DataError(
                f"the column holds {held}, and data.time holds {other}",
                where=table.where(column),
                why="the two are compared with each other",
                hint="Write both as dates, or both as numbers in the same unit",
            )
        result[given] = since.values.to_numpy() <= last
    return result
