"""Selections that were made before, the least recently used given up first."""

from collections import OrderedDict
from threading import Lock

from recall.filters.clauses import Clause, Rows
from recall.index.selection import Selection

_OVERHEAD = 1024  # bytes of an entry beside its bits: its clause, and Python's objects
_RANGE = 128  # bytes of one range in a clause


class SelectionCache:
    """Selections by their clauses, within a number of bytes. Threads share it."""

    def __init__(self, most_bytes: int = 64 << 20, most: int = 1024) -> None:
        """Keep at most `most` selections, and as few as fit into `most_bytes`, but always the last one."""
        self._most_bytes = most_bytes
        self._most = most
        self._kept: OrderedDict[Clause, Selection] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, clause: Clause) -> Selection | None:
        """What was kept for a clause, or None."""
        with self._lock:
            found = self._kept.get(clause)
            if found is not None:
                self._kept.move_to_end(clause)
            return found

    def keep(self, clause: Clause, selection: Selection) -> Selection:
        """Keep a selection, unless another thread has kept one for that clause meanwhile; gives the one that is kept."""
        with self._lock:
            found = self._kept.setdefault(clause, selection)
            self._kept.move_to_end(clause)
            # a selection grows when its rows are first listed, so all are weighed anew
            weight = sum(_bytes(*entry) for entry in self._kept.items())
            while len(self._kept) > 1 and (weight > self._most_bytes or len(self._kept) > self._most):
                weight -= _bytes(*self._kept.popitem(last=False))
            return found


def _bytes(clause: Clause, selection: Selection) -> int:
    listed = vars(selection).get("rows")
    ranges = len(clause.ranges) if isinstance(clause, Rows) else 0
    return _OVERHEAD + _RANGE * ranges + selection.bits.nbytes + (listed.nbytes if listed is not None else 0)
