from functools import cache, partial
from pathlib import Path

import faiss
import numpy as np
import pytest

from recall.config import IndexConfig
from recall.index.faiss_engine import half_precision_lists
from recall.index.flat import write_faiss
from recall.index.registry import build_index, open_index
from recall.index.topk import pad
from tests.index.test_base import users_like_a_model, vectors_like_a_model

model_vectors = cache(partial(vectors_like_a_model, 5000, 17, 0))
model_users = cache(partial(users_like_a_model, 200, 17, 1))


def test_scores_by_codes_approximate_the_true_ones() -> None:
    lists = half_precision_lists(model_vectors(), model_users(), 16, seed=0, threads=1)
    params = faiss.SearchParametersIVF()
    params.nprobe = 16
    scores, rows = lists.search(pad(model_users()), 10, params=params)
    true = np.einsum("qd,qnd->qn", model_users(), model_vectors()[rows])
    true *= np.exp2(np.round(np.log2(scores[0, 0] / true[0, 0])))  # vectors are scaled by a power of two
    assert np.abs(scores - true).max() < 0.001 * np.abs(true).max()


@pytest.mark.parametrize("kind", ["ivf_int8", "pq"])
def test_inverted_files_of_older_bundles_are_readable(tmp_path: Path, kind: str) -> None:
    vectors, users = model_vectors(), model_users()
    codes = "SQ8" if kind == "ivf_int8" else "PQ12x4fs"
    made = faiss.index_factory(24, f"IVF16,{codes}", faiss.METRIC_INNER_PRODUCT)
    made.train(pad(vectors))
    made.add(pad(vectors))
    file = tmp_path / "index.faiss"
    write_faiss(made if kind == "ivf_int8" else _behind_a_map(made), file)
    params = {"nlist": 16, "nprobe": 16, "growth": 0.5, "n": 10}
    index = open_index(file, "faiss", kind, params, vectors)
    exact = build_index(vectors, users, IndexConfig(kind="exact"), seed=0)
    found, best = index.search(users, 10), exact.search(users, 10)
    shares = [len(set(one) & set(other)) / 10 for one, other in zip(found.rows, best.rows, strict=True)]
    assert np.mean(shares) > (0.9 if kind == "ivf_int8" else 0.7)
    assert index.kind == kind


def _behind_a_map(inner: faiss.Index) -> faiss.IndexPreTransform:
    first = faiss.LinearTransform(17, 24, False)
    faiss.copy_array_to_vector(np.eye(24, 17, dtype=np.float32).ravel(), first.A)
    first.is_trained = True
    return faiss.IndexPreTransform(first, inner)
