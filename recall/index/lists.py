"""Which cell every vector of a catalogue belongs to: the most costly part of an inverted file, shared by all its codes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import faiss
import numpy as np

from recall._arrays import Float32, Int64
from recall.index.cells import POINTS, Cells
from recall.index.contract import check_vectors
from recall.index.ranking import pad

_CHUNK = 1 << 16  # vectors looked at together
_LARGEST = 2.0**12  # components are scaled to below this, well inside float16's 65504, before they become codes


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """The vectors of a catalogue, cut into cells.

    Attributes:
        vectors: float32 [size, dim], as they were given.
        cells: of the vectors times `scale`.
        assigned: int64 [size], the cell of each.
        scale: an inner product with a scaled vector ranks the same, and neither overflows nor loses small numbers in
            16 bits.
        seed: of whatever is drawn from the vectors.
    """

    vectors: Float32
    cells: Cells
    assigned: Int64
    scale: np.float32
    seed: int

    @classmethod
    def build(cls, vectors: Float32, queries: Float32, count: int, seed: int, threads: int = 1) -> "Lists":
        """Cut a sample into cells and find the cell of every vector.

        Chunks find their cells side by side, each in a thread of one: OpenMP's own threads spin while they wait for each
        other, which on a busy machine doubles the work.

        Args:
            vectors: float32 [size, dim].
            queries: float32 [q, dim], vectors of real users, at least one: they say which directions matter.
            count: number of cells, at most `size`.
            seed: of the sample and of k-means.
            threads: threads that find cells.

        Raises:
            ExportError: the vectors are not finite.
        """
        check_vectors(vectors)
        scale = np.float32(2.0 ** np.floor(np.log2(_LARGEST / max(float(np.abs(vectors).max()), 1e-30))))
        rows = np.random.default_rng(seed).choice(len(vectors), min(len(vectors), count * POINTS), replace=False)
        cells = Cells.fit(vectors[np.sort(rows)] * scale, queries, count, seed)

        def assigned(first: int) -> Int64:
            return cells.assign(vectors[first : first + _CHUNK] * scale)

        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(assigned, range(0, len(vectors), _CHUNK)))
        return cls(vectors, cells, np.concatenate(found), scale, seed)

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.cells.centroids)

    def coarse(self) -> faiss.IndexFlatIP:
        """Faiss's index of the padded centroids."""
        padded = pad(self.cells.centroids)
        coarse = faiss.IndexFlatIP(padded.shape[1])
        coarse.add(padded)
        return coarse

    def chunks(self) -> Iterator[tuple[Float32, Int64]]:
        """The scaled vectors in order of rows, some at a time, with their cells: float32 [m, dim] and int64 [m]."""
        for first in range(0, len(self.vectors), _CHUNK):
            yield self.vectors[first : first + _CHUNK] * self.scale, self.assigned[first : first + _CHUNK]


def lists_for(size: int) -> int:
    """Number of lists for `size` vectors: the power of two next to sqrt(size), with at least 8 vectors for each list.

    Finding the lists of all vectors is most of the work of building, and grows with their number; twice as many would
    make a search over a million items no faster than its fixed costs allow.
    """
    return int(max(1, min(2 ** round(np.log2(max(size, 1)) / 2), size // 8)))
