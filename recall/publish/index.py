"""The index of a bundle, with what it was shown to find."""

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
from recall.index.query import CodedColumn
from recall.index.record import Certificate, ChecksRecord, IndexRecord, IndexTrial, ProvenanceRecord
from recall.index.registry import SERVERS, Checks, build_index, candidates, drop, engine_of, like, open_index
from recall.index.tuning.recall import QuerySplit, lower_bound, recalls_found
from recall.index.tuning.tuner import Tuning, exact_certificate, tune

QUERIES = 8192
"""Users whose vectors an index is built, tuned and verified with, where there are as many: one vector each."""
_MEASURING = 256  # of them, for an index that is exact anyway

_FEW = "exact search: there are at most {:,} items"
_FAULT = "Nothing was published. This is a fault of the library: please report it with the versions of faiss and numpy"


@dataclass(frozen=True, slots=True, eq=False)
class QuerySample:
    """Whom an index is for.

    Attributes:
        vectors: float32 [q, dim], one of each user, at least one; drawn at random.
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
    tell: Callable[[IndexTrial], None] = lambda _: None,
    *,
    always: bool = False,
    columns: Callable[[], Sequence[CodedColumn]] = tuple,
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
        columns: returns the columns of the items, for an engine that filters by columns of its own.

    Raises:
        ExportError: An index that is to be exact is not.
        IndexDownError: The server that holds the index did not answer all searches.
        IndexFileError: The file cannot be written or read.
    """
    users = QuerySplit.make(asked.vectors, asked.seed)
    small = len(vectors) <= config.exact_up_to and not always
    coded = columns() if config.kind in SERVERS or any(config.kind in one.kinds for one in SERVERS.values()) else ()
    tuned = None if small or not config.chooses else _tuned(vectors, users, config, before, tell, coded)
    chosen = tuned.index if tuned is not None else build_index(vectors, users.fitting, config, users.seed, columns=coded)
    engine = engine_of(chosen.kind)
    with ExitStack() as undo:
        undo.callback(drop, engine.name, chosen.kind, chosen.params)
        with closing(chosen):
            path = folder / engine.file if engine.file is not None and chosen.write(folder / engine.file) else None
        with closing(open_index(path, engine.name, chosen.kind, chosen.params, vectors)) as opened:
            if tuned is not None and len(tuned.shares):
                shown, shares = tuned.certificate, tuned.shares
            else:
                shown, shares = _measured(opened, vectors, users, config)
            error = opened.error  # of a scan in place of the server
            checks = Checks.of(vectors, users.verification if len(users.verification) else users.fitting, config.n)
            expected = checks.found(opened)
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
        queries=len(shares),
        n=shown.n,
        recall=float(shares.mean()),
        lowest=float(shares.min()),
        certificate=shown,
        candidates=tuned.trials if tuned is not None else (),
        provenance=ProvenanceRecord(
            source=asked.source,
            fitting=len(users.fitting),
            tuning=len(users.tuning),
            verification=len(users.verification),
            seed=users.seed,
        ),
        why=tuned.why if tuned is not None else _FEW.format(config.exact_up_to) if config.chooses else "",
        checks=ChecksRecord(queries=len(checks.queries), n=checks.rows.shape[1], found=expected),
    )


def _tuned(
    vectors: Float32,
    users: QuerySplit,
    config: IndexConfig,
    before: IndexRecord | None,
    tell: Callable[[IndexTrial], None],
    coded: Sequence[CodedColumn],
) -> Tuning:
    """Return the fastest index that reaches the target; settings of `before` first."""
    threads = os.cpu_count() or 1

    def tuned(tried: Sequence[Candidate]) -> Tuning:
        there = build_index(vectors, users.fitting, config, users.seed, columns=coded) if config.kind in SERVERS else None
        return tune(vectors, users, config, users.seed, threads, tried, tell=tell, exact=there)

    known = before is not None and (config.kind == before.engine or (config.kind == "auto" and before.engine not in SERVERS))
    alike = like(before.kind, before.params, coded) if before is not None and known else []
    if alike:
        found = tuned(alike)
        if not found.index.exact:
            return found
        found.index.discard()
    return tuned(candidates(len(vectors), config.kind, coded))


def _measured(opened: ItemIndex, vectors: Float32, users: QuerySplit, config: IndexConfig) -> tuple[Certificate, Float64]:
    """Measure the recall of an index without tuning, on held-out users where possible."""
    fresh = users.test_rounds[0] if len(users.verification) else users.fitting
    n = min(config.n, len(vectors))
    shares = recalls_found(opened, vectors, fresh[:_MEASURING] if opened.exact else fresh, n)
    recall = float(shares.mean())
    if opened.exact:
        if recall < 1.0:
            raise ExportError(f"an exact index found {recall:.6f} of the exact lists", where="index", hint=_FAULT)
        return exact_certificate(config, n), shares
    lower = lower_bound(shares, config.confidence) if len(users.verification) else 0.0
    return Certificate(config.target, n, len(shares), recall, lower, config.confidence, 1, lower >= config.target), shares
