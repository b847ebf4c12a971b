"""Traced programs: each runs the operations of its seed, with a mark before and after each.

python -m tests.simulation.workload KIND SEED FOLDER [FAULT]
"""

import json
import os
import random
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.simulation.trace import MARKS


class Marks:
    """Writes the marks of operations."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder.parent / MARKS, os.O_WRONLY)
        self._number = 0

    def say(self, **said: Any) -> None:
        os.write(self._file, json.dumps(said, sort_keys=True).encode() + b"\n")

    def carry_out(self, act: Callable[[], dict[str, Any]], **what: Any) -> None:
        """Run an operation; `act` returns its acknowledgement, or raises a RecallError if it is refused."""
        from recall.errors import RecallError

        self._number += 1
        self.say(**{"try": self._number}, **what)
        try:
            got = act()
        except RecallError as error:
            self.say(no=self._number, error=type(error).__name__)
            return
        self.say(ack=self._number, **what, **got)


def settle(seed: int) -> random.Random:
    """Make random numbers and time in Python deterministic; return the random generator."""
    draw = random.Random(seed)
    names, moments = random.Random(seed + 1), iter(range(1_700_000_000, 1_800_000_000))
    secrets.token_hex = lambda nbytes=None: names.randbytes(nbytes or 32).hex()  # type: ignore[assignment]
    secrets.token_bytes = lambda nbytes=None: names.randbytes(nbytes or 32)  # type: ignore[assignment]
    os.urandom = names.randbytes  # type: ignore[assignment]
    time.time = lambda: float(next(moments))  # type: ignore[assignment]
    return draw


def main() -> None:
    kind, seed, folder, fault = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), (*sys.argv[4:], "")[0]
    from tests.simulation import faults

    match kind:
        case "log":
            from tests.simulation.logs import work
        case "publish":
            from tests.simulation.publishing import work
        case "root":
            from tests.simulation.roots import work
        case _:
            raise SystemExit(f"no such workload: {kind}")
    if fault:
        faults.NAMES[fault]()
    draw = settle(seed)
    work(folder, draw, Marks(folder))


if __name__ == "__main__":
    main()
