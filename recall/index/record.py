"""The manifest's record of the index: how it was chosen, its recall, its checks."""

from dataclasses import dataclass

from pydantic import ConfigDict, Field

from recall.config.schema import Record

_RECORDED = ConfigDict(extra="forbid", allow_inf_nan=False, revalidate_instances="always")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A lower confidence bound on mean recall, from held-out users.

    They were used neither to build nor to tune the index.

    Attributes:
        target: share of the exact list that was asked for.
        n: length of the lists. Lists of 10 are verified with them, where n is larger; of the two, the figures are those of
            which less was found.
        queries: users on whom the bound was found, one vector each; 0 of an index that is exact by construction.
        recall: their mean share of the exact list that was found.
        lower: the mean over all such users is at least this, with probability `confidence`.
        confidence: for all looks together.
        looks: settings that were verified until one reached the target, each on users of its own.
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
    """One setting of a candidate, on the users that it was tuned with.

    Attributes:
        effort: as the candidate counts it: lists that a query looks into, of an inverted file.
        recall: mean share of the exact list that was found.
        microseconds: time of one query alone, by the wall clock; processor time in bundles of before.
    """

    effort: float
    recall: float
    microseconds: float

    __pydantic_config__ = _RECORDED


@dataclass(frozen=True, slots=True)
class IndexTrial:
    """An index that was built and tried.

    Attributes:
        name: of the candidate.
        kind: of its index.
        bytes: of its file.
        seconds: taken to build it.
        curve: by rising effort.
        tuned: the effort at which it was to be verified; None where no effort reached the target.
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
        """Of the point that it was tuned to."""
        return next((point.microseconds for point in self.curve if point.effort == self.tuned), None)


class ProvenanceRecord(Record):
    """Source of the users' vectors, so that the same ones can be drawn again."""

    source: str
    """Their kind, in a few words."""
    fitting: int
    """Vectors that candidates were built with,"""
    tuning: int
    """efforts were set and timed with,"""
    verification: int
    """and that were left to verify with; no user is in two of these."""
    seed: int


class ChecksRecord(Record):
    """Queries that the index must answer at every load; their answers are in a file."""

    queries: int = Field(ge=1)
    n: int = Field(ge=1)
    found: float
    """Share of the rows expected that it found when it was published."""


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
    """None in formats 1 and 2, and where the kind was prescribed."""
    candidates: tuple[IndexTrial, ...] = ()
    """All that were tried, the chosen one among them; none where nothing was tuned."""
    provenance: ProvenanceRecord | None = None
    why: str = ""
    """Reason for the kind, in a sentence; empty where the kind was prescribed."""
    checks: ChecksRecord | None = None
    """None in formats 1 and 2 alone."""
