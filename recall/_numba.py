# mypy: allow-untyped-calls
"""`numba.njit` with its cache on disk.

Importing this module imports numba (about 0.5 s).
"""

from collections.abc import Callable
from typing import Any

import numba
from numba import types


def compiled(*signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function, with the result cached on disk.

    The compiled function releases the interpreter's lock and divides by zero as numpy does. Where no cache folder can be
    written, each process compiles again.

    Args:
        signature: types of the arguments, or one string with all of them; without any, the first call decides.
        options: further options of `numba.njit`, such as `fastmath`.
    """
    text = len(signature) == 1 and isinstance(signature[0], str)
    given = None if not signature else [signature[0] if text else signature]
    options = {"nogil": True, "error_model": "numpy", **options}

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(given, cache=True, **options)(function)
        except RuntimeError:  # numba found no writable cache folder
            return numba.njit(given, **options)(function)

    return compile_


def read(kind: Any, dimensions: int = 1) -> Any:
    """Return the numba type of a read-only C-contiguous array.

    One compiled version then serves arrays in memory and arrays mapped from files.

    Args:
        kind: numba type of the elements.
        dimensions: number of dimensions.
    """
    return types.Array(kind, dimensions, "C", readonly=True)
