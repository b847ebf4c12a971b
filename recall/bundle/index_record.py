"""The manifest's record of the index: how it was chosen, its recall, its checks."""

from pydantic import BaseModel, ConfigDict, Field


class _RecordPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CertificateRecord(_RecordPart):
    """A lower confidence bound on mean recall, from held-out users.

    They were used neither to build nor to tune the index.
    """

    target: float
    """Share of the exact list that was asked for."""
    n: int
    """Length of the lists."""
    queries: int
    """Users on whom the bound was found, one vector each; 0 of an index that is exact by construction."""
    recall: float
    """Their mean share of the exact list that was found."""
    lower: float
    """The mean over all such users is at least this,"""
    confidence: float
    """with this probability, all looks together."""
    looks: int
    """Settings that were verified until one reached the target, each on users of its own."""
    met: bool
    """Whether `lower` is at least `target`."""


class PointRecord(_RecordPart):
    """One setting of a candidate, on the users that it was tuned with."""

    effort: float
    """As the candidate counts it: lists that a query looks into, of an inverted file."""
    recall: float
    microseconds: float
    """Time of one query alone, by the wall clock; processor time in bundles of before."""


class CandidateRecord(_RecordPart):
    """An index that was built and tried."""

    name: str
    kind: str
    bytes: int
    """Of its file."""
    seconds: float
    """Taken to build it."""
    curve: tuple[PointRecord, ...]
    """By rising effort."""
    tuned: float | None = None
    """The effort at which it was to be verified; None where no effort reached the target."""
    note: str = ""
    """Why it was left out or given up, in a sentence."""


class ProvenanceRecord(_RecordPart):
    """Where the users' vectors come from, so that the same ones can be drawn again."""

    source: str
    """What they are, in a few words."""
    fitting: int
    """Vectors that candidates were built with,"""
    tuning: int
    """efforts were set and timed with,"""
    verification: int
    """and that were left to verify with; no user is in two of these."""
    seed: int


class ChecksRecord(_RecordPart):
    """Queries that the index must answer at every load; their answers are in a file."""

    queries: int = Field(ge=1)
    n: int = Field(ge=1)
    found: float
    """Share of the rows expected that it found when it was published."""


class IndexRecord(_RecordPart):
    """The index file, and its recall on held-out user vectors."""

    engine: str = Field(pattern="^[a-z][a-z0-9_]{0,31}$")
    """Name of the engine that opens the index, such as "faiss" or "cells"; derived from `kind` in formats 1 to 3."""
    file: str | None = None
    """Name of the index file; None if the engine keeps no local file. Always "index.faiss" in formats 1 to 3."""
    kind: str
    """What the engine built, such as "exact" or "ivf"."""
    params: dict[str, int | float | str]
    queries: int
    n: int
    recall: float
    lowest: float
    certificate: CertificateRecord | None = None
    """None in formats 1 and 2, and where the kind was prescribed."""
    candidates: tuple[CandidateRecord, ...] = ()
    """All that were tried, the chosen one among them; none where nothing was tuned."""
    provenance: ProvenanceRecord | None = None
    why: str = ""
    """Why it is of this kind, in a sentence; empty where the kind was prescribed."""
    checks: ChecksRecord | None = None
    """None in formats 1 and 2 alone."""
