"""What a case is, and what comes of one: figures, and each thing that its pass line asks for and that was not so."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.bench import Bench


@dataclass
class Score:
    """What a case has shown so far.

    Attributes:
        runs: faults that were done.
        failures: of those, how many did not end as the pass line says.
        lost: requests without an answer, or with a 5xx that is no 503 with Retry-After.
        lost_ack: changes that were acknowledged and are gone.
        wrong: answers that differ from brute force for the version and the sequence that they name.
        p50, p99: milliseconds during the fault, from the moment that a request was due; NaN where nobody asked.
        recovery: seconds from the end of the fault, or the start of a process, to the first right answer; NaN likewise.
        missed: what was not as it should be, in words; at most a few of each kind.
        notes: what else was measured.
    """

    runs: int = 0
    failures: int = 0
    lost: int = 0
    lost_ack: int = 0
    wrong: int = 0
    p50: float = math.nan
    p99: float = math.nan
    recovery: float = math.nan
    missed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ran(self, well: bool, otherwise: str = "") -> bool:
        """Count one fault; `otherwise` says what was wrong when it did not end well."""
        self.runs += 1
        if not well:
            self.failures += 1
            if self.failures <= 5:
                self.missed.append(otherwise)
        return well

    def ask(self, true: bool, otherwise: str) -> None:
        """Something that the pass line asks for beside the single faults."""
        if not true:
            self.missed.append(otherwise)

    def recovered(self, seconds: float) -> None:
        """Keep the longest recovery."""
        self.recovery = seconds if math.isnan(self.recovery) else max(self.recovery, seconds)

    @property
    def passed(self) -> bool:
        """Whether everything was as the pass line says."""
        return self.runs > 0 and not (self.missed or self.failures or self.lost or self.lost_ack or self.wrong)


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        number: its place on the scoreboard.
        name: what goes wrong.
        inject: how it is made to go wrong.
        line: what has to be so for the case to pass.
        run: does it.
        tools: programs without which it cannot be done.
        fast: whether it belongs to the set that runs with every change.
    """

    number: int
    name: str
    inject: str
    line: str
    run: "Callable[[Bench, Score], None]"
    tools: Sequence[str] = ()
    fast: bool = False

    def missing(self) -> str:
        """Why it cannot be run here; empty when it can."""
        absent = [tool for tool in self.tools if shutil.which(tool) is None]
        return f"not run: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed" if absent else ""
