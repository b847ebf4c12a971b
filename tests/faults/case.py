"""A fault case and the score of one run: measurements, and every failed requirement."""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.bench import Bench


@dataclass
class Score:
    """Measurements of a case.

    Attributes:
        runs: number of faults injected.
        failures: faults whose outcome did not meet the pass criterion.
        lost: requests without an answer, or with a 5xx other than 503 with Retry-After.
        lost_ack: changes that were acknowledged and later missing.
        wrong: answers that differ from brute force for the version and the sequence that they name.
        p50, p99: latency during the fault in milliseconds, from the scheduled send time; NaN if no request was sent.
        recovery: seconds from the end of the fault, or the start of a process, to the first correct answer; NaN as above.
        unmet: failed requirements, in words; at most a few of each kind.
        notes: further measurements.
    """

    runs: int = 0
    failures: int = 0
    lost: int = 0
    lost_ack: int = 0
    wrong: int = 0
    p50: float = math.nan
    p99: float = math.nan
    recovery: float = math.nan
    unmet: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self, passed: bool, message: str = "") -> bool:
        """Count one injected fault; `message` describes the outcome if it did not pass."""
        self.runs += 1
        if not passed:
            self.failures += 1
            if self.failures <= 5:
                self.unmet.append(message)
        return passed

    def require(self, passed: bool, message: str) -> None:
        """Check a requirement of the case as a whole; `message` describes the failure."""
        if not passed:
            self.unmet.append(message)

    def recovered(self, seconds: float) -> None:
        """Record a recovery time; the longest counts."""
        self.recovery = seconds if math.isnan(self.recovery) else max(self.recovery, seconds)

    @property
    def passed(self) -> bool:
        """Whether every requirement of the case was satisfied."""
        return self.runs > 0 and not (self.unmet or self.failures or self.lost or self.lost_ack or self.wrong)


@dataclass(frozen=True)
class Case:
    """A kind of fault.

    Attributes:
        number: identifies the case in the report.
        name: what fails.
        inject: how the fault is injected.
        criterion: when the case passes.
        run: injects the fault and fills a score.
        tools: programs that the case needs.
        fast: whether the case runs with `--quick` and in the test suite.
    """

    number: int
    name: str
    inject: str
    criterion: str
    run: "Callable[[Bench, Score], None]"
    tools: Sequence[str] = ()
    fast: bool = False

    def skip_reason(self) -> str:
        """Why the case cannot run on this machine; empty if it can."""
        absent = [tool for tool in self.tools if shutil.which(tool) is None]
        return f"not run: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed" if absent else ""
