from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from recall._tensors import map_tensors
from recall.bundle import files
from recall.config import IndexConfig
from recall.index.base import Candidate
from recall.index.record import IndexRecord
from recall.index.registry import ENGINES, candidates, engine_of, open_index
from recall.index.tuning.tuner import Tuning, tune
from recall.publish import index as certificate
from recall.publish.index import QuerySample, write_index
from tests.index.test_base import users_like_a_model, vectors_like_a_model


@cache
def model_vectors() -> np.ndarray:
    return vectors_like_a_model(2000, 9, 0)


@cache
def asked_sample() -> QuerySample:
    return QuerySample(users_like_a_model(1600, 9, 1), "made up", 3)


CONFIG = IndexConfig(exact_up_to=100, target=0.8, n=15)


def test_the_written_index_matches_its_record(tmp_path: Path) -> None:
    record = write_index(tmp_path, model_vectors(), asked_sample(), CONFIG)
    assert record.file == ENGINES[record.engine].file
    opened = open_index(tmp_path / record.file, record.engine, record.kind, record.params, model_vectors())
    assert opened.size == 2000
    assert record.provenance is not None
    assert record.provenance.source == "made up"
    assert record.checks is not None
    shape = (record.checks.queries, 15)
    written = map_tensors(tmp_path / files.CHECKS, {"queries": (record.checks.queries, 9)}, {"rows": shape})
    best = np.argsort(-(written["queries"] @ model_vectors().T), axis=1)[:, :15]
    assert [set(one) for one in written["rows"]] == [set(one) for one in best]


@pytest.mark.parametrize(
    ("kind", "up_to", "named"),
    [
        ("cells", 100, "cells.safetensors"),
        ("ivf", 100, "index.faiss"),
        ("auto", 2000, "index.faiss"),
        ("faiss", 2000, "index.faiss"),
    ],
)
def test_the_file_is_named_after_its_engine(tmp_path: Path, kind: str, up_to: int, named: str) -> None:
    config = IndexConfig.model_validate({**CONFIG.model_dump(), "kind": kind, "exact_up_to": up_to})
    record = write_index(tmp_path, model_vectors(), asked_sample(), config)
    assert (record.file, record.engine) == (named, named.partition(".")[0].replace("index", "faiss"))
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([named, files.CHECKS])
    if record.engine == "faiss":
        index = faiss.read_index(str(tmp_path / named))
        assert index.ntotal == 2000
        assert index.metric_type == faiss.METRIC_INNER_PRODUCT
        assert isinstance(index, faiss.IndexFlatIP) == (kind != "ivf")


@pytest.mark.parametrize("up_to", [100, 2000])
def test_kind_faiss_tries_only_faiss_kinds(tmp_path: Path, up_to: int) -> None:
    config = IndexConfig.model_validate({**CONFIG.model_dump(), "kind": "faiss", "exact_up_to": up_to})
    cells = IndexRecord(
        engine="cells", kind="cells", params={"cells": 32, "effort": 2.0}, queries=1, n=15, recall=1.0, lowest=1.0
    )
    record = write_index(tmp_path, model_vectors(), asked_sample(), config, cells, always=up_to == 100)
    assert (record.engine, record.file) == ("faiss", "index.faiss")
    tried = {one.kind for one in record.candidates}
    assert tried == ({"exact", "ivf"} if up_to == 100 else set())


def test_checks_use_users_not_used_to_build_the_index(tmp_path: Path) -> None:
    record = write_index(tmp_path, model_vectors(), asked_sample(), IndexConfig(kind="ivf", target=0.8, n=15))
    assert record.certificate is not None
    assert record.certificate.queries == 1600 * 3 // 4 - 2 * (1600 * 3 // 4 // 4)
    assert record.certificate.lower <= record.recall
    assert record.lowest <= record.recall


def test_one_user_suffices_for_an_index_but_not_for_verification(tmp_path: Path) -> None:
    one = QuerySample(asked_sample().vectors[:1], "one", 0)
    for kind in ("auto", "cells", "ivf"):
        record = write_index(tmp_path, model_vectors(), one, IndexConfig.model_validate({**CONFIG.model_dump(), "kind": kind}))
        assert record.certificate is not None
        assert record.certificate.met == (kind in ("auto", "cells"))
    assert record.certificate.lower == 0


@pytest.mark.parametrize(("kind", "params"), [("ivf", {"nlist": 32}), ("cells", {"cells": 32, "effort": 2.0})])
def test_an_index_like_the_previous_one_is_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, params: dict[str, float]
) -> None:
    calls: list[list[str]] = []

    def recorded(*arguments: Any, on_trial: Any, exact: Any) -> Tuning:
        tried: Sequence[Candidate] = arguments[5]
        calls.append([one.name for one in tried])
        return tune(*arguments, on_trial=on_trial, exact=exact)

    monkeypatch.setattr(certificate, "tune", recorded)
    before = IndexRecord(engine=engine_of(kind).name, kind=kind, params=params, queries=1, n=15, recall=1.0, lowest=1.0)
    record = write_index(tmp_path, model_vectors(), asked_sample(), CONFIG, before)
    size = 32
    everything = [one.name for one in candidates(len(model_vectors()))]
    assert calls[0] == [f"{kind} {size}"]
    if calls[1:]:  # if exact search was faster, all candidates are tried
        assert calls[1:] == [everything]
    else:
        assert {one.name for one in record.candidates} == {"exact", f"{kind} {size}"}
    calls.clear()
    write_index(tmp_path, model_vectors(), asked_sample(), CONFIG)
    assert calls == [everything]
