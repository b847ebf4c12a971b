# mypy: allow-untyped-calls
"""`numba.njit` with its cache on disk. Importing this module imports numba, which takes half a second."""

from collections.abc import Callable
from typing import Any

import numba
from numba import types


def compiled(*signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function to machine code, kept on disk for the next process where a folder for it can be written.

    It holds no lock of the interpreter while it runs, and divides by zero as numpy does.

    Args:
        signature: types of the arguments, or one text with all of them; without any, the first call says.
        options: further options of `numba.njit`, such as `fastmath`.
    """
    text = len(signature) == 1 and isinstance(signature[0], str)
    given = None if not signature else [signature[0] if text else signature]
    options = {"nogil": True, "error_model": "numpy", **options}

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(given, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to keep it in
            return numba.njit(given, **options)(function)

    return compile_


def read(kind: Any, dimensions: int = 1) -> Any:
    """The type of an array that is only read: one for what is in memory and what is mapped."""
    return types.Array(kind, dimensions, "C", readonly=True)
