"""The LRU cache."""

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from recall._cache import Cache


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.integers())))
def test_the_most_recent_entries_are_kept(most: int, puts: list[tuple[int, int]]) -> None:
    recent: Cache[int, int] = Cache(most)
    order: dict[int, int] = {}
    for key, value in puts:
        recent.put(key, value)
        order.pop(key, None)
        order[key] = value
    kept = dict(list(order.items())[-most:])
    assert {key: recent.get(key) for key in range(10)} == {key: kept.get(key) for key in range(10)}
    assert len(recent) == len(kept)


def test_threads_can_share_the_cache() -> None:
    recent: Cache[int, int] = Cache(50)

    def put(start: int) -> None:
        for number in range(start, start + 20_000):
            recent.put(number % 1000, number)
            got = recent.get(number % 1000)
            assert got is None or got % 1000 == number % 1000

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(0, 160_000, 20_000)))
    recent.put(-1, 0)
    assert len(recent) <= 50
