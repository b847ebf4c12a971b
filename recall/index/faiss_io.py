"""Files of faiss, and the settings that it keeps per process or thread."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np

from recall._arrays import Float32, Int64
from recall.errors import IndexFileError
from recall.index.bitmap import RowBitmap

_BLAS_FROM = 800  # queries x dim from which faiss multiplies matrices; its own 128000 makes batches 6 to 8 times slower
_READING = Lock()  # the limit set in read_faiss belongs to the whole process


def prepare_faiss() -> None:
    """Set what faiss keeps for the whole process, always to the same value."""
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let faiss use `count` threads for what this thread asks of it.

    OpenMP keeps the number for each calling thread, and torch may read the same one: so it is put back afterwards.
    """
    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(usual)


def brute_force(vectors: Float32, queries: Float32, n: int) -> tuple[Float32, Int64]:
    """Return the n largest inner products of each query and their rows, by a scan.

    Args:
        vectors: float32 [size, dim].
        queries: float32 [q, dim].
        n: at most size.

    Returns:
        Scores float32 [q, n] and rows int64 [q, n].
    """
    with faiss_threads(1):  # one matrix product at a time is fast; a second thread mostly waits for the first
        return faiss.knn(np.ascontiguousarray(queries), np.ascontiguousarray(vectors), n, metric=faiss.METRIC_INNER_PRODUCT)


def selector(within: RowBitmap | None) -> Any:
    """Return a bitmap as `sel` of faiss's search parameters.

    Those hold no reference to the bits: keep the bitmap alive.
    """
    if within is None:
        return None
    return faiss.IDSelectorBitmap(within.size, faiss.swig_ptr(within.bits))


def write_faiss(index: faiss.Index, path: Path) -> None:
    """Write an index to a new file.

    Args:
        index: any index of faiss.
        path: the file.

    Raises:
        IndexFileError: The file cannot be written.
    """
    try:
        faiss.write_index(index, os.fspath(path))
    except RuntimeError as error:
        raise IndexFileError("the index could not be written", where=str(path), why=_reason(error)) from None


def write_flat(path: Path, parts: Iterable[Float32], dim: int) -> None:
    """Write an inner-product index of vectors to a new file. Raises IndexFileError.

    Args:
        path: the file.
        parts: of the vectors, float32 [m, dim] each.
        dim: length of a vector.
    """
    flat = faiss.IndexFlatIP(dim)
    for part in parts:
        flat.add(np.ascontiguousarray(part))
    write_faiss(flat, path)


def read_faiss(path: Path) -> faiss.Index:
    """Memory-map an index, one copy for all processes.

    Raises:
        IndexFileError: The file cannot be read.
    """
    with _READING:
        usual = faiss.get_deserialization_vector_byte_limit()
        try:
            # no array inside a file is longer than the file: a header that says so is refused before memory is claimed
            faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, 1))
            return faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, OSError) as error:
            raise IndexFileError(
                "the index cannot be read",
                where=str(path),
                why=_reason(error),
                hint="Make another index for it: recall tune-index BUNDLE",
            ) from None
        finally:
            faiss.set_deserialization_vector_byte_limit(usual)


def _reason(error: Exception) -> str:
    """Return the message of an error of faiss without the C++ file and line."""
    text = str(error).strip()
    return text.rpartition("Error: ")[2] or text
