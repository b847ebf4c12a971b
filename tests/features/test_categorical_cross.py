from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config.schema import CategoricalField, CrossField, NumericField
from recall.features.categorical import CategoricalEncoder, CrossEncoder, HashedEncoder
from recall.features.column import FieldSource, SingleEncoder
from recall.features.numeric import BucketEncoder
from tests.features.rows import agree, as_sets

ROWS = st.lists(st.tuples(st.none() | st.text("ab:1", max_size=3), st.none() | st.floats(-9, 9)), max_size=10)


def table(rows: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, {"x": pl.String(), "y": pl.Float64()}, orient="row")


def parts(frame: pl.DataFrame, left: str = "categorical") -> tuple[SingleEncoder, SingleEncoder]:
    counts = np.ones(len(frame), dtype=np.int64)
    text: SingleEncoder = HashedEncoder("x", 4)
    if left == "categorical":
        text = CategoricalEncoder.fit(CategoricalField(side="user", kind="categorical"), FieldSource("x"), frame, counts)
    field = NumericField(side="user", kind="numeric", scale="buckets", buckets=3)
    return text, BucketEncoder.fit(field, "y", frame, counts)


def fit(frame: pl.DataFrame, parts: tuple[SingleEncoder, SingleEncoder], min_count: int = 1) -> CrossEncoder:
    field = CrossField(kind="cross", side="user", of=("x", "y"), min_count=min_count)
    return CrossEncoder.fit(field, FieldSource("", parts=parts), frame, np.ones(len(frame), dtype=np.int64))


@pytest.mark.parametrize("left", ["categorical", "hashed"])
@given(learnt=ROWS, asked=ROWS)
def test_a_request_is_encoded_like_a_column(left: str, learnt: list[Any], asked: list[Any]) -> None:
    frame = table(learnt)
    encoder = fit(frame, parts(frame, left))
    agree(encoder, frame)
    agree(encoder, table(asked))


def test_pairs_with_equal_concatenations_are_distinct() -> None:
    frame = pl.DataFrame({"x": ["a", "ab", "1:a", "1"], "y": ["bc", "c", "b", ":ab"]})
    both = (HashedEncoder("x", 4), HashedEncoder("y", 4))
    assert len(fit(frame, both).vocabulary) == 4


def test_a_missing_part_gives_the_missing_row() -> None:
    frame = pl.DataFrame({"x": ["a", "a", "b", None], "y": ["c", "c", "c", "c"]})
    encoder = fit(frame, (HashedEncoder("x", 4), HashedEncoder("y", 4)), min_count=2)
    asked = pl.DataFrame({"x": ["a", "b", None, "z", "a"], "y": ["c", "c", "c", "c", None]})
    assert as_sets(encoder.encode(asked)) == [{2: 1.0}, {0: 1.0}, {1: 1.0}, {0: 1.0}, {1: 1.0}]
    assert encoder.size == 3


def test_a_cross_uses_values_below_the_parts_min_count() -> None:
    frame = pl.DataFrame({"x": ["a", "b"], "y": ["c", "d"]})
    field = CategoricalField(side="user", kind="categorical", min_count=2)
    rare = CategoricalEncoder.fit(field, FieldSource("x"), frame, np.ones(2, dtype=np.int64))
    assert len(rare.vocabulary) == 0
    assert len(fit(frame, (rare, HashedEncoder("y", 4))).vocabulary) == 2


def test_two_parts_may_read_the_same_column() -> None:
    frame = pl.DataFrame({"x": ["a"]})
    encoder = fit(frame, (HashedEncoder("x", 4), HashedEncoder("x", 8)))
    assert encoder.columns == ("x",)
    agree(encoder, frame)
