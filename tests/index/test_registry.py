from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from recall.config import IndexConfig
from recall.errors import IndexFileError
from recall.index.flat import faiss_threads
from recall.index.registry import build_index, open_index
from tests.index.test_base import users_like_a_model, vectors_like_a_model

model_vectors = cache(partial(vectors_like_a_model, 200, 9, 0))
model_queries = cache(partial(users_like_a_model, 10, 9, 1))


@pytest.mark.parametrize("kind", ["auto", "faiss"])
@pytest.mark.parametrize(("exact_up_to", "built"), [(200, "exact"), (199, "ivf"), (0, "ivf")])
def test_large_catalogues_are_searched_approximately(exact_up_to: int, built: str, kind: str) -> None:
    config = IndexConfig.model_validate({"kind": kind, "exact_up_to": exact_up_to})
    assert build_index(model_vectors(), model_queries(), config, seed=0).kind == built


@pytest.mark.parametrize("kind", ["cells", "exact", "ivf"])
def test_a_kind_can_be_requested(kind: str) -> None:
    assert build_index(model_vectors(), model_queries(), IndexConfig.model_validate({"kind": kind}), seed=0).kind == kind


def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match=r"'faiss' does not open indexes of kind 'hnsw'.* Known names: exact, ivf"):
        open_index(tmp_path / "index.faiss", "faiss", "hnsw", {}, model_vectors())
    with pytest.raises(IndexFileError, match=r"^manifest, index\.kind: engine 'pgvector' does not open"):
        open_index(None, "pgvector", "hnsw", {}, model_vectors())


def test_an_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match=r"the index engine 'qdrant' is not known.*opens cells, faiss, milvus, pgvector"):
        open_index(None, "qdrant", "hnsw", {}, model_vectors())
    with pytest.raises(IndexFileError, match="'faiss' does not open indexes of kind 'cells'"):
        open_index(tmp_path / "index.faiss", "faiss", "cells", {}, model_vectors())


@pytest.mark.parametrize(("engine", "kind"), [("faiss", "exact"), ("cells", "cells")])
def test_an_engine_that_needs_a_file_reports_its_absence(engine: str, kind: str) -> None:
    with pytest.raises(IndexFileError, match=f"must name an index file for engine '{engine}'"):
        open_index(None, engine, kind, {}, model_vectors())


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    index = build_index(model_vectors(), model_queries(), IndexConfig(kind="ivf"), seed=0)
    index.write(tmp_path / "index.faiss")
    with pytest.raises(IndexFileError, match=r"must hold a faiss IndexFlatIP, got IndexIVF.*make another index"):
        open_index(tmp_path / "index.faiss", "faiss", "exact", {"longest": 1.0}, model_vectors())


def test_other_vectors_of_the_same_shape_are_refused(tmp_path: Path) -> None:
    index = build_index(model_vectors(), model_queries(), IndexConfig(kind="exact"), seed=0)
    index.write(tmp_path / "index.faiss")
    with pytest.raises(IndexFileError, match="holds other vectors than the bundle"):
        open_index(tmp_path / "index.faiss", "faiss", "exact", index.params, np.roll(model_vectors(), 1, axis=0))


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with faiss_threads(1):
        pass
    build_index(model_vectors(), model_queries(), IndexConfig(kind="ivf"), seed=0, threads=1).search(model_queries(), 3)
    assert torch.get_num_threads() == before
