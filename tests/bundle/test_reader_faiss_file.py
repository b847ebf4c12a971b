"""The index file of a small catalogue, read with Faiss alone, reproduces the served list."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from recall._arrays import Float32
from recall.bundle import files
from recall.bundle.versions import resolve
from recall.serving.recommender import Recommender, Request


def asked(index: faiss.Index, vectors: Float32) -> Float32:
    """Pad vectors with zeros to the dimension of the index."""
    padded = np.zeros((len(vectors), index.d), dtype=np.float32)
    padded[:, : vectors.shape[1]] = vectors
    return padded


@pytest.mark.parametrize("n", [1, 5, 1000])
def test_the_faiss_index_reproduces_the_served_list(published: Path, n: int) -> None:
    index = faiss.read_index(str(resolve(published) / files.INDEX))
    assert type(index) is faiss.IndexFlatIP
    recommender = Recommender.load(published, users=None)
    try:
        ids = np.array(recommender.bundle.item_ids.values.to_list())
        people = [*recommender.users.sample(50, 0), None, "nobody known"]
        requests = [Request(user_id, n=n, exclude_seen=False) for user_id in people]
        scores, rows = index.search(asked(index, recommender.user_vectors(requests)), min(n, len(ids)))
        for answer, found, row in zip(recommender.recommend_batch(requests), scores, rows, strict=True):
            assert [item.score for item in answer.items] == pytest.approx(found.tolist(), rel=1e-5, abs=1e-6)
            distinct = np.flatnonzero(np.diff(found, prepend=np.inf, append=-np.inf)[:-1] < -1e-5)
            alone = [place for place in distinct if place + 1 in distinct or place + 1 == len(found)]  # not tied with the next
            assert len(alone) > len(found) / 2
            assert [answer.items[place].item_id for place in alone] == ids[row[alone]].tolist()
    finally:
        recommender.close()
