"""Codes of a filter's rows alone, for filters that come again."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary, ref

from recall.features.sparse import Float32, Int32
from recall.index.selection import Selection


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
        self._kept: OrderedDict[ref[Selection], Narrow] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def of(self, selection: Selection) -> Narrow | None:
        """The packed rows, or None when this selection was not met before."""
        key = ref(selection, self._forget)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
            if selection not in self._met:
                self._met[selection] = None
                return None
        packed = self._pack(selection)
        with self._lock:
            if key not in self._kept and packed.nbytes <= self._budget:
                self._kept[key] = packed
                self._bytes += packed.nbytes
                while self._bytes > self._budget:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return packed

    def _forget(self, gone: "ref[Selection]") -> None:
        # may run inside `of` of this very thread, when a selection dies there: so the lock is only tried for
        if self._lock.acquire(blocking=False):
            try:
                packed = self._kept.pop(gone, None)
                self._bytes -= packed.nbytes if packed is not None else 0
            finally:
                self._lock.release()
