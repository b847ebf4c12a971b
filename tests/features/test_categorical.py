import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config.schema import CategoricalField
from recall.errors import DataError, RequestError
from recall.features.categorical import CategoricalEncoder
from recall.features.column import FieldSource
from tests.features.rows import agree, as_sets

FIELD = CategoricalField(side="user", kind="categorical")
COLUMNS: dict[pl.DataType, st.SearchStrategy[object]] = {
    pl.String(): st.text(st.characters(codec="utf-8"), max_size=2),
    pl.Int64(): st.integers(-3, 3),
    pl.Float64(): st.floats(-2, 2, width=16),
    pl.Boolean(): st.booleans(),
    pl.Date(): st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 1, 4)),
}


def fit(values: pl.Series, field: CategoricalField = FIELD) -> CategoricalEncoder:
    return CategoricalEncoder.fit(field, FieldSource("x"), values.alias("x").to_frame(), np.ones(len(values), dtype=np.int64))


@pytest.mark.parametrize("dtype", COLUMNS, ids=str)
@given(data=st.data())
def test_a_request_is_encoded_like_a_column(dtype: pl.DataType, data: st.DataObject) -> None:
    values = st.lists(st.none() | COLUMNS[dtype], max_size=8)
    learnt, asked = (pl.Series("x", data.draw(values), dtype=dtype) for _ in range(2))
    agree(fit(learnt), asked.to_frame())


def test_unknown_missing_and_known_values_have_separate_rows() -> None:
    encoder = fit(pl.Series(["b", "a", "b", None, "rare"]), FIELD.model_copy(update={"min_count": 1}))
    rows = encoder.encode(pl.DataFrame({"x": ["new", None, "b", "a", "rare"]}))
    assert as_sets(rows) == [{0: 1.0}, {1: 1.0}, {2: 1.0}, {3: 1.0}, {4: 1.0}]
    assert encoder.size == rows.n_features == 5


def test_rare_values_are_unknown() -> None:
    encoder = fit(pl.Series(["b", "a", "b"]), CategoricalField(side="user", kind="categorical", min_count=2))
    assert as_sets(encoder.encode(pl.DataFrame({"x": ["a", "b"]}))) == [{0: 1.0}, {2: 1.0}]


def test_an_absent_value_is_missing() -> None:
    assert fit(pl.Series(["a"])).encode_one({}) == [(1, 1.0)]


@pytest.mark.parametrize("value", [["a"], {"a": 1}, float("nan"), b"a", 10**5000], ids=lambda value: type(value).__name__)
def test_a_list_in_a_request_is_refused_by_name(value: object) -> None:
    with pytest.raises(RequestError, match="must be a scalar") as caught:
        fit(pl.Series(["a"])).encode_one({"x": value})
    assert caught.value.where == "/features/x"
    assert caught.value.hint


def test_a_list_column_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="column 'x'"):
        fit(pl.Series([["a"]]))


def test_any_text_can_be_looked_up() -> None:
    assert fit(pl.Series(["a"])).encode_one({"x": "\ud800"}) == [(0, 1.0)]
