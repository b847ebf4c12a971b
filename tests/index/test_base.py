"""Contract tests for every kind of index; add new kinds to `KINDS`."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.config import IndexConfig
from recall.errors import ExportError, IndexFileError, RequestError
from recall.index.base import ItemIndex
from recall.index.bitmap import RowBitmap
from recall.index.registry import ENGINES, engine_of, open_index, register
from tests.hypotheses import examples
from tests.index.remote_engine import RemoteEngine, running_server

FILED = ("cells", "exact", "ivf")
"""Kinds with an index file."""
POSTGRES = ("pgvector_exact", "pgvector_hnsw")
MILVUS = ("milvus_flat", "milvus_hnsw")
KINDS = (*FILED, "toy_remote", *POSTGRES, *MILVUS)
"""Those on a server have no file, are built with ids drawn at random, and differ in nothing else."""
APPROXIMATE = ("ivf", "pgvector_hnsw", "milvus_hnsw")
SLOW = tuple(pytest.param(kind, marks=pytest.mark.slow) for kind in MILVUS)
"""A collection takes seven seconds to build: with a graph, cases that build several catalogues run on Postgres only."""
SIZE, DIM = 3000, 17
Build = Callable[[np.ndarray], ItemIndex]


def vectors_like_a_model(size: int, dim: int, seed: int) -> np.ndarray:
    """Draw clustered vectors of very different lengths with a separate first component, as in a model."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, dim))
    vectors = centres[rng.integers(0, 20, size)] + 0.4 * rng.standard_normal((size, dim))
    vectors *= rng.lognormal(0, 0.4, (size, 1))
    vectors[:, 0] = rng.normal(0, 0.5, size)
    return vectors.astype(np.float32)


def users_like_a_model(count: int, dim: int, seed: int) -> np.ndarray:
    users = vectors_like_a_model(count, dim, seed)
    users[:, 0] = 1
    return users


model_vectors = cache(partial(vectors_like_a_model, SIZE, DIM, 0))
model_queries = cache(partial(users_like_a_model, 40, DIM, 1))


def started(request: pytest.FixtureRequest) -> None:
    """Start the server of a kind, once."""
    if request.param in (*POSTGRES, *MILVUS):
        request.getfixturevalue("postgres" if request.param in POSTGRES else "milvus")


@pytest.fixture(params=(*FILED, "toy_remote", *POSTGRES))  # a collection takes Milvus 7 s
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    built: list[ItemIndex] = []

    def make(vectors: np.ndarray) -> ItemIndex:
        calibration = users_like_a_model(100, vectors.shape[1], 2)
        started(request)
        engine, config = engine_of(request.param), IndexConfig(target=0.95, n=20)
        built.append(engine.build(request.param, vectors, calibration, config, 3, 2))
        return built[-1]

    yield make
    for one in built:
        one.discard()


@pytest.fixture(scope="module", params=(*FILED, "toy_remote", *POSTGRES, *SLOW))
def index(request: pytest.FixtureRequest) -> Iterator[ItemIndex]:
    started(request)
    users, config = users_like_a_model(100, DIM, 2), IndexConfig(target=0.95, n=20)
    built = engine_of(request.param).build(request.param, model_vectors(), users, config, 3, 2)
    yield built
    built.discard()


@pytest.fixture(scope="module", autouse=True)
def remote() -> Iterator[None]:
    """A server in a separate process, with its engine registered."""
    with running_server() as url:
        register(RemoteEngine(url))
        yield
        del ENGINES["toy"]


def brute_force(vectors: np.ndarray, query: np.ndarray, n: int, excluded: np.ndarray | None = None) -> np.ndarray:
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    if excluded is not None:
        scores[excluded] = -np.inf
    order = np.lexsort((np.arange(len(scores)), -scores))[:n]
    return order[np.isfinite(scores[order])]


def test_an_index_describes_itself(index: ItemIndex) -> None:
    assert index.kind in KINDS
    assert (index.size, index.dim) == (SIZE, DIM)
    assert index.exact == (index.kind not in APPROXIMATE)


@pytest.mark.parametrize("n", [1, 20, 500])
def test_results_match_brute_force(index: ItemIndex, n: int) -> None:
    hits = index.search(model_queries(), n)
    found = np.mean(
        [
            len(set(hits.rows[q]) & set(brute_force(model_vectors(), model_queries()[q], n))) / n
            for q in range(len(model_queries()))
        ]
    )
    assert found == 1.0 if index.exact else found >= 0.9
    np.testing.assert_allclose(
        hits.scores, np.einsum("qd,qnd->qn", model_queries(), model_vectors()[hits.rows]), rtol=1e-5, atol=1e-5
    )


