"""Freed memory, which allocators keep: that of the C library, and that of polars."""

import ctypes
import os

_JEMALLOC = "_RJEM_MALLOC_CONF"  # settings of jemalloc as polars is built with it
_GLIBC = "MALLOC_MMAP_THRESHOLD_"  # which glibc has read when the process started
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of `mallopt` in glibc
_LARGE = 1 << 22  # bytes. A smaller block is given out again so often that new pages would take time
_KEPT = 1 << 26  # bytes at the end of the heap, as many as glibc keeps by itself; with 128 kB, a sweep took 6 % more CPU time


def return_memory_when_freed() -> None:
    """Let this process return large freed blocks to the system at once.

    Each stage of a training has other arrays, and freed blocks that are kept for later use add to its peak. glibc keeps blocks
    of up to 32 MB between blocks in use. polars keeps freed columns for ten seconds: about 180 MB after the tables of two
    million interactions were read. It reads its setting when it is imported, so that a later call has no effect on it. Where
    the environment has a setting, it is used instead. Other C libraries may not have the function.
    """
    os.environ.setdefault(_JEMALLOC, "dirty_decay_ms:100,muzzy_decay_ms:0")
    if _GLIBC not in os.environ and (adjust := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        adjust(_M_MMAP_THRESHOLD, _LARGE)
        adjust(_M_TRIM_THRESHOLD, _KEPT)  # glibc adapts neither after the first call


def release_free_memory() -> None:
    """Return the freed memory of this process to the system.

    glibc keeps what was freed between blocks in use, which raises the peak of the next stage: about 90 MB after training on
    300,000 interactions, 210 MB after a million and 410 MB after two million. Other C libraries may not have the function.
    """
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
