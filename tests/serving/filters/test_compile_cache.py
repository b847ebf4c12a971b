import numpy as np

from recall._cache import Cache
from recall.index.bitmap import RowBitmap
from recall.serving.filters import columns
from recall.serving.filters.compile import CodeRanges, Plan


def selection_cache(most: int = 1024, most_bytes: int = 64 << 20) -> Cache[Plan, RowBitmap]:
    return Cache(most, most_bytes, columns._bytes)


def some(rows: int, size: int = 80_000) -> RowBitmap:
    return RowBitmap.of_rows(np.arange(rows), size)


def clause(number: int) -> CodeRanges:
    return CodeRanges("column", "text", ((number, number + 1),))


def test_the_first_cached_entry_stays() -> None:
    cache = selection_cache()
    one, other = some(3), some(3)
    assert cache.get(clause(0)) is None
    assert cache.setdefault(clause(0), one) is one
    assert cache.setdefault(clause(0), other) is one
    assert cache.get(clause(0)) is one


def test_the_least_recently_used_entry_is_evicted() -> None:
    cache = selection_cache(most=3)
    for number in range(3):
        cache.setdefault(clause(number), some(number))
    cache.get(clause(0))
    cache.setdefault(clause(3), some(3))
    assert [number for number in range(4) if cache.get(clause(number)) is not None] == [0, 2, 3]


def test_the_bytes_of_the_cache_are_bounded() -> None:
    cache = selection_cache(
        most_bytes=60_000
    )  # a bitmap takes 10,000 bytes for its bits, and 8 for each row once rows are listed
    kept = [cache.setdefault(clause(number), some(10)) for number in range(10)]
    assert len(cache) == 5
    large = cache.setdefault(clause(10), some(5_000))
    assert len(large.rows) == 5_000
    assert all(len(one.rows) == 10 for one in kept)
    cache.setdefault(clause(11), some(10))
    assert len(cache) == 1 or large.rows.nbytes + 10_000 * len(cache) < 60_000
    assert cache.get(clause(11)) is not None


def test_an_entry_larger_than_the_cache_is_kept_alone() -> None:
    cache = selection_cache(most_bytes=100)
    cache.setdefault(clause(0), some(1))
    cache.setdefault(clause(1), some(1))
    assert len(cache) == 1
    assert cache.get(clause(1)) is not None