def test_a_query_whose_square_exceeds_float32_is_answered(index: ItemIndex) -> None:
    far = model_queries()[:5] * np.float32(1e25)
    hits = index.search(far, 20)
    assert np.isfinite(hits.scores).all()
    if index.exact:
        np.testing.assert_array_equal(hits.rows, index.search(model_queries()[:5], 20).rows)


@given(
    n=st.integers(1, 60),
    excluded=st.lists(st.lists(st.integers(0, SIZE - 1), max_size=30), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=examples(30))
def test_results_are_distinct_eligible_ordered_and_complete(
    index: ItemIndex, n: int, excluded: list[list[int]], seed: int
) -> None:
    queries = users_like_a_model(len(excluded), DIM, seed)
    hits = index.search(queries, n, [np.array(rows, dtype=np.int64) for rows in excluded])
    assert hits.rows.shape == hits.scores.shape == (len(excluded), n)
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32
    for rows, scores, left_out in zip(hits.rows, hits.scores, excluded, strict=True):
        assert (rows >= 0).all()
        assert len(set(rows)) == n
        assert not set(rows) & set(left_out)
        assert (np.diff(scores) <= 0).all()


def test_excluding_the_best_gives_the_next_best(index: ItemIndex) -> None:
    for query in model_queries()[:10]:
        best = index.search(query[None], 600).rows[0]
        rest = index.search(query[None], 20, [best[:500]]).rows[0]
        assert not set(rest) & set(best[:500])
        if index.exact:
            np.testing.assert_array_equal(rest, best[500:520])


@pytest.mark.parametrize("left", [0, 1, 7])
def test_the_rest_is_found_if_nearly_all_rows_are_excluded(index: ItemIndex, left: int) -> None:
    rng = np.random.default_rng(5)
    eligible = np.sort(rng.choice(SIZE, left, replace=False))
    excluded = np.setdiff1d(np.arange(SIZE), eligible)
    rng.shuffle(excluded)
    hits = index.search(model_queries()[:3], 10, [excluded] * 3)
    for rows, scores in zip(hits.rows, hits.scores, strict=True):
        assert sorted(rows[:left]) == list(eligible)
        assert (rows[left:] == -1).all()
        assert (scores[left:] == -np.inf).all()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_a_bitmap_gives_the_best_of_its_rows(index: ItemIndex, share: float) -> None:
    rng = np.random.default_rng(9)
    selection = RowBitmap.of_mask(rng.random(SIZE) < share)
    queries = model_queries()[:20]
    seen = [rng.choice(SIZE, 50, replace=False) for _ in queries]
    hits = index.search(queries, 20, seen, [selection] * len(queries))
    shares = []
    for query, rows, left_out in zip(queries, hits.rows, seen, strict=True):
        ineligible = np.union1d(np.flatnonzero(~selection.mask), left_out)
        expected = brute_force(model_vectors(), query, 20, ineligible)
        found = rows[rows >= 0]
        assert len(found) == len(set(found)) == len(expected)
        assert not set(found) & set(ineligible)
        shares.append(len(set(found) & set(expected)) / len(expected) if len(expected) else 1.0)
    assert np.mean(shares) >= (1.0 if index.exact or share <= 0.01 else 0.9)


def test_a_batch_may_have_different_bitmaps(index: ItemIndex) -> None:
    halves = [RowBitmap.of_mask(np.arange(SIZE) % 2 == one) for one in (0, 1)]
    within = [None, halves[0], halves[1], halves[0]]
    together = index.search(model_queries()[:4], 15, None, within)
    for position, one in enumerate(within):
        alone = index.search(model_queries()[position : position + 1], 15, None, [one])
        np.testing.assert_array_equal(alone.rows[0], together.rows[position])
        np.testing.assert_array_equal(alone.scores[0], together.scores[position])
    assert (together.rows[1] % 2 == 0).all()
    assert (together.rows[2] % 2 == 1).all()


def test_exact_search_is_exact_for_any_kind(index: ItemIndex) -> None:
    hits = index.search(model_queries(), 20, exact=True)
    assert hits.exact.all()
    for query, rows in zip(model_queries(), hits.rows, strict=True):
        np.testing.assert_array_equal(rows, brute_force(model_vectors(), query, 20))


def test_no_eligible_rows_give_no_results(index: ItemIndex) -> None:
    nothing = RowBitmap.of_rows(np.empty(0, dtype=np.int64), SIZE)
    assert (index.search(model_queries()[:2], 5, None, [nothing, nothing]).rows == -1).all()


def test_duplicate_exclusions_change_nothing(index: ItemIndex) -> None:
    once = np.arange(0, SIZE, 2)
    many = np.concatenate([once, once[::-1], once])
    one, other = (
        index.search(model_queries(), 10, [once] * len(model_queries())),
        index.search(model_queries(), 10, [many] * len(model_queries())),
    )
    np.testing.assert_array_equal(one.rows, other.rows)
    assert ((other.rows % 2) == 1).all()


def test_an_empty_exclusion_changes_nothing(index: ItemIndex) -> None:
    plain, empty = (
        index.search(model_queries(), 10),
        index.search(model_queries(), 10, [np.empty(0, dtype=np.int64)] * len(model_queries())),
    )
    np.testing.assert_array_equal(plain.rows, empty.rows)
    np.testing.assert_array_equal(plain.scores, empty.scores)


def test_n_larger_than_the_catalogue_gives_all_rows(index: ItemIndex) -> None:
    hits = index.search(model_queries()[:2], SIZE + 50)
    for rows, scores in zip(hits.rows, hits.scores, strict=True):
        assert sorted(rows[:SIZE]) == list(range(SIZE))
        assert (rows[SIZE:] == -1).all()
        assert (scores[SIZE:] == -np.inf).all()


def test_a_batch_equals_its_queries_one_by_one(index: ItemIndex) -> None:
    rng = np.random.default_rng(6)
    excluded = [rng.choice(SIZE, int(rng.integers(0, 200)), replace=False) for _ in model_queries()]
    batch = index.search(model_queries(), 30, excluded)
    for position in range(len(model_queries())):
        alone = index.search(model_queries()[position : position + 1], 30, excluded[position : position + 1])
        np.testing.assert_array_equal(alone.rows[0], batch.rows[position])
        np.testing.assert_array_equal(alone.scores[0], batch.scores[position])


@pytest.mark.parametrize("share", [None, 0.3])
def test_one_query_is_answered_as_in_a_batch(index: ItemIndex, share: float | None) -> None:
    within = None if share is None else RowBitmap.of_mask(np.random.default_rng(7).random(SIZE) < share)
    excluded = np.array([9, 3, 3, 40])
    for query in model_queries()[:4]:
        for exact in (False, True):
            hits = index.search(query[None], 12, [excluded], [within], exact=exact)
            alone = index.search_one(query, 12, excluded, within, exact=exact)
            np.testing.assert_array_equal(alone.rows, hits.rows[0])
            np.testing.assert_array_equal(alone.scores, hits.scores[0])
            assert alone.exact == hits.exact[0]


def test_equal_scores_are_ordered_by_row(build: Build) -> None:
    vectors = np.tile(vectors_like_a_model(2, 9, 7), (100, 1))  # two vectors, a hundred times each
    index = build(vectors)
    hits = index.search(users_like_a_model(5, 9, 8), 150)
    for rows in hits.rows:
        first, second = rows[:100], rows[100:]
        np.testing.assert_array_equal(first, np.arange(first[0] % 2, 200, 2))
        assert (np.diff(second) > 0).all()
        if index.exact:
            np.testing.assert_array_equal(second, np.arange(second[0] % 2, 200, 2)[:50])


def test_ties_beyond_the_list_are_cut_by_row(build: Build) -> None:
    vectors = np.ones((2000, 5), dtype=np.float32)
    hits = build(vectors).search(np.ones((3, 5), dtype=np.float32), 4)
    if build(vectors).exact:
        np.testing.assert_array_equal(hits.rows, [[0, 1, 2, 3]] * 3)
    assert (hits.scores == 5).all()


@pytest.mark.parametrize("size", [1, 2, 9, 65])
@pytest.mark.parametrize("dim", [1, 8, 9])
def test_small_catalogues_are_searched(build: Build, size: int, dim: int) -> None:
    vectors = vectors_like_a_model(size, dim, size)
    queries = users_like_a_model(3, dim, dim)
    hits = build(vectors).search(queries, size)
    for query, rows in zip(queries, hits.rows, strict=True):
        assert sorted(rows) == list(range(size))
        np.testing.assert_allclose(
            vectors[rows] @ query, vectors[brute_force(vectors, query, size)] @ query, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("magnitude", [1e-12, 1e6, 1e15])
def test_the_scale_of_the_model_does_not_matter(build: Build, magnitude: float) -> None:
    vectors = model_vectors() * np.float32(magnitude)
    index = build(vectors)
    hits = index.search(model_queries(), 10)
    found = np.mean(
        [len(set(hits.rows[q]) & set(brute_force(vectors, model_queries()[q], 10))) / 10 for q in range(len(model_queries()))]
    )
    assert found >= 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_vectors_are_refused_by_row(build: Build, value: float) -> None:
    vectors = model_vectors().copy()
    vectors[[17, 2000], 3] = value
    with pytest.raises(ExportError, match=r"2 of 3000 .*rows 17, 2000"):
        build(vectors)


def test_an_empty_catalogue_is_refused(build: Build) -> None:
    with pytest.raises(ExportError, match=r"with at least one item, got float32 \(0, 4\)"):
        build(np.empty((0, 4), dtype=np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_queries_are_refused(index: ItemIndex, value: float) -> None:
    queries = model_queries().copy()
    queries[4, 2] = value
    with pytest.raises(RequestError, match="user vector 4 holds NaN or an infinity"):
        index.search(queries, 10)


def test_invalid_queries_are_refused(index: ItemIndex) -> None:
    with pytest.raises(RequestError, match="n must be at least 1, got 0"):
        index.search(model_queries(), 0)
    with pytest.raises(RequestError, match=r"must be \[q, 17\], .* got \(40, 16\)"):
        index.search(model_queries()[:, :-1], 10)
    with pytest.raises(RequestError, match="exclude must have an entry for each of the 40 user vectors, got 1"):
        index.search(model_queries(), 10, [np.empty(0, dtype=np.int64)])
    with pytest.raises(RequestError, match="a bitmap of 7 rows does not fit an index of 3000"):
        index.search(model_queries()[:1], 10, None, [RowBitmap.everything(7)])
    query, nothing = model_queries()[0], np.empty(0, dtype=np.int64)
    with pytest.raises(RequestError, match="n must be at least 1, got 0"):
        index.search_one(query, 0, nothing)
    with pytest.raises(RequestError, match=r"must be \[q, 17\], .* got \(1, 16\)"):
        index.search_one(query[:-1], 10, nothing)
    with pytest.raises(RequestError, match="a bitmap of 7 rows does not fit an index of 3000"):
        index.search_one(query, 10, nothing, RowBitmap.everything(7))
    with pytest.raises(RequestError, match="user vector 0 holds NaN or an infinity"):
        index.search_one(np.full_like(query, np.nan), 10, nothing)


def test_an_empty_batch_gives_no_results(index: ItemIndex) -> None:
    assert index.search(model_queries()[:0], 10).rows.shape == (0, 10)


def test_an_index_round_trips_through_its_file(index: ItemIndex, tmp_path: Path) -> None:
    file = tmp_path / "index"
    path = file if index.write(file) else None
    assert file.exists() == (path is not None) == (engine_of(index.kind).file is not None)
    opened = open_index(path, engine_of(index.kind).name, index.kind, index.params, model_vectors())
    assert (opened.kind, opened.size, opened.dim, opened.exact) == (index.kind, SIZE, DIM, index.exact)
    assert opened.params == index.params
    before, after = index.search(model_queries(), 30), opened.search(model_queries(), 30)
    np.testing.assert_array_equal(before.rows, after.rows)
    np.testing.assert_array_equal(before.scores, after.scores)
    opened.close()


@pytest.mark.parametrize("index", FILED, indirect=True)
def test_an_invalid_index_file_is_refused(index: ItemIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"not an index")
    with pytest.raises(IndexFileError, match="cannot be read"):
        open_index(path, engine_of(index.kind).name, index.kind, index.params, model_vectors())
    with pytest.raises(IndexFileError, match="cannot be read"):
        open_index(tmp_path / "missing", engine_of(index.kind).name, index.kind, index.params, model_vectors())


def test_an_index_over_other_vectors_is_refused(index: ItemIndex, tmp_path: Path) -> None:
    path = tmp_path / "index" if index.write(tmp_path / "index") else None
    with pytest.raises(IndexFileError, match=r"holds 3000 vectors( of 24 numbers)?, the bundle 2999"):
        open_index(path, engine_of(index.kind).name, index.kind, index.params, model_vectors()[:-1])


@pytest.mark.parametrize("index", FILED, indirect=True)
def test_an_unwritable_path_is_an_error(index: ItemIndex, tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="could not be written"):
        index.write(tmp_path / "no such folder" / "index.faiss")


@pytest.mark.parametrize("build", FILED, indirect=True)
def test_the_same_seed_builds_the_same_bytes(build: Build, tmp_path: Path) -> None:
    for name in ("one", "two"):
        index = build(model_vectors())
        index.write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_searches_from_several_threads_agree(index: ItemIndex) -> None:
    expected = index.search(model_queries(), 25)
    with ThreadPoolExecutor(4) as pool:
        for hits in pool.map(lambda _: index.search(model_queries(), 25), range(20)):
            np.testing.assert_array_equal(hits.rows, expected.rows)
