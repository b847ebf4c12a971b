"""Codes of a filter's rows alone, for filters that come again."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary, ref

from recall._arrays import Float32, Int32
from recall._cache import Cache
from recall.index.bitmap import Selection

_MOST = 4096  # selections


@dataclass(frozen=True, slots=True, eq=False)
class Narrow:
    """The rows of a selection: codes int32 [blocks, groups, 16], scales float32, rows int32 [16 blocks]; the last is empty."""

    codes: Int32
    scales: Float32
    rows: Int32

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return self.codes.nbytes + self.scales.nbytes + self.rows.nbytes


class Narrowing:
    """Packs the rows of a selection when it is asked about for the second time, and keeps what was used last.

    A selection that is asked about once, such as one user's list, is not worth the pass over all rows that packing takes.
    """

    def __init__(self, pack: Callable[[Selection], Narrow], budget: int) -> None:
        """`pack` does the work; at most about `budget` bytes are kept."""
        self._pack = pack
        self._budget = budget
        self._met: WeakKeyDictionary[Selection, None] = WeakKeyDictionary()
        self._kept: Cache[ref[Selection], Narrow] = Cache(_MOST, budget, lambda _, packed: packed.nbytes)
        self._lock = Lock()

    def of(self, selection: Selection) -> Narrow | None:
        """The packed rows, or None when this selection was not met before."""
        key = ref(selection, self._kept.discard)
        found = self._kept.get(key)
        if found is not None:
            return found
        with self._lock:
            if selection not in self._met:
                self._met[selection] = None
                return None
        packed = self._pack(selection)
        return self._kept.setdefault(key, packed) if packed.nbytes <= self._budget else packed
