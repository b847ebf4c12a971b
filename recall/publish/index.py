"""Build, tune and verify the index of a bundle."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from recall._arrays import Float32, Float64
from recall._tensors import write_tensors
from recall.bundle import files
from recall.config import IndexConfig
from recall.errors import ExportError, IndexDownError
from recall.index.base import Candidate, ItemIndex
from recall.index.checks import Checks
from recall.index.query import CodedColumn
from recall.index.record import Certificate, ChecksRecord, IndexRecord, IndexTrial, ProvenanceRecord
from recall.index.registry import SERVERS, build_index, candidates, drop, engine_of, like, open_index
from recall.index.tuning.recall import QuerySplit, lower_bound, recalls_found
from recall.index.tuning.tuner import Tuning, exact_certificate, tune

QUERIES = 8192
"""Maximum number of users whose vectors an index is built, tuned and verified with; one vector each."""
_MEASURED_IF_EXACT = 256  # query vectors that verify an exact index

_WHY_EXACT = "exact search: there are at most {:,} items"
_FAULT_HINT = "Nothing was published. This is a fault of the library: please report it with the versions of faiss and numpy"


@dataclass(frozen=True, slots=True, eq=False)
class QuerySample:
    """Query vectors to tune and verify an index with.

    Attributes:
        vectors: float32 [q, dim], q >= 1, one vector each of random users.
        source: description of the vectors, recorded in the manifest.
        seed: seed with which they were drawn and the index is built.
    """

    vectors: Float32
    source: str
    seed: int


def write_index(
    folder: Path,
    vectors: Float32,
    sample: QuerySample,
    config: IndexConfig,
    before: IndexRecord | None = None,
    on_trial: Callable[[IndexTrial], None] = lambda _: None,
    *,
    always: bool = False,
    columns: Callable[[], Sequence[CodedColumn]] = tuple,
) -> IndexRecord:
    """Choose, write and reopen the index over item vectors, with its load checks.

    Args:
        folder: folder of the bundle being written.
        vectors: float32 [items, dim], item vectors.
        sample: query vectors.
        config: the index to build; with kind 'auto' or 'faiss' and many items, the fastest that reaches the target recall.
        before: index of a similar bundle; its settings are tried first, and other candidates only if they miss the target.
        on_trial: called after each candidate.
        always: try candidates even with few items.
        columns: returns the columns of the items, for an engine that filters by itself.

    Raises:
        ExportError: An exact index missed items.
        IndexDownError: The server of the index did not answer all searches.
        IndexFileError: The file cannot be written or read.
    """
    users = QuerySplit.make(sample.vectors, sample.seed)
    small = len(vectors) <= config.exact_up_to and not always
    coded = columns() if config.kind in SERVERS or any(config.kind in one.kinds for one in SERVERS.values()) else ()
    tuning = None if small or not config.chooses else _tune(vectors, users, config, before, on_trial, coded)
    chosen = tuning.index if tuning is not None else build_index(vectors, users.fitting, config, users.seed, columns=coded)
    engine = engine_of(chosen.kind)
    with ExitStack() as undo:
        undo.callback(drop, engine.name, chosen.kind, chosen.params)
        with closing(chosen):
            path = folder / engine.file if engine.file is not None and chosen.write(folder / engine.file) else None
        with closing(open_index(path, engine.name, chosen.kind, chosen.params, vectors)) as opened:
            if tuning is not None and len(tuning.shares):
                certificate, recalls = tuning.certificate, tuning.shares
            else:
                certificate, recalls = _measure(opened, vectors, users, config)
            error = opened.error  # of a scan in place of the server
            checks = Checks.of(vectors, users.verification if len(users.verification) else users.fitting, config.n)
            found = checks.found(opened)
            error = error or opened.error
        if error:
            raise IndexDownError(error, where="index", hint="Nothing was published. Try again when the server answers")
        write_tensors(folder / files.CHECKS, {"queries": checks.queries, "rows": checks.rows})
        undo.pop_all()
    return IndexRecord(
        engine=engine.name,
        file=path.name if path is not None else None,
        kind=chosen.kind,
        params=dict(opened.params),
        queries=len(recalls),
        n=certificate.n,
        recall=float(recalls.mean()),
        lowest=float(recalls.min()),
        certificate=certificate,
        candidates=tuning.trials if tuning is not None else (),
        provenance=ProvenanceRecord(
            source=sample.source,
            fitting=len(users.fitting),
            tuning=len(users.tuning),
            verification=len(users.verification),
            seed=users.seed,
        ),
        why=tuning.why if tuning is not None else _WHY_EXACT.format(config.exact_up_to) if config.chooses else "",
        checks=ChecksRecord(queries=len(checks.queries), n=checks.rows.shape[1], found=found),
    )


def _tune(
    vectors: Float32,
    users: QuerySplit,
    config: IndexConfig,
    before: IndexRecord | None,
    on_trial: Callable[[IndexTrial], None],
    coded: Sequence[CodedColumn],
) -> Tuning:
    """Find the fastest index that reaches the target; try settings of `before` first."""
    threads = os.cpu_count() or 1

    def tune_among(tried: Sequence[Candidate]) -> Tuning:
        exact = build_index(vectors, users.fitting, config, users.seed, columns=coded) if config.kind in SERVERS else None
        return tune(vectors, users, config, users.seed, threads, tried, on_trial=on_trial, exact=exact)

    if before is not None and (config.kind == before.engine or (config.kind == "auto" and before.engine not in SERVERS)):
        similar = like(before.kind, before.params, coded)
        if similar:
            tuning = tune_among(similar)
            if not tuning.index.exact:
                return tuning
            tuning.index.discard()
    return tune_among(candidates(len(vectors), config.kind, coded))


def _measure(opened: ItemIndex, vectors: Float32, users: QuerySplit, config: IndexConfig) -> tuple[Certificate, Float64]:
    """Measure the recall of an untuned index, on held-out users if there are any."""
    queries = users.test_rounds[0] if len(users.verification) else users.fitting
    n = min(config.n, len(vectors))
    recalls = recalls_found(opened, vectors, queries[:_MEASURED_IF_EXACT] if opened.exact else queries, n)
    recall = float(recalls.mean())
    if opened.exact:
        if recall < 1.0:
            raise ExportError(f"an exact index found {recall:.6f} of the exact lists", where="index", hint=_FAULT_HINT)
        return exact_certificate(config, n), recalls
    lower = lower_bound(recalls, config.confidence) if len(users.verification) else 0.0
    return Certificate(config.target, n, len(recalls), recall, lower, config.confidence, 1, lower >= config.target), recalls
