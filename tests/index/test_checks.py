from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from recall.config import IndexConfig
from recall.errors import IndexFileError
from recall.index.base import ItemIndex
from recall.index.checks import CHECKS, Checks, recheck
from recall.index.flat import ExactIndex
from recall.index.registry import build_index
from tests.index.test_base import brute_force, users_like_a_model, vectors_like_a_model

model_vectors = cache(partial(vectors_like_a_model, 4000, 17, 0))
model_queries = cache(partial(users_like_a_model, 30, 17, 1))


PLACE = Path("index.faiss")


@pytest.fixture(scope="module", params=["cells", "exact", "ivf"])
def index(request: pytest.FixtureRequest) -> ItemIndex:
    return build_index(
        model_vectors(), users_like_a_model(100, 17, 2), IndexConfig(kind=request.param, target=0.95, n=20), seed=3
    )


def test_checks_contain_the_exact_answers() -> None:
    checks = Checks.of(model_vectors(), model_queries(), 12)
    assert checks.rows.shape == (CHECKS, 12)
    for query, rows in zip(checks.queries, checks.rows, strict=True):
        assert set(rows) == set(brute_force(model_vectors(), query, 12))
    assert Checks.of(model_vectors()[:5], model_queries()[:2], 12).rows.shape == (2, 5)


def test_an_index_passes_its_own_checks(index: ItemIndex) -> None:
    checks = Checks.of(model_vectors(), model_queries(), 20)
    found = checks.found(index)
    assert found >= 0.85
    assert not index.exact or found == 1.0
    recheck(index, checks, found, PLACE)


def test_an_index_of_other_vectors_is_refused(index: ItemIndex) -> None:
    others = np.roll(model_vectors(), 1, axis=0)
    with pytest.raises(IndexFileError, match=r"finds .*% of what its stored checks expect, and found .*tune-index"):
        recheck(index, Checks.of(others, model_queries(), 20), 0.95, PLACE)


def test_a_partly_overwritten_exact_index_is_refused() -> None:
    checks = Checks.of(model_vectors(), model_queries(), 20)
    broken = model_vectors().copy()
    broken[np.unique(checks.rows)[::3]] = 0
    with pytest.raises(IndexFileError, match="not those that were published"):
        recheck(ExactIndex.build(broken), checks, 1.0, PLACE)


def test_rows_out_of_range_are_refused(index: ItemIndex) -> None:
    checks = Checks.of(model_vectors(), model_queries(), 20)
    with pytest.raises(IndexFileError, match="rows outside of the 4000"):
        recheck(index, Checks(checks.queries, checks.rows + 4000), 1.0, PLACE)
