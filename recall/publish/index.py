"""The index of a bundle, with what it was shown to find."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from recall._arrays import Float32
from recall._tensors import write_tensors
from recall.bundle import files
from recall.bundle.index_record import CandidateRecord, CertificateRecord, ChecksRecord, IndexRecord, ProvenanceRecord
from recall.config import CHOOSING, IndexConfig
from recall.errors import ExportError
from recall.index.base import ItemIndex
from recall.index.registry import Checks, build_index, candidates, engine_of, like, open_index
from recall.index.tuning.recall import Certificate, GroundTruth, QuerySplit, certify, lower_bound
from recall.index.tuning.trials import Trial
from recall.index.tuning.tuner import Bound, Tuning, tune

QUERIES = 8192
"""Users whose vectors an index is built, tuned and verified with, where there are as many: one vector each."""
_MEASURING = 256  # of them, for an index that is exact anyway

_FAULT = "Nothing was published. This is a fault of the library: please report it with the versions of faiss and numpy"


@dataclass(frozen=True, slots=True, eq=False)
class QuerySample:
    """Whom an index is for.

    Attributes:
        vectors: float32 [q, dim], one of each user, at least one; drawn at random from those who will ask.
        source: what they are, in a few words.
        seed: that they were drawn by, and that the index is built with.
    """

    vectors: Float32
    source: str
    seed: int


def write_index(
    folder: Path,
    vectors: Float32,
    asked: QuerySample,
    config: IndexConfig,
    before: IndexRecord | None = None,
    tell: Callable[[Trial], None] = lambda _: None,
    *,
    always: bool = False,
) -> IndexRecord:
    """Choose, write and reopen the index over item vectors, with its load checks.

    Args:
        folder: of the bundle that is being written.
        vectors: float32 [items, dim].
        asked: the users.
        config: the index to build; of kind 'auto' or 'faiss' and with many items, the fastest that reaches the target.
        before: the index of a similar bundle: where a kind is chosen, its settings are tried first, and other candidates only
            if they miss the target.
        tell: called with each candidate when it was tried.
        always: try candidates however few the items are.

    Raises:
        ExportError: An index that is to be exact is not.
        IndexFileError: The file cannot be written or read.
    """
    users = QuerySplit.make(asked.vectors, asked.seed)
    small = len(vectors) <= config.exact_up_to and not always
    tuned = None if small or config.kind not in CHOOSING else _tuned(vectors, users, config, before, tell)
    chosen = tuned.index if tuned is not None else build_index(vectors, users.fitting, config, users.seed)
    engine = engine_of(chosen.kind)
    with closing(chosen):
        path = folder / engine.file if engine.file is not None and chosen.write(folder / engine.file) else None
    with closing(open_index(path, engine.name, chosen.kind, chosen.params, vectors)) as opened:
        if tuned is not None and tuned.bound.queries:
            bound, found = tuned.bound, Certificate(tuned.bound.queries, tuned.bound.n, tuned.bound.recall, tuned.lowest)
        else:
            bound, found = _measured(opened, vectors, users, config)
        checks = Checks.of(vectors, users.verification if len(users.verification) else users.fitting, config.n)
        expected = checks.found(opened)
    write_tensors(folder / files.CHECKS, {"queries": checks.queries, "rows": checks.rows})
    return IndexRecord(
        engine=engine.name,
        file=path.name if path is not None else None,
        kind=chosen.kind,
        params=dict(opened.params),
        **asdict(found),
        certificate=CertificateRecord(**asdict(bound)),
        candidates=tuple(CandidateRecord.model_validate(asdict(one)) for one in tuned.trials) if tuned is not None else (),
        provenance=_provenance(users, asked.source),
        why=tuned.why if tuned is not None else _why(config),
        checks=ChecksRecord(queries=len(checks.queries), n=checks.rows.shape[1], found=expected),
    )


def _tuned(
    vectors: Float32, users: QuerySplit, config: IndexConfig, before: IndexRecord | None, tell: Callable[[Trial], None]
) -> Tuning:
    """Return the fastest index that reaches the target; settings of `before` first."""
    threads = os.cpu_count() or 1
    alike = like(before.kind, before.params) if before is not None and _may_be(before.engine, config) else []
    if alike:
        tuned = tune(vectors, users, config, users.seed, threads, alike, tell=tell)
        if not tuned.index.exact:
            return tuned
    return tune(vectors, users, config, users.seed, threads, candidates(len(vectors), config.kind), tell=tell)


def _may_be(engine: str, config: IndexConfig) -> bool:
    """Whether an index of this engine may be chosen."""
    return config.kind == "auto" or engine == config.kind


def _measured(opened: ItemIndex, vectors: Float32, users: QuerySplit, config: IndexConfig) -> tuple[Bound, Certificate]:
    """Measure the recall of an index without tuning, on held-out users where possible."""
    fresh = users.test_rounds[0] if len(users.verification) else users.fitting
    n = min(config.n, len(vectors))
    if opened.exact:
        found = certify(opened, vectors, fresh[:_MEASURING], n)
        if found.recall < 1.0:
            raise ExportError(f"an exact index found {found.recall:.6f} of the exact lists", where="index", hint=_FAULT)
        return Bound(config.target, n, 0, 1.0, 1.0, config.confidence, 0, True), found
    shares = GroundTruth.of(vectors, fresh, n).recalls(opened)
    recall = float(shares.mean())
    lower = lower_bound(shares, config.confidence) if len(users.verification) else 0.0
    bound = Bound(config.target, n, len(shares), recall, lower, config.confidence, 1, lower >= config.target)
    return bound, Certificate(len(shares), n, recall, float(shares.min()))


def _provenance(users: QuerySplit, source: str) -> ProvenanceRecord:
    counts = {"fitting": len(users.fitting), "tuning": len(users.tuning), "verification": len(users.verification)}
    return ProvenanceRecord(source=source, **counts, seed=users.seed)


def _why(config: IndexConfig) -> str:
    return f"exact search: there are at most {config.exact_up_to:,} items" if config.kind in CHOOSING else ""
