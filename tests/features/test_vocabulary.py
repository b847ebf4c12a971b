from collections import Counter

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from recall.features.vocabulary import FIRST, MISSING, UNKNOWN, Vocabulary

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)


@given(st.lists(st.none() | TEXTS, max_size=20), st.integers(1, 3))
def test_values_are_learnt_by_falling_count_then_by_value(values: list[str | None], min_count: int) -> None:
    vocabulary = Vocabulary.fit(pl.Series(values, dtype=pl.String), np.ones(len(values), dtype=np.int64), min_count)
    counted = Counter(value for value in values if value is not None)
    kept = [value for value, count in counted.items() if count >= min_count]
    assert vocabulary.values.to_list() == sorted(kept, key=lambda value: (-counted[value], value.encode()))
    assert vocabulary.size == len(vocabulary) + FIRST


@given(st.lists(TEXTS, unique=True, max_size=10), st.lists(st.none() | TEXTS, max_size=10))
def test_rows_agree_with_row_and_lead_back_to_the_value(values: list[str], asked: list[str | None]) -> None:
    vocabulary = Vocabulary(pl.Series(values, dtype=pl.String))
    rows = vocabulary.rows(pl.Series(asked, dtype=pl.String))
    assert rows.dtype == np.int32
    assert rows.tolist() == [MISSING if value is None else vocabulary.row(value) for value in asked]
    for value in values:
        assert vocabulary.values[vocabulary.row(value) - FIRST] == value
    texts = [value for value in asked if value is not None]
    assert vocabulary.rows_of(texts) == [vocabulary.row(text) for text in texts]
    for value in asked:
        if value is not None and value not in values:
            assert vocabulary.row(value) == UNKNOWN


def test_empty_text_is_missing() -> None:
    vocabulary = Vocabulary.fit(pl.Series(["", "a", None]), np.ones(3, dtype=np.int64))
    assert vocabulary.values.to_list() == ["a"]
    assert vocabulary.rows(pl.Series(["", "a", None, "b"])).tolist() == [MISSING, FIRST, MISSING, UNKNOWN]


def test_counts_weigh_and_what_counts_nothing_is_not_learnt() -> None:
    vocabulary = Vocabulary.fit(pl.Series(["a", "b", "c", "b"]), np.array([1, 2, 0, 2]))
    assert vocabulary.values.to_list() == ["b", "a"]


def test_numbers_of_any_type_are_one_value() -> None:
    vocabulary = Vocabulary.fit(pl.Series([7, 8, 8]), np.ones(3, dtype=np.int64))
    assert vocabulary.values.to_list() == ["8", "7"]
    assert vocabulary.rows(pl.Series([7.0, 7.5, None])).tolist() == [3, UNKNOWN, MISSING]
    assert vocabulary.rows(pl.Series(["8", "08"])).tolist() == [2, UNKNOWN]


def test_an_empty_vocabulary_knows_nothing() -> None:
    vocabulary = Vocabulary.fit(pl.Series([], dtype=pl.Int64), np.empty(0, dtype=np.int64))
    assert vocabulary.size == FIRST
    assert vocabulary.rows(pl.Series([1, None])).tolist() == [UNKNOWN, MISSING]
    assert vocabulary.rows(pl.Series([], dtype=pl.Int64)).tolist() == []


def test_a_grown_vocabulary_keeps_every_row_and_adds_what_is_new() -> None:
    before = Vocabulary(pl.Series("value", ["b", "a"]))
    grown = before.grown(Vocabulary(pl.Series("value", ["c", "a", "d"])))
    assert grown.values.to_list() == ["b", "a", "c", "d"]
    assert before.grown(Vocabulary(pl.Series("value", [], dtype=pl.String))).values.to_list() == ["b", "a"]
