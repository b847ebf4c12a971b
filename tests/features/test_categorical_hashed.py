import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.features.categorical import HashedEncoder, stable_hash
from tests.features.rows import agree, as_sets


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8")), max_size=8), st.integers(2, 50))
def test_a_request_is_encoded_like_a_column(values: list[str | None], buckets: int) -> None:
    agree(HashedEncoder("x", buckets), pl.DataFrame({"x": values}, {"x": pl.String()}))


def test_the_hash_is_stable() -> None:
    assert [stable_hash(text) for text in ("", "a", "ü")] == [13020603013274838756, 3405396810240292928, 3976460501203677525]


def test_a_number_hashes_like_its_text_and_null_is_missing() -> None:
    encoder = HashedEncoder("x", 1 << 16)
    rows = [as_sets(encoder.encode(pl.DataFrame({"x": [value]}))) for value in (7, 7.0, "7")]
    assert rows[0] == rows[1] == rows[2]
    assert as_sets(encoder.encode(pl.DataFrame({"x": [None]}, {"x": pl.Int64()}))) == [{1: 1.0}]
    assert encoder.encode_one({}) == [(1, 1.0)]
    assert encoder.size == 2 + (1 << 16)


def test_invalid_utf8_text_can_be_hashed_and_lists_cannot() -> None:
    encoder = HashedEncoder("x", 4)
    ((row, weight),) = encoder.encode_one({"x": "\ud800"})
    assert 2 <= row < 6
    assert weight == 1.0
    with pytest.raises(RequestError, match="/features/x"):
        encoder.encode_one({"x": [1]})
