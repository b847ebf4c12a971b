"""faiss files, read and written so that a failure names the file."""

import os
from pathlib import Path
from threading import Lock

import faiss

from recall.errors import IndexFileError

_READING = Lock()  # the limit set below belongs to the whole process


def write_faiss(index: faiss.Index, path: Path) -> None:
    """Write an index to a new file. Raises IndexFileError."""
    try:
        faiss.write_index(index, os.fspath(path))
    except RuntimeError as error:
        raise IndexFileError("the index could not be written", where=str(path), why=_reason(error)) from None


def read_faiss(path: Path) -> faiss.Index:
    """Open an index, memory-mapped, so that all processes on a machine share one copy. Raises IndexFileError."""
    with _READING:
        usual = faiss.get_deserialization_vector_byte_limit()
        try:
            # no array inside a file is longer than the file: a header that says so is refused before memory is claimed
            faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, 1))
            return faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, OSError) as error:
            raise IndexFileError(
                "the index cannot be read", where=str(path), why=_reason(error), mend="Rebuild it with scripts/rebuild_index.py"
            ) from None
        finally:
            faiss.set_deserialization_vector_byte_limit(usual)


def _reason(error: Exception) -> str:
    """What faiss has to say, without the C++ file and line."""
    text = str(error).strip()
    return text.rpartition("Error: ")[2] or text
