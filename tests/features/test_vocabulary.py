from collections import Counter
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall._text_table import TextTable
from recall.features.vocabulary import FIRST, MISSING, UNKNOWN, Vocabulary

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)


@given(st.lists(st.none() | TEXTS, max_size=20), st.integers(1, 3))
def test_the_vocabulary_is_sorted_by_count_then_value(values: list[str | None], min_count: int) -> None:
    vocabulary = Vocabulary.fit(pl.Series(values, dtype=pl.String), np.ones(len(values), dtype=np.int64), min_count)
    counted = Counter(value for value in values if value is not None)
    kept = [value for value, count in counted.items() if count >= min_count]
    assert vocabulary.values.to_list() == sorted(kept, key=lambda value: (-counted[value], value.encode()))
    assert vocabulary.size == len(vocabulary) + FIRST


@pytest.fixture(params=[10_000, 0], scope="module")
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """Vocabularies up to a number of values have a dict, larger ones a table."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("recall.features.vocabulary.FEW", request.param)
        yield


@pytest.mark.usefixtures("few")
@given(st.lists(TEXTS, unique=True, max_size=10), st.lists(st.none() | TEXTS, max_size=10), st.booleans())
def test_bulk_and_single_lookup_agree_and_are_invertible(values: list[str], asked: list[str | None], mapped: bool) -> None:
    learnt = pl.Series(values, dtype=pl.String)
    vocabulary = Vocabulary(TextTable.mapped(TextTable.of(learnt).arrays()) if mapped else learnt)
    assert vocabulary.values.to_list() == values
    rows = vocabulary.rows(pl.Series(asked, dtype=pl.String))
    assert rows.dtype == np.int32
    assert rows.tolist() == [MISSING if value is None else vocabulary.row(value) for value in asked]
    for value in values:
        assert vocabulary.value(vocabulary.row(value)) == value
        assert vocabulary.row(value) >= FIRST
    texts = [value for value in asked if value is not None]
    assert vocabulary.rows_of(texts) == [vocabulary.row(text) for text in texts]
    for value in asked:
        if value is not None and value not in values:
            assert vocabulary.row(value) == UNKNOWN


def test_empty_text_is_missing() -> None:
    vocabulary = Vocabulary.fit(pl.Series(["", "a", None]), np.ones(3, dtype=np.int64))
    assert vocabulary.values.to_list() == ["a"]
    assert vocabulary.rows(pl.Series(["", "a", None, "b"])).tolist() == [MISSING, FIRST, MISSING, UNKNOWN]


def test_counts_are_weighted_and_weight_0_is_ignored() -> None:
    vocabulary = Vocabulary.fit(pl.Series(["a", "b", "c", "b"]), np.array([1, 2, 0, 2]))
    assert vocabulary.values.to_list() == ["b", "a"]


def test_a_number_of_any_type_is_the_same_value() -> None:
    vocabulary = Vocabulary.fit(pl.Series([7, 8, 8]), np.ones(3, dtype=np.int64))
    assert vocabulary.values.to_list() == ["8", "7"]
    assert vocabulary.rows(pl.Series([7.0, 7.5, None])).tolist() == [3, UNKNOWN, MISSING]
    assert vocabulary.rows(pl.Series(["8", "08"])).tolist() == [2, UNKNOWN]


def test_everything_is_unknown_to_an_empty_vocabulary() -> None:
    vocabulary = Vocabulary.fit(pl.Series([], dtype=pl.Int64), np.empty(0, dtype=np.int64))
    assert vocabulary.size == FIRST
    assert vocabulary.rows(pl.Series([1, None])).tolist() == [UNKNOWN, MISSING]
    assert vocabulary.rows(pl.Series([], dtype=pl.Int64)).tolist() == []


def test_a_grown_vocabulary_keeps_all_rows_and_appends_new_values() -> None:
    before = Vocabulary(pl.Series("value", ["b", "a"]))
    grown = before.with_values_of(Vocabulary(pl.Series("value", ["c", "a", "d"])))
    assert grown.values.to_list() == ["b", "a", "c", "d"]
    assert before.with_values_of(Vocabulary(pl.Series("value", [], dtype=pl.String))).values.to_list() == ["b", "a"]
