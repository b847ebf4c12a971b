# mypy: allow-untyped-calls
"""Loops that numba compiles to machine code. Whoever imports this imports numba, which takes half a second."""

from collections.abc import Callable
from typing import Any

import numba
from numba import types


def compiled(*arguments: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Machine code for arguments of these types, kept on disk for the next process where a folder for it can be written.

    It holds no lock of the interpreter while it runs, and divides by zero as numpy does.
    """

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return numba.njit([arguments], cache=True, **options)(function)
        except RuntimeError:  # numba found no folder to keep it in
            return numba.njit([arguments], **options)(function)

    return compile_


def read(kind: Any, dimensions: int = 1) -> Any:
    """The type of an array that is only read: one for what is in memory and what is mapped."""
    return types.Array(kind, dimensions, "C", readonly=True)
