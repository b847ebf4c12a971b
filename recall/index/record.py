"""The manifest's record of the index: how it was chosen, its recall, its checks."""

from dataclasses import dataclass

from pydantic import ConfigDict, Field

from recall.config.schema import Record

_RECORDED = ConfigDict(extra="forbid", allow_inf_nan=False, revalidate_instances="always")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Lower confidence bound on mean recall, measured with held-out users.

    These users were used neither to build nor to tune the index.

    Attributes:
        target: mean share of the exact list that the index must find.
        n: length of the lists. If n is above 10, lists of 10 are verified as well, and the figures are those of the length with
            the lower bound.
        queries: users that the bound was measured with, one vector each; 0 for an index that is exact by construction.
        recall: mean share of the exact list that was found for these users.
        lower: with probability `confidence`, the mean over all users is at least this.
        confidence: of all bounds of the tuning together.
        looks: number of settings that were verified until one reached the target, each with other users.
        met: whether `lower` is at least `target`.
    """

    target: float
    n: int
    queries: int
    recall: float
    lower: float
    confidence: float
    looks: int
    met: bool

    __pydantic_config__ = _RECORDED


@dataclass(frozen=True, slots=True)
class Point:
    """One effort of a candidate, measured with the users that it was tuned with.

    Attributes:
        effort: value of the search parameter, such as the number of lists that a query scans in an inverted file.
        recall: mean share of the exact list that was found.
        microseconds: wall-clock time of one query; processor time in bundles of earlier versions.
    """

    effort: float
    recall: float
    microseconds: float

    __pydantic_config__ = _RECORDED


@dataclass(frozen=True, slots=True)
class IndexTrial:
    """A candidate that was built and measured, or left out.

    Attributes:
        name: of the candidate.
        kind: of its index; empty if it was left out.
        bytes: size of its file; 0 without a file.
        seconds: time of the build.
        curve: measurements by ascending effort.
        tuned: the effort to verify; None if no effort reached the target.
        note: why it was left out or given up, in a sentence.
    """

    name: str
    kind: str
    bytes: int
    seconds: float
    curve: tuple[Point, ...]
    tuned: float | None = None
    note: str = ""

    __pydantic_config__ = _RECORDED

    @property
    def microseconds(self) -> float | None:
        """Time of one query at the tuned effort; None without a measurement."""
        return next((point.microseconds for point in self.curve if point.effort == self.tuned), None)


class ProvenanceRecord(Record):
    """Source of the users' vectors, so that the same vectors can be drawn again."""

    source: str
    """Description of the vectors, in a few words."""
    fitting: int
    """Number of vectors that candidates were built with."""
    tuning: int
    """Number of vectors that efforts were tuned and timed with."""
    verification: int
    """Number of vectors left for verification. No user is in two of the three sets."""
    seed: int


class ChecksRecord(Record):
    """Queries repeated at every load of the index; the expected rows are in a file."""

    queries: int = Field(ge=1)
    n: int = Field(ge=1)
    found: float
    """Share of the expected rows that the index found when it was published."""


class IndexRecord(Record):
    """The index file, and its recall on held-out user vectors."""

    engine: str = Field(pattern="^[a-z][a-z0-9_]{0,31}$")
    """Name of the engine that opens the index, such as "faiss" or "cells"; derived from `kind` in formats 1 to 3."""
    file: str | None = None
    """Name of the index file; None if the engine keeps no local file. Always "index.faiss" in formats 1 to 3."""
    kind: str
    """Kind of index that the engine built, such as "exact" or "ivf"."""
    params: dict[str, int | float | str]
    queries: int
    n: int
    recall: float
    lowest: float
    certificate: Certificate | None = None
    """None in formats 1 and 2, and if the configuration prescribes the kind."""
    candidates: tuple[IndexTrial, ...] = ()
    """All candidates, including the chosen one; empty without tuning."""
    provenance: ProvenanceRecord | None = None
    why: str = ""
    """Reason for the choice of the kind, in a sentence; empty if the configuration prescribes the kind."""
    checks: ChecksRecord | None = None
    """None only in formats 1 and 2."""
